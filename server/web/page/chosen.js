/** The chosen symbol: its price, its facts, and its chart from the past into the present. */

import { STYLES, TIMEFRAMES } from "./address.js";
import { Chart } from "./chart.js";
import { find, make, oncePerFrame, write } from "./dom.js";
import { NOTHING, move, number, tone, volume } from "./format.js";
import { chartBar, chartPoint } from "./history.js";

const FACTS = [
  ["Bid", "bid"], ["Ask", "ask"], ["Open", "open"], ["High", "high"], ["Low", "low"],
  ["Previous", "previous_close"], ["Volume", "volume"],
];
const NAMES = { live: "Live", line: "Line", candles: "Candles" };

/** Milliseconds until a history that the server did not give is asked for again. */
const AGAIN = 5000;

/** The age in milliseconds from which on a price is of another day, or of a recording. */
const TODAY = 86_400_000;

export class Chosen {
  #selection;
  #instruments;
  #past;
  #stream = null;
  #chart = null;
  #facts = new Map();
  #shown = {};
  #loading = null;
  #retry = 0;
  #early = [];
  #waits = false;
  #last = 0;
  #areRefused = false;
  #connects = 0;
  #pointed = null;

  /** Milliseconds from the last price's time to its arrival. Null before the first. */
  #skew = null;

  constructor(selection, instruments, past) {
    this.#selection = selection;
    this.#instruments = instruments;
    this.#past = past;
    for (const [title, name] of FACTS) {
      const value = make("dd", { textContent: NOTHING });
      this.#facts.set(name, value);
      find("facts").append(make("div", {}, make("dt", { textContent: title }), value));
    }
    this.#buttons("timeframes", TIMEFRAMES, "timeframe");
    this.#buttons("styles", STYLES, "style");
    this.paintSoon = oncePerFrame(() => this.#paint());
    selection.addEventListener("chart", () => this.#changed());
    instruments.addEventListener("known", ({ detail }) => detail === selection.chart && this.#refine());
  }

  /** Follow a connection. It may be called before the chart's library is there. */
  async follow(stream) {
    this.#stream = stream;
    stream.addEventListener("change", ({ detail }) => this.#priced(detail));
    stream.addEventListener("state", () => this.#resumed());
    stream.addEventListener("bar", ({ detail }) => this.#barred(detail));
    setInterval(() => this.#stand(), 1000);
    stream.addEventListener("bars_missed", ({ detail }) => detail.symbol === this.#shown.chart && this.#load());
    this.#paint();
    this.#chart = await Chart.in(find("chart"), (bar) => this.#point(bar));
    this.#changed();
  }

  recolour() {
    this.#chart?.recolour();
  }

  get #quote() {
    return this.#stream?.quotes.get(this.#selection.chart);
  }

  get #decimals() {
    return this.#instruments.decimals(this.#selection.chart, this.#quote);
  }

  /** Fill what the chart `live` missed while there was no connection. Bars tell it by themselves. */
  #resumed() {
    const { connects } = this.#stream.stats;
    if (this.#stream.state !== "live" || connects === this.#connects) return;
    if (this.#areRefused) this.#askForBars(this.#shown);
    if (this.#connects && this.#shown.timeframe === "live") this.#load();
    this.#connects = connects;
  }

  // The head

  #paint() {
    const symbol = this.#selection.chart;
    const quote = this.#quote;
    const decimals = symbol ? this.#decimals : 2;
    const known = this.#instruments.get(symbol);
    const told = [quote?.name ?? known?.name, known?.exchange, quote?.currency].filter(Boolean);
    write(find("chosen-symbol"), symbol ?? "No symbol chosen");
    write(find("chosen-title"), symbol ? told.join(" · ") : "Add one to see its chart.");
    write(find("chosen-price"), symbol ? number(quote?.current_price, decimals) : "");
    const moved = quote ? `${move(quote.change, decimals)} ${quote.change_percent == null ? "" : `(${number(Math.abs(quote.change_percent), 2)}%)`}` : "";
    write(find("chosen-move"), moved);
    find("chosen-move").className = `move ${tone(quote?.change)}`;
    for (const [name, element] of this.#facts) {
      write(element, name === "volume" ? volume(quote?.volume) : number(quote?.[name], decimals));
    }
    find("chart").setAttribute("aria-label", this.#spoken(quote, decimals));
    document.title = quote ? `${symbol} ${number(quote.current_price, decimals)} · quotestream` : "quotestream";
  }

  #spoken(quote, decimals) {
    if (!quote) return "Chart";
    return `Chart of ${quote.symbol}, now ${number(quote.current_price, decimals)}`;
  }

  #buttons(id, values, name) {
    for (const value of values) {
      const button = make("button", { type: "button", textContent: NAMES[value] ?? value });
      button.dataset.value = value;
      button.addEventListener("click", () => this.#selection.look({ [name]: value }));
      find(id).append(button);
    }
    this.#press();
  }

  #press() {
    const { timeframe, style } = this.#selection;
    for (const button of find("timeframes").children) button.setAttribute("aria-pressed", button.dataset.value === timeframe);
    for (const button of find("styles").children) {
      button.setAttribute("aria-pressed", button.dataset.value === (timeframe === "live" ? "line" : style));
      button.disabled = timeframe === "live" && button.dataset.value === "candles";
    }
  }

  #point(bar) {
    this.#pointed = bar;
    const { timeframe, style } = this.#selection;
    if (!bar) write(find("legend"), "");
    else if (style === "candles" && timeframe !== "live") {
      const [o, h, l, c] = [bar.open, bar.high, bar.low, bar.close].map((each) => number(each, this.#decimals));
      write(find("legend"), `Open ${o}  High ${h}  Low ${l}  Close ${c}`);
    } else write(find("legend"), number(bar.value, this.#decimals));
  }

  #refine() {
    this.#chart?.refine(this.#decimals);
    this.paintSoon();
  }

  // The chart

  #changed() {
    this.#press();
    this.paintSoon();
    if (!this.#chart) return;
    const { chart, timeframe, style } = this.#selection;
    const old = this.#shown;
    this.#shown = { chart, timeframe, style };
    if (chart !== old.chart || timeframe !== old.timeframe) {
      if (old.chart && old.timeframe !== "live") this.#stream.unbars([old.chart], old.timeframe).catch(() => {});
      this.#askForBars(this.#shown);
    }
    this.#load();
  }

  /** Ask for the bars to come. A connection that the server refuses takes the question with it. */
  #askForBars({ chart, timeframe }) {
    this.#areRefused = false;
    if (!chart || timeframe === "live") return;
    this.#stream.bars([chart], timeframe).catch(() => (this.#areRefused = true));
  }

  /** Ask for the past, and draw it with what came meanwhile. */
  async #load() {
    clearTimeout(this.#retry);
    const mine = (this.#loading = {});
    const { chart, timeframe, style } = this.#shown;
    this.#early = [];
    if (!chart || !this.#quote) {
      // The first quote loads the past. A symbol without a quote is unknown, or has never traded.
      this.#chart.show([], { style: "line", timeframe, decimals: 2 });
      this.#note(chart ? "The chart comes with the first price." : "Choose a symbol to see its chart.");
      this.#waits = chart !== null;
      this.#loading = null;
      return;
    }
    this.#waits = false;
    this.#instruments.want(chart);
    let bars;
    try {
      const isLive = timeframe === "live";
      bars = await (isLive ? this.#past.trades(chart) : this.#past.bars(chart, timeframe));
      if (mine !== this.#loading) return;
      this.#note(bars.length > 1 || isLive ? "" : "History begins now: this server has no earlier bars.");
    } catch (error) {
      if (mine !== this.#loading) return;
      bars = [];
      this.#note(`No history: ${error.message}`);
      if (error.status !== 404 && error.status !== 403) this.#retry = setTimeout(() => this.#load(), error.retryAfter || AGAIN);
    }
    this.#loading = null;
    const late = this.#early.filter(({ time }) => time >= (bars.at(-1)?.time ?? 0));
    this.#last = 0;
    this.#chart.show(bars, { style: timeframe === "live" ? "line" : style, timeframe, decimals: this.#decimals });
    this.#last = bars.at(-1)?.time ?? 0;
    for (const bar of late) this.#add(bar);
    this.#skew = null;
    this.#stand();
  }

  #note(text) {
    write(find("chart-note"), text);
    find("chart-note").hidden = text === "";
  }

  #priced({ symbol, quote }) {
    if (symbol !== this.#selection.chart) return;
    this.paintSoon();
    if (this.#waits) this.#load();
    if (this.#shown.timeframe === "live" && this.#shown.chart === symbol) this.#now(quote);
  }

  /** Add the present price to the chart `live`. */
  #now(quote) {
    const time = Date.parse(quote.last_updated) || Date.now();
    this.#skew = Date.now() - time;
    this.#draw(time, quote.current_price);
  }

  /** Draw a price that stands as time passes. A replay's times are those of its recording. */
  #stand() {
    const quote = this.#quote;
    const isLive = this.#shown.timeframe === "live" && this.#stream.state === "live";
    if (!isLive || !quote || this.#loading || document.hidden) return;
    const isOfToday = Date.now() - (Date.parse(quote.last_updated) || Date.now()) < TODAY;
    if (this.#skew !== null || isOfToday) this.#draw(Date.now() - (this.#skew ?? 0), quote.current_price);
  }

  #draw(time, price) {
    if (typeof price === "number") this.#add(chartPoint(Math.max(Math.floor(time / 1000), this.#last), price));
  }

  #barred({ symbol, timeframe, bar }) {
    if (symbol === this.#shown.chart && timeframe === this.#shown.timeframe) this.#add(chartBar(bar));
  }

  /** Add a bar. The chart takes bars in their order only; a revised older one needs the history anew. */
  #add(bar) {
    if (this.#loading) {
      this.#early.push(bar);
      return;
    }
    if (!this.#chart) return;
    if (bar.time < this.#last) {
      this.#load();
      return;
    }
    this.#last = bar.time;
    this.#chart.update(bar);
    if (this.#early.length === 0 && this.#pointed === null && find("chart-note").textContent.startsWith("History")) this.#note("");
  }
}
