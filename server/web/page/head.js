/** The head of the chart: the chosen symbol, its price and its facts. */

import { find, make, oncePerFrame, write } from "./dom.js";
import { NOTHING, move, number, tone, volume } from "./format.js";

/** Milliseconds between two titles of the tab. Each goes to another process of the browser. */
const TITLED = 250;

const FACTS = [
  ["Bid", "bid"], ["Ask", "ask"], ["Open", "open"], ["High", "high"], ["Low", "low"],
  ["Previous", "previous_close"], ["Volume", "volume"],
];

export class Head {
  #selection;
  #instruments;
  #stream;
  #facts = new Map();
  #title = "";
  #timer = 0;

  constructor(selection, instruments, stream) {
    this.#selection = selection;
    this.#instruments = instruments;
    this.#stream = stream;
    for (const [title, name] of FACTS) {
      const value = make("dd", { textContent: NOTHING });
      this.#facts.set(name, value);
      find("facts").append(make("div", {}, make("dt", { textContent: title }), value));
    }
    const paintSoon = oncePerFrame(() => this.#paint());
    selection.addEventListener("chart", paintSoon);
    instruments.addEventListener("known", ({ detail }) => detail === selection.chart && paintSoon());
    stream.addEventListener("change", ({ detail }) => detail.symbol === selection.chart && paintSoon());
    paintSoon();
  }

  #paint() {
    const symbol = this.#selection.chart;
    const quote = this.#stream.quotes.get(symbol);
    const known = this.#instruments.get(symbol);
    const decimals = this.#instruments.decimals(symbol, quote);
    const price = number(quote?.current_price, decimals);
    const about = [quote?.name ?? known?.name, known?.exchange, quote?.currency].filter(Boolean);
    find("facts").hidden = symbol === null;
    write(find("chosen-symbol"), symbol ?? "No symbol chosen");
    write(find("chosen-title"), symbol ? about.join(" · ") : "Add one to see its chart.");
    write(find("chosen-price"), symbol ? price : "");
    write(find("chosen-move"), quote ? moved(quote, decimals) : "");
    const kind = `move ${tone(quote?.change)}`;
    if (find("chosen-move").className !== kind) find("chosen-move").className = kind;
    for (const [name, element] of this.#facts) {
      write(element, name === "volume" ? volume(quote?.volume) : number(quote?.[name], decimals));
    }
    this.#title = quote ? `${symbol} ${price}` : "";
    if (!this.#timer) this.#name();
  }

  /** Write the title of the tab and the name of the chart, and again later if they changed meanwhile. */
  #name() {
    const title = this.#title;
    document.title = title ? `${title} · quotestream` : "quotestream";
    find("chart").setAttribute("aria-label", title ? `Chart of ${title.replace(" ", ", now ")}` : "Chart");
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#title !== title) this.#name();
    }, TITLED);
  }
}

/** Return the day's change: ▲ 1.20 (0.69%). */
function moved({ change, change_percent: percent }, decimals) {
  const part = percent == null ? "" : ` (${number(Math.abs(percent), 2)}%)`;
  return move(change, decimals) + part;
}
