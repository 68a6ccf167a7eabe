/**
 * Reads pairs of a price and a base price. It prints `[change, change_percent]` of each, as quotes.js
 * computes them for a compact quote.
 */

import { readFileSync } from "node:fs";
import { connect } from "../../server/web/quotes.js";
import { FakeSocket } from "./fakes.mjs";

const quotes = connect({ url: "ws://quotes.example/", symbols: ["*"], WebSocket: FakeSocket });
// The client asks for its token first, if only for none.
await new Promise((resolve) => setTimeout(resolve));
const [socket] = FakeSocket.opened;
socket.open();
const fields = ["current_price", "base_price"];
socket.say({ type: "schema", fields, derived: ["change", "change_percent"] });
const results = JSON.parse(readFileSync(0, "utf8")).map((prices, number) => {
  socket.say(["s", "1.a", 0, [["A", number + 1, 3, ...prices]]]);
  const { change, change_percent: percent } = quotes.quotes.get("A");
  return [change, percent];
});
quotes.close();
console.log(JSON.stringify(results));
