/** Keeps the server's subscriptions equal to the visitor's list, and tells in the rows what it refuses. */

import { writeAddress } from "./address.js";
import { announce, find } from "./dom.js";

/** The list of a first visit. A server without these symbols shows its own first ones. */
export const FIRST = [
  "AAPL", "MSFT", "NVDA", "GOOGL", "AMZN", "META", "TSLA", "BRK.B",
  "JPM", "V", "LLY", "XOM", "KO", "DIS", "SPY", "QQQ",
];

/** Refused symbols that a screen reader hears by name. */
const NAMED = 3;

const REFUSALS = {
  unknown_symbol: "This server does not know the symbol. Search for another, or remove it.",
  not_entitled: "Your token does not include this symbol.",
  too_many_symbols: "The list is longer than the server allows. Remove some symbols.",
};

export class List {
  #selection;
  #stream;
  #table;
  #api;
  #isFirst;
  #subscribed = new Set();

  /** The symbols whose quotes came from this connection. The first ones may be old. */
  #known = new Set();

  /** `isFirst`: the list is not the visitor's own choice. */
  constructor(selection, stream, table, api, isFirst) {
    this.#selection = selection;
    this.#stream = stream;
    this.#table = table;
    this.#api = api;
    this.#isFirst = isFirst;
    selection.addEventListener("list", () => this.#follow());
    selection.addEventListener("chart", () => writeAddress(selection));
    stream.addEventListener("change", ({ detail }) => this.#take(detail));
    stream.addEventListener("removed", ({ detail }) => this.#remove(detail));
    stream.addEventListener("error", ({ detail }) => this.#refused(detail));
    stream.addEventListener("status", () => this.#mark());
    stream.addEventListener("state", () => this.#stateChanged());
    this.#follow();
  }

  #follow() {
    const [selection, stream] = [this.#selection, this.#stream];
    const wanted = new Set(selection.symbols);
    const news = [...wanted].filter((symbol) => !this.#subscribed.has(symbol));
    const gone = [...this.#subscribed].filter((symbol) => !wanted.has(symbol));
    this.#subscribed = wanted;
    // A server may take another list than the one that it refused.
    if (stream.state === "closed" && news.length + gone.length) stream.reconnect({ symbols: wanted });
    // The event `error` tells each refusal.
    else if (gone.length) stream.unsubscribe(gone);
    if (gone.length) news.push(...this.#withoutRoom());
    if (news.length) stream.subscribe(news);
    find("empty").hidden = wanted.size > 0;
    find("quotes").hidden = wanted.size === 0;
    writeAddress(selection);
  }

  /** Return the symbols that were refused as the list was too long. A shorter one may have room for them. */
  #withoutRoom() {
    const isWithoutRoom = (symbol) => this.#table.entry(symbol)?.refusal === REFUSALS.too_many_symbols;
    return this.#selection.symbols.filter(isWithoutRoom);
  }

  #take({ symbol, quote }) {
    this.#table.take(symbol, quote, this.#known.has(symbol));
    this.#known.add(symbol);
  }

  #remove({ symbol, renamedTo }) {
    this.#known.delete(symbol);
    if (!this.#selection.has(symbol)) return;
    if (renamedTo) this.#selection.rename(symbol, renamedTo);
    else this.#tell([symbol], "No longer listed. You can remove it.");
  }

  #refused({ code, message, symbols = [] }) {
    // A list that is too long is refused as a whole.
    const isWhole = code === "too_many_symbols";
    const all = isWhole ? this.#selection.symbols.filter((each) => !this.#stream.quotes.has(each)) : symbols;
    this.#refuse(code, message, all);
  }

  #refuse(code, message, symbols) {
    const refused = symbols.filter((each) => this.#selection.has(each));
    const isMine = (symbol) => this.#isFirst && code === "unknown_symbol" && FIRST.includes(symbol);
    for (const symbol of refused.filter(isMine)) this.#selection.remove(symbol);
    this.#tell(refused.filter((each) => !isMine(each)), REFUSALS[code] ?? message);
    if (this.#isFirst && this.#selection.symbols.length === 0) this.#showFirstOfServer();
  }

  /** Say in the rows of these symbols, and to a screen reader, why no price comes. */
  #tell(symbols, text) {
    for (const symbol of symbols) this.#table.refuse(symbol, text);
    const rest = symbols.length - NAMED;
    const names = symbols.slice(0, NAMED).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
    if (names) announce(`${names}: ${text}`);
  }

  /** Show the first symbols of a server that has none of the usual ones. */
  async #showFirstOfServer() {
    try {
      const found = await this.#api.get("instruments", { limit: FIRST.length });
      this.#selection.add(found.map(({ symbol }) => symbol));
    } catch {
      // The empty list says what to do.
    }
  }

  /** Show which symbols are halted, closed or quiet. */
  #mark() {
    this.#table.mark((symbol) => this.#stream.statuses.get(symbol));
  }

  #stateChanged() {
    const { state, reason } = this.#stream;
    if (state === "connecting") this.#known.clear();
    // The client forgets all statuses with the connection.
    this.#mark();
    if (state !== "closed") return;
    if (reason?.code === "too_many_symbols") this.#shorten();
    if (reason?.code === "no_valid_symbols") {
      // The server takes a connection without a symbol, but not one with unknown symbols only.
      this.#stream.reconnect({ symbols: [] });
      this.#refuse("unknown_symbol", "", this.#selection.symbols);
    }
  }

  /** Halve a list that the visitor did not ask for, until the server allows it. */
  #shorten() {
    const { symbols } = this.#selection;
    if (!this.#isFirst || symbols.length < 2 || !symbols.every((each) => FIRST.includes(each))) return;
    for (const symbol of symbols.slice(Math.ceil(symbols.length / 2))) this.#selection.remove(symbol);
  }
}
