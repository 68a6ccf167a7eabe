"""Files for browsers: the pages, their modules, and the client `quotes.js`. No file needs a build."""
