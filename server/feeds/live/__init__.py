"""Live public feeds: one frame for all venues, and one file for each venue's messages."""
