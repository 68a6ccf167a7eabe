/**
 * Reads a list of `{"patch": [document, operations]}` and `{"hex": bytes}`. It prints a list of what
 * quotes.js makes of each: `{"value": …}`, or `{"error": text}`.
 */

import { readFileSync } from "node:fs";
import { applyPatch, unpack } from "../../server/web/quotes.js";

function result({ patch, hex }) {
  try {
    if (patch === undefined) return { value: unpack(Uint8Array.from(Buffer.from(hex, "hex")).buffer) };
    const before = JSON.stringify(patch[0]);
    const value = applyPatch(...patch);
    if (JSON.stringify(patch[0]) !== before) throw new Error("the given document was changed");
    return { value };
  } catch (error) {
    return { error: error.message };
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(result)));
