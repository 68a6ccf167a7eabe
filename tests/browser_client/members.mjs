/** Prints the names that the package exports, and those of a connection's members. */

import * as exported from "quotestream";

class Socket {
  close() {}
}

const quotes = exported.connect({ url: "ws://quotes.example/", WebSocket: Socket });
const members = [...Object.keys(quotes), ...Object.getOwnPropertyNames(Object.getPrototypeOf(quotes))];
quotes.close();
console.log(JSON.stringify({ exported: Object.keys(exported), members }));
