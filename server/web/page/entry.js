/** The data of one symbol of the list, whether its row is in view or not. */

import { Trail } from "./sparkline.js";

export class Entry {
  quote = null;
  trail = new Trail();

  /** The reason why there is no quote, or null. */
  refusal = null;

  /** The server's status of the symbol if its prices do not flow, such as `halted`. */
  status = undefined;

  /** Whether the page asked for what a row shows beside its quote. */
  isGreeted = false;

  #arrived = 0;
  #time = 0;

  constructor(symbol) {
    this.symbol = symbol;
  }

  /** Take in a quote. `isLive`: it is a change, and not the first quote of a connection. */
  take(quote, now, isLive) {
    const price = quote.current_price;
    if (typeof price === "number") this.trail.push(price, now);
    if (quote.last_updated !== this.quote?.last_updated) {
      this.#time = Date.parse(quote.last_updated) || 0;
      // Only a change that the page saw tells by this machine's clock how old the price is.
      this.#arrived = isLive ? now : 0;
    }
    this.quote = quote;
    this.refusal = null;
  }

  /** Return the age of the price in milliseconds, or undefined if it is not known. */
  age(now) {
    const since = this.#arrived || this.#time;
    return since ? now - since : undefined;
  }
}
