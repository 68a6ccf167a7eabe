/** The columns of the table, and the order of its rows. */

import { make } from "./dom.js";

/** Columns by their class: the heading, and the value of an entry by which it sorts. */
const COLUMNS = [
  ["tight", "", null],
  ["name", "Symbol", (entry) => entry.symbol],
  ["price", "Price", (entry) => entry.quote?.current_price],
  ["change", "Change", (entry) => entry.quote?.change],
  ["percent", "% change", (entry) => entry.quote?.change_percent],
  ["book", "Bid × ask", (entry) => entry.quote?.bid],
  ["volume", "Volume", (entry) => entry.quote?.volume],
  ["day", "Day range", (entry) => placeInDay(entry.quote)],
  ["trend", "Trend", null],
  ["age", "Age", (entry, now) => entry.age(now)],
  ["tight last", "", null],
];

const UNNAMED = { "tight": "Move", "tight last": "Remove" };

function placeInDay(quote) {
  if (!quote || !(quote.high > quote.low)) return undefined;
  return (quote.current_price - quote.low) / (quote.high - quote.low);
}

/** The heads of the columns. A press sorts: the largest first, the smallest first, the list's own order. */
export class Order {
  #by = null;
  #isDown = true;
  #heads = new Map();

  constructor(root, changed) {
    for (const [kind, title, value] of COLUMNS) {
      const head = make("div", { role: "columnheader", className: `cell ${kind}` });
      if (value) head.append(this.#button(kind, title, changed));
      else head.append(make("span", { className: title ? "sort" : "unseen", textContent: title || UNNAMED[kind] }));
      this.#heads.set(kind, head);
      root.append(head);
    }
    this.#tell();
  }

  /** Whether rows have another order than the list. */
  get isSorted() {
    return this.#by !== null;
  }

  /** Go back to the list's own order. */
  clear() {
    this.#by = null;
    this.#tell();
  }

  /** Return entries in the chosen order; those without a value come last. */
  of(entries, now) {
    const value = COLUMNS.find(([kind]) => kind === this.#by)?.[2];
    if (!value) return entries;
    const way = this.#isDown ? -1 : 1;
    const keyed = entries.map((entry) => [value(entry, now), entry]);
    keyed.sort(([a], [b]) => {
      if (a == null || b == null) return (a == null) - (b == null);
      return a < b ? -way : a > b ? way : 0;
    });
    return keyed.map(([, entry]) => entry);
  }

  #button(kind, title, changed) {
    const button = make("button", { type: "button", className: "sort", textContent: title });
    button.addEventListener("click", () => {
      // Text reads from A, and numbers from the largest.
      const first = kind !== "name" && kind !== "age";
      if (this.#by !== kind) [this.#by, this.#isDown] = [kind, first];
      else if (this.#isDown === first) this.#isDown = !first;
      else this.#by = null;
      this.#tell();
      changed();
    });
    return button;
  }

  #tell() {
    for (const [kind, head] of this.#heads) {
      if (kind !== this.#by) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.#isDown ? "descending" : "ascending");
    }
  }
}
