/** The head of the chart: the chosen symbol, its price and its facts. */

import { find, make, oncePerFrame, write } from "./dom.js";
import { NOTHING, move, number, tone, volume } from "./format.js";

const FACTS = [
  ["Bid", "bid"], ["Ask", "ask"], ["Open", "open"], ["High", "high"], ["Low", "low"],
  ["Previous", "previous_close"], ["Volume", "volume"],
];

export class Head {
  #selection;
  #instruments;
  #stream;
  #facts = new Map();

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
    find("chosen-move").className = `move ${tone(quote?.change)}`;
    for (const [name, element] of this.#facts) {
      write(element, name === "volume" ? volume(quote?.volume) : number(quote?.[name], decimals));
    }
    find("chart").setAttribute("aria-label", quote ? `Chart of ${symbol}, now ${price}` : "Chart");
    document.title = quote ? `${symbol} ${price} · quotestream` : "quotestream";
  }
}

/** Return the day's change: ▲ 1.20 (0.69%). */
function moved({ change, change_percent: percent }, decimals) {
  const part = percent == null ? "" : ` (${number(Math.abs(percent), 2)}%)`;
  return move(change, decimals) + part;
}
