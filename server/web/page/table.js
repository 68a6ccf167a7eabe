/** The table of quotes: its rows and their order. It writes at most once per frame. */

import { find, oncePerFrame } from "./dom.js";
import { Entry } from "./entry.js";
import { Order } from "./order.js";
import { Row } from "./row.js";
import { Widths } from "./widths.js";
import { Window } from "./window.js";

/** Milliseconds between two orders of a sorted table, so that rows can be read. */
const RESORT = 2000;

/** Rows that one frame may paint. More would hold up the frame on a slow machine. */
const AT_ONCE = 24;

/**
 * Tells "priced" with the symbol of each row in view that has its first quote, and "refused" with one of
 * which no quote comes.
 */
export class Table extends EventTarget {
  body = find("rows");
  #selection;
  #instruments;
  #quotes;
  #entries = new Map();
  #rows = new Map();
  #ordered = [];
  #dirty = new Set();
  #isHeld = false;
  #current = null;
  #widths = new Widths();

  constructor(selection, instruments, quotes) {
    super();
    this.#selection = selection;
    this.#instruments = instruments;
    this.#quotes = quotes;
    this.order = new Order(find("columns"), () => this.arrange());
    this.paintSoon = oncePerFrame(() => this.#paint());
    this.arrangeSoon = oncePerFrame(() => this.arrange());
    this.window = new Window(this.body, oncePerFrame(() => this.#render()));
    selection.addEventListener("list", () => this.arrangeSoon());
    selection.addEventListener("chart", () => this.#choose());
    instruments.addEventListener("known", ({ detail }) => this.touch(detail));
    this.body.addEventListener("pointerenter", () => (this.#isHeld = true));
    this.body.addEventListener("pointerleave", () => (this.#isHeld = false));
    this.arrange();
    setInterval(() => this.#age(), 1000);
    setInterval(() => this.order.isSorted && !this.#isInUse && this.arrange(), RESORT);
  }

  /** Whether a row must not move away: below a pointer, or from the keyboard. */
  get #isInUse() {
    return this.#isHeld || this.body.querySelector(":focus-visible") !== null;
  }

  /** The symbols in the order of their rows. */
  get symbols() {
    return this.#ordered.map(({ symbol }) => symbol);
  }

  /** The symbol at which the keyboard enters the table. */
  get current() {
    return this.#current;
  }

  entry(symbol) {
    return this.#entries.get(symbol);
  }

  /** Take in a quote. `isLive`: it is a change, and not the first quote of a connection. */
  take(symbol, quote, isLive) {
    const entry = this.#entries.get(symbol);
    if (!entry) return;
    entry.take(quote, Date.now(), isLive);
    this.touch(symbol);
  }

  /** Say in a row why it has no quote. */
  refuse(symbol, text) {
    const entry = this.#entries.get(symbol);
    if (!entry) return;
    entry.refusal = text;
    this.touch(symbol);
    this.dispatchEvent(new CustomEvent("refused", { detail: symbol }));
  }

  /** Show the statuses of symbols whose prices do not flow: `statusOf` returns one, or undefined. */
  mark(statusOf) {
    for (const [symbol, entry] of this.#entries) {
      const status = statusOf(symbol);
      if (status === entry.status) continue;
      entry.status = status;
      this.touch(symbol);
    }
  }

  /** Paint a row soon. */
  touch(symbol) {
    if (!this.#rows.has(symbol)) return;
    this.#dirty.add(symbol);
    this.paintSoon();
  }

  /** Show that no price is current, or that they are again. */
  still(isStill) {
    document.querySelector("main").classList.toggle("still", isStill);
  }

  /** Bring a row into view, and focus it. */
  focus(symbol) {
    const index = this.#ordered.findIndex((entry) => entry.symbol === symbol);
    if (index < 0) return;
    this.reveal(symbol);
    this.enterAt(symbol);
    this.#rows.get(symbol)?.pick.focus({ preventScroll: true });
  }

  reveal(symbol) {
    const index = this.#ordered.findIndex((entry) => entry.symbol === symbol);
    if (index < 0) return;
    this.window.reveal(index);
    this.#render();
  }

  /** Follow the list: its symbols, and the order of the rows. */
  arrange() {
    const { symbols } = this.#selection;
    const wanted = new Set(symbols);
    for (const symbol of this.#entries.keys()) if (!wanted.has(symbol)) this.#entries.delete(symbol);
    for (const symbol of symbols) if (!this.#entries.has(symbol)) this.#enter(symbol);
    const entries = symbols.map((symbol) => this.#entries.get(symbol));
    const left = this.#ordered.findIndex(({ symbol }) => symbol === this.#current);
    this.#ordered = this.order.of(entries, Date.now());
    find("quotes").setAttribute("aria-rowcount", String(symbols.length + 1));
    const focused = document.activeElement;
    const hadFocus = this.body.contains(focused);
    const count = this.#rows.size;
    this.#render();
    // A row that moves in the document loses the focus.
    if (hadFocus && this.body.contains(focused)) focused.focus({ preventScroll: true });
    if (this.#rows.size < count) this.#widths.reset([...this.#rows.values()].map(({ lengths }) => lengths));
    if (wanted.has(this.#current)) return;
    const next = this.#ordered[Math.min(left, this.#ordered.length - 1)]?.symbol ?? symbols[0] ?? null;
    if (hadFocus && next) this.focus(next);
    else this.enterAt(this.#selection.chart ?? next);
  }

  #enter(symbol) {
    const entry = new Entry(symbol);
    this.#entries.set(symbol, entry);
    const quote = this.#quotes.get(symbol);
    if (quote) entry.take(quote, Date.now(), false);
  }

  /** Put the rows in view into the document, in their order. */
  #render() {
    const count = this.#ordered.length;
    const [from, to] = this.window.range(count);
    const shown = this.#ordered.slice(from, to);
    const kept = new Set(shown);
    for (const [symbol, row] of this.#rows) if (!kept.has(row.entry)) this.#drop(symbol, row);
    this.window.reserve(from, to, count);
    let place = this.body.firstChild;
    shown.forEach((entry, i) => {
      const row = this.#rows.get(entry.symbol) ?? this.#make(entry);
      if (row.element === place) place = place.nextSibling;
      else this.body.insertBefore(row.element, place);
      row.element.setAttribute("aria-rowindex", String(from + i + 2));
    });
  }

  #make(entry) {
    const row = new Row(entry);
    this.#rows.set(entry.symbol, row);
    row.choose(entry.symbol === this.#selection.chart);
    row.pick.tabIndex = entry.symbol === this.#current ? 0 : -1;
    this.touch(entry.symbol);
    return row;
  }

  #drop(symbol, row) {
    // The keyboard stays in the table when its row is scrolled away.
    if (row.element.contains(document.activeElement)) find("quotes").focus({ preventScroll: true });
    row.element.remove();
    this.#rows.delete(symbol);
    this.#dirty.delete(symbol);
  }

  #choose() {
    const { chart } = this.#selection;
    for (const [symbol, row] of this.#rows) row.choose(symbol === chart);
    if (this.#entries.has(chart)) this.enterAt(chart);
  }

  /** Let the keyboard enter the table at this row. */
  enterAt(symbol) {
    this.#current = symbol;
    for (const [each, row] of this.#rows) row.pick.tabIndex = each === symbol ? 0 : -1;
  }

  #paint() {
    const now = Date.now();
    let painted = 0;
    for (const symbol of this.#dirty) {
      if (++painted > AT_ONCE) {
        this.paintSoon();
        return;
      }
      this.#dirty.delete(symbol);
      const row = this.#rows.get(symbol);
      if (!row) continue;
      const { entry } = row;
      if (entry.quote && !entry.isGreeted) this.#greet(entry);
      row.paint(this.#instruments.decimals(symbol, entry.quote), now);
      this.#widths.take(row.lengths);
    }
  }

  /** Ask for what a row shows beside its quote. A symbol with a quote is known, so there are answers. */
  #greet(entry) {
    entry.isGreeted = true;
    this.#instruments.want(entry.symbol);
    this.dispatchEvent(new CustomEvent("priced", { detail: entry.symbol }));
  }

  /** Ask again for the past of each row. It is not whole after an absence. */
  greetAgain() {
    for (const entry of this.#entries.values()) entry.isGreeted = false;
    for (const symbol of this.#rows.keys()) this.touch(symbol);
  }

  #age() {
    const now = Date.now();
    for (const row of this.#rows.values()) if (row.entry.quote) row.age(now);
  }
}
