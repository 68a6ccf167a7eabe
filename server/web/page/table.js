/** The table of quotes: its rows, their order, the keyboard. It writes at most once per frame. */

import { find, oncePerFrame } from "./dom.js";
import { bindDrag } from "./drag.js";
import { Order } from "./order.js";
import { Row } from "./row.js";

/** Rows that one frame may make or paint. More would hold up the frame on a slow machine. */
const AT_ONCE = 40;

/** Milliseconds between two orders of a sorted table, so that rows can be read. */
const RESORT = 2000;

/** Pixels around the visible part whose rows are kept up to date. */
const MARGIN = "200px 0px";

/** Tells "seen" with the symbol of each row that comes into view first. */
export class Table extends EventTarget {
  #selection;
  #instruments;
  #rows = new Map();
  #byElement = new WeakMap();
  #dirty = new Set();
  #body = find("rows");
  #hovered = false;
  #refused = new Map();

  constructor(selection, instruments) {
    super();
    this.#selection = selection;
    this.#instruments = instruments;
    this.order = new Order(find("columns"), () => this.#arrange());
    this.paintSoon = oncePerFrame(() => this.#paint());
    this.#arrangeSoon = oncePerFrame(() => this.#arrange());
    this.#watcher = new IntersectionObserver((entries) => this.#saw(entries), { rootMargin: MARGIN });
    selection.addEventListener("list", () => this.#arrangeSoon());
    selection.addEventListener("chart", () => this.#choose());
    instruments.addEventListener("known", ({ detail }) => this.#touch(detail));
    this.#bind();
    this.#arrange();
    setInterval(() => this.#tick(), 1000);
    setInterval(() => this.order.isSorted && !this.#hovered && this.#arrange(), RESORT);
  }
  #watcher;
  #arrangeSoon;

  /** Take in a quote. `isLive`: it is a change, and not the first quote of a connection. */
  take(symbol, quote, isLive) {
    const row = this.#rows.get(symbol);
    if (!row || row.isRefused) return;
    row.take(quote, Date.now(), isLive);
    this.#touch(symbol);
  }

  row(symbol) {
    return this.#rows.get(symbol);
  }

  /** Say in a row why it has no quote. */
  refuse(symbol, text) {
    this.#refused.set(symbol, text);
    this.#rows.get(symbol)?.refuse(text);
  }

  /** Show that no price is current, or that they are again. */
  still(isStill) {
    find("quotes").classList.toggle("still", isStill);
  }

  /** Focus the row of a symbol. */
  focus(symbol) {
    const row = this.#rows.get(symbol);
    row?.element.scrollIntoView({ block: "nearest" });
    row?.pick.focus({ preventScroll: true });
  }

  // Rows

  /** Make the rows of the list, drop the others, and put them into their order. */
  #arrange() {
    const { symbols } = this.#selection;
    const wanted = new Set(symbols);
    for (const [symbol, row] of this.#rows) if (!wanted.has(symbol)) this.#drop(symbol, row);
    let made = 0;
    for (const symbol of symbols) {
      if (this.#rows.has(symbol)) continue;
      if (++made > AT_ONCE) break;
      this.#make(symbol);
    }
    const rows = symbols.map((symbol) => this.#rows.get(symbol)).filter(Boolean);
    let place = this.#body.firstChild;
    for (const { element } of this.order.of(rows, Date.now())) {
      if (element === place) place = place.nextSibling;
      else this.#body.insertBefore(element, place);
    }
    find("quotes").setAttribute("aria-rowcount", symbols.length + 1);
    this.#choose();
    if (made > AT_ONCE) this.#arrangeSoon();
  }

  #make(symbol) {
    const row = new Row(symbol);
    this.#rows.set(symbol, row);
    this.#byElement.set(row.element, row);
    this.#watcher.observe(row.element);
    const quote = this.quotes?.get(symbol);
    if (quote) row.take(quote, Date.now(), false);
    if (this.#refused.has(symbol)) row.refuse(this.#refused.get(symbol));
  }

  #drop(symbol, row) {
    this.#watcher.unobserve(row.element);
    const hadFocus = row.element.contains(document.activeElement);
    const next = row.element.nextSibling ?? row.element.previousSibling;
    row.element.remove();
    this.#rows.delete(symbol);
    this.#refused.delete(symbol);
    this.#dirty.delete(symbol);
    if (hadFocus) this.#byElement.get(next)?.pick.focus();
  }

  /** Mark the chosen row. The keyboard enters the table there. */
  #choose() {
    const { chart, symbols } = this.#selection;
    for (const [symbol, row] of this.#rows) {
      const isChosen = symbol === chart;
      row.element.classList.toggle("chosen-row", isChosen);
      row.pick.setAttribute("aria-pressed", isChosen);
    }
    const entry = this.#rows.get(chart) ?? this.#rows.get(symbols[0]);
    if (entry) this.#enterAt(entry);
  }

  #enterAt(row) {
    if (this.#entry) this.#entry.pick.tabIndex = -1;
    this.#entry = row;
    row.pick.tabIndex = 0;
  }
  #entry = null;

  // Painting

  #touch(symbol) {
    this.#dirty.add(symbol);
    if (this.#rows.get(symbol)?.isSeen) this.paintSoon();
  }

  #paint() {
    const now = Date.now();
    let painted = 0;
    for (const symbol of this.#dirty) {
      const row = this.#rows.get(symbol);
      if (!row?.isSeen || row.isRefused) {
        if (!row) this.#dirty.delete(symbol);
        continue;
      }
      if (++painted > AT_ONCE) {
        this.paintSoon();
        return;
      }
      this.#dirty.delete(symbol);
      row.paint(this.#instruments.decimals(symbol, row.quote), now, true);
    }
  }

  #saw(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = this.#byElement.get(target);
      if (!row) continue;
      row.isSeen = isIntersecting;
      if (!isIntersecting) continue;
      this.#dirty.add(row.symbol);
      if (!row.wasSeen) {
        row.wasSeen = true;
        this.dispatchEvent(new CustomEvent("seen", { detail: row.symbol }));
      }
    }
    this.paintSoon();
  }

  #tick() {
    const now = Date.now();
    for (const row of this.#rows.values()) if (row.isSeen) row.age(now);
  }

  // The visitor

  #bind() {
    const body = this.#body;
    body.addEventListener("pointerenter", () => (this.#hovered = true));
    body.addEventListener("pointerleave", () => (this.#hovered = false));
    body.addEventListener("click", ({ target }) => {
      const row = this.#byElement.get(target.closest(".row"));
      if (!row) return;
      if (target.closest(".remove")) this.#selection.remove(row.symbol);
      else if (target.closest(".pick") && !row.isRefused) this.#selection.look({ chart: row.symbol });
    });
    body.addEventListener("focusin", ({ target }) => {
      const row = this.#byElement.get(target.closest(".row"));
      if (row) this.#enterAt(row);
    });
    body.addEventListener("keydown", (event) => this.#pressed(event));
    bindDrag(body, () => this.#moved());
  }

  #pressed(event) {
    const row = this.#byElement.get(event.target.closest(".row"));
    if (!row || event.ctrlKey || event.metaKey) return;
    const { element } = row;
    const ways = {
      ArrowUp: element.previousSibling,
      ArrowDown: element.nextSibling,
      Home: this.#body.firstChild,
      End: this.#body.lastChild,
    };
    if (event.key === "Delete" || event.key === "Backspace") this.#selection.remove(row.symbol);
    else if (event.altKey && event.key === "ArrowUp") this.#shift(row, -1);
    else if (event.altKey && event.key === "ArrowDown") this.#shift(row, 1);
    else if (event.key in ways) this.#byElement.get(ways[event.key])?.pick.focus();
    else return;
    event.preventDefault();
  }

  /** Move a row by one place. */
  #shift(row, by) {
    const { element } = row;
    const other = by < 0 ? element.previousSibling : element.nextSibling;
    if (!other) return;
    this.#body.insertBefore(element, by < 0 ? other : other.nextSibling);
    this.#moved();
    row.pick.focus();
    const place = [...this.#body.children].indexOf(element) + 1;
    this.dispatchEvent(new CustomEvent("told", { detail: `${row.symbol} is now row ${place}.` }));
  }

  /** Make the rows' order the list's. */
  #moved() {
    this.order.clear();
    const shown = [...this.#body.children].map(({ dataset }) => dataset.symbol);
    const rest = this.#selection.symbols.filter((symbol) => !this.#rows.has(symbol));
    this.#selection.arrange([...shown, ...rest]);
  }
}
