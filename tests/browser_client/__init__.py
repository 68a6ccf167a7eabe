"""The browser's client `quotes.js`, run in Node."""
