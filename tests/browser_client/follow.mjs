/**
 * Follows a real server with quotes.js, for a test in Python. Its argument has the options, and
 * `tokens`, which it gives one after the other, and `speed`, by which all timers are faster.
 *
 * It prints each event as a line. A line of input is a call: `[number, method, …arguments]`, of which
 * it prints the result. The method `look` returns what a page can see.
 */

import { createInterface } from "node:readline";
import { connect } from "../../server/web/quotes.js";

const { tokens, speed, ...options } = JSON.parse(process.argv[2]);

for (const name of ["setTimeout", "setInterval"]) {
  const original = globalThis[name];
  globalThis[name] = (action, wait) => original(action, wait / speed);
}

const print = (value) => console.log(JSON.stringify(value));
const getToken = () => (tokens.length > 1 ? tokens.shift() : tokens[0]);
// Node 18, which is Debian 12's, has no WebSocket. Debian's package node-ws has one.
async function debianSocket() {
  const { WebSocket } = await import("/usr/share/nodejs/ws/wrapper.mjs");
  return class extends WebSocket {
    constructor(...options) {
      super(...options);
      // The event `close` tells the client enough. An error without a listener would end the process.
      this.on("error", () => {});
    }
  };
}

const WebSocket = globalThis.WebSocket ?? (await debianSocket());
const quotes = connect({ ...options, getToken, WebSocket });

for (const event of ["state", "missed", "removed", "error", "status", "bar"]) {
  quotes.addEventListener(event, ({ detail }) => print({ event, detail, missed: quotes.missed }));
}

const look = () => ({
  quotes: Object.fromEntries(quotes.quotes),
  versions: Object.fromEntries(quotes.versions),
  ...Object.fromEntries(
    ["state", "reason", "missed", "behind", "epoch", "format", "symbols", "lag"].map((name) => [name, quotes[name]]),
  ),
  stats: { ...quotes.stats },
});

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const [number, method, ...rest] = JSON.parse(line);
    try {
      print({ number, result: method === "look" ? look() : ((await quotes[method](...rest)) ?? null) });
    } catch ({ code, message, symbols }) {
      print({ number, refused: { code, message, symbols } });
    }
  })
  .on("close", () => process.exit());
