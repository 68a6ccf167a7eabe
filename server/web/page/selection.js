/** The visitor's selection: the list in its order, the chosen symbol, the kind of chart. */

import { normalized } from "./address.js";

/** Tells "list" after a change of the list, and "chart" after one of the chart. */
export class Selection extends EventTarget {
  constructor({ symbols, chart, timeframe, style }) {
    super();
    this.symbols = symbols ?? [];
    this.chart = chart;
    this.timeframe = timeframe;
    this.style = style;
  }

  has(symbol) {
    return this.symbols.includes(symbol);
  }

  /** Append symbols. Return those that are new. */
  add(symbols) {
    const news = normalized(symbols).filter((symbol) => !this.has(symbol));
    if (news.length === 0) return news;
    this.symbols = [...this.symbols, ...news];
    this.#tell("list");
    if (!this.chart) this.look({ chart: news[0] });
    return news;
  }

  remove(symbol) {
    const at = this.symbols.indexOf(symbol);
    if (at < 0) return;
    this.symbols = this.symbols.filter((each) => each !== symbol);
    this.#tell("list");
    if (this.chart === symbol) this.look({ chart: this.symbols[Math.min(at, this.symbols.length - 1)] ?? null });
  }

  /** Give a symbol that was renamed its new name. */
  rename(symbol, next) {
    this.symbols = normalized(this.symbols.map((each) => (each === symbol ? next : each)));
    this.#tell("list");
    if (this.chart === symbol) this.look({ chart: next });
  }

  /** Set the order, which has the same symbols. */
  arrange(symbols) {
    this.symbols = symbols;
    this.#tell("list");
  }

  /** Change the chart: `chart`, `timeframe` or `style`. */
  look(change) {
    Object.assign(this, change);
    this.#tell("chart");
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}
