/** The instruments that the page knows: their decimals, and where they trade. */

import { decimalsOf } from "./format.js";

const PRICES = ["current_price", "base_price", "open", "high", "low", "previous_close", "bid", "ask"];

/** Decimals of a price until the server tells them, as most money has cents. */
const USUAL = 2;

/** Milliseconds between two questions, so that many rows do not spend the visitor's budget at once. */
const PACE = 40;

/** Asks the server for one instrument after another. Tells "known" with the symbol. */
export class Instruments extends EventTarget {
  #api;
  #known = new Map();
  #seen = new Map();
  #wanted = new Set();
  #asks = false;

  constructor(api) {
    super();
    this.#api = api;
  }

  get(symbol) {
    return this.#known.get(symbol);
  }

  /** Take in an instrument of an answer. */
  learn(instrument) {
    this.#known.set(instrument.symbol, instrument);
    this.dispatchEvent(new CustomEvent("known", { detail: instrument.symbol }));
  }

  /** Return the decimals of a symbol's prices: the instrument's, else the most that a price showed. */
  decimals(symbol, quote) {
    const told = this.#known.get(symbol)?.price_decimals;
    if (told !== undefined) return told;
    let most = this.#seen.get(symbol) ?? USUAL;
    if (quote) for (const name of PRICES) most = Math.max(most, decimalsOf(quote[name]));
    this.#seen.set(symbol, most);
    return most;
  }

  /** Ask for an instrument soon, once. */
  want(symbol) {
    if (this.#known.has(symbol)) return;
    this.#wanted.add(symbol);
    if (!this.#asks) this.#askAll();
  }

  async #askAll() {
    this.#asks = true;
    for (const symbol of this.#wanted) {
      let wait = PACE;
      try {
        this.learn(await this.#api.get(`instruments/${encodeURIComponent(symbol)}`));
        this.#wanted.delete(symbol);
      } catch (error) {
        // An unknown symbol stays unknown; the stream tells it. Everything else may pass.
        if (error.status === 404 || error.status === 403) this.#wanted.delete(symbol);
        else wait = error.retryAfter || 5000;
      }
      await new Promise((done) => setTimeout(done, wait));
    }
    this.#asks = false;
    if (this.#wanted.size) this.#askAll();
  }
}
