/** The chart of the chosen symbol, from the past into the present. */

import { STYLES, TIMEFRAMES } from "./address.js";
import { reason } from "./api.js";
import { Chart } from "./chart.js";
import { find, make, write } from "./dom.js";
import { number } from "./format.js";
import { chartBar, chartPoint } from "./history.js";

const NAMES = { live: "Live", line: "Line", candles: "Candles" };

/** Milliseconds until a history that the server did not give, or does not stream, is asked for again. */
const AGAIN = 5000;

/** Milliseconds for which another chart stays while the history of a new one is on its way. */
const SLOW = 300;

/** The age in milliseconds from which on a price is of another day, or of a recording. */
const TODAY = 86_400_000;

const BEGINS = "History begins now: this server has no earlier bars.";

export class Chosen {
  #selection;
  #instruments;
  #past;
  #stream;
  #table;
  #chart = null;

  // The drawing that the visitor wants, and the one that stands: objects of `chart`, `timeframe` and `style`.
  #wanted = {};
  #drawn = null;

  // The request for the past that runs, and the bars that came meanwhile.
  #loading = null;
  #early = [];
  #retry = 0;

  // Whether the first quote must load the past; and the time of the newest bar.
  #waits = false;
  #last = 0;

  #areBarsRefused = false;
  #connects = 0;

  /** Milliseconds from the last price's time to its arrival. Null before the first. */
  #skew = null;

  constructor(selection, instruments, past, stream, table) {
    this.#selection = selection;
    this.#instruments = instruments;
    this.#past = past;
    this.#stream = stream;
    this.#table = table;
    table.addEventListener("refused", ({ detail }) => {
      if (detail === selection.chart && !this.#quote) this.#load();
    });
    this.#buttons("timeframes", TIMEFRAMES, "timeframe");
    this.#buttons("styles", STYLES, "style");
    this.#press();
    selection.addEventListener("chart", () => this.#changed());
    instruments.addEventListener("known", ({ detail }) => {
      if (detail === selection.chart) this.#chart?.refine(this.#decimals);
    });
    stream.addEventListener("change", ({ detail }) => this.#priced(detail));
    stream.addEventListener("state", () => this.#resumed());
    stream.addEventListener("bar", ({ detail }) => this.#barred(detail));
    stream.addEventListener("bars_missed", ({ detail }) => detail.symbol === this.#wanted.chart && this.#load());
    setInterval(() => this.#stand(), 1000);
    setInterval(() => this.#areBarsRefused && this.#catchUp(), AGAIN);
  }

  /** Load the chart's library, and draw. */
  async open() {
    try {
      this.#chart = await Chart.in(find("chart"), (bar) => this.#point(bar));
    } catch {
      this.#note("The chart cannot be drawn: its library was not loaded. Reload the page.");
      return;
    }
    this.#changed();
  }

  recolour() {
    this.#chart?.recolour();
  }

  get #quote() {
    return this.#stream.quotes.get(this.#selection.chart);
  }

  get #decimals() {
    return this.#instruments.decimals(this.#selection.chart, this.#quote);
  }

  /** Whether the drawing has the bars that the visitor wants, perhaps in another style. */
  get #isDrawn() {
    const [drawn, wanted] = [this.#drawn, this.#wanted];
    return drawn?.chart === wanted.chart && drawn.timeframe === wanted.timeframe;
  }

  // The choice

  #buttons(id, values, name) {
    for (const value of values) {
      const button = make("button", { type: "button", textContent: NAMES[value] ?? value });
      button.dataset.value = value;
      button.addEventListener("click", () => this.#selection.look({ [name]: value }));
      find(id).append(button);
    }
  }

  #press() {
    const { timeframe, style } = this.#selection;
    const isLive = timeframe === "live";
    for (const button of find("timeframes").children) {
      button.setAttribute("aria-pressed", button.dataset.value === timeframe);
    }
    for (const button of find("styles").children) {
      const { value } = button.dataset;
      button.setAttribute("aria-pressed", value === (isLive ? "line" : style));
      button.disabled = isLive && value === "candles";
    }
  }

  #changed() {
    this.#press();
    if (!this.#chart) return;
    const { chart, timeframe, style } = this.#selection;
    const old = this.#wanted;
    this.#wanted = { chart, timeframe, style };
    if (chart !== old.chart || timeframe !== old.timeframe) {
      if (old.chart && old.timeframe !== "live") this.#stream.unbars([old.chart], old.timeframe);
      this.#askForBars();
    }
    this.#load();
  }

  /** Show the values of the bar below the pointer, or nothing for null. */
  #point(bar) {
    const { timeframe, style } = this.#selection;
    const text = (value) => number(value, this.#decimals);
    if (!bar) write(find("legend"), "");
    else if (style === "line" || timeframe === "live") write(find("legend"), text(bar.value));
    else write(find("legend"), `Open ${text(bar.open)}  High ${text(bar.high)}  Low ${text(bar.low)}  Close ${text(bar.close)}`);
  }

  // The past

  /** Ask for the bars to come. A connection that the server refuses takes the question with it. */
  #askForBars() {
    const { chart, timeframe } = this.#wanted;
    this.#areBarsRefused = false;
    if (!chart || timeframe === "live") return;
    this.#stream.bars([chart], timeframe).catch(() => (this.#areBarsRefused = true));
  }

  /** Add the newest bars of a chart whose bars the server does not stream, as the list has no room. */
  async #catchUp() {
    const wanted = this.#wanted;
    if (this.#loading || !this.#quote || this.#stream.state !== "live" || document.hidden) return;
    const { bars = [] } = await this.#fetch();
    if (wanted !== this.#wanted || this.#loading) return;
    for (const bar of bars.filter(({ time }) => time >= this.#last)) this.#add(bar);
  }

  /** Fill what the chart `live` missed while there was no connection. Bars tell it by themselves. */
  #resumed() {
    const { connects } = this.#stream.stats;
    if (this.#stream.state !== "live" || connects === this.#connects) return;
    if (this.#areBarsRefused) this.#askForBars();
    if (this.#connects && this.#wanted.timeframe === "live") this.#load();
    this.#connects = connects;
  }

  /** Ask for the past, and draw it with what came meanwhile. */
  async #load() {
    if (!this.#chart) return;
    clearTimeout(this.#retry);
    const mine = (this.#loading = {});
    const { chart } = this.#wanted;
    this.#early = [];
    this.#waits = chart !== null && !this.#quote;
    if (!this.#quote) {
      // The first quote loads the past. A symbol without a quote is unknown, or has never traded.
      this.#loading = null;
      this.#draw([]);
      this.#note(this.#absence(chart));
      return;
    }
    this.#instruments.want(chart);
    const slow = setTimeout(() => this.#clear(), SLOW);
    const { bars, note, retry } = await this.#fetch();
    clearTimeout(slow);
    if (mine !== this.#loading) return;
    this.#loading = null;
    // A chart that stands is better than none.
    if (bars || !this.#isDrawn) this.#draw(bars ?? []);
    this.#note(note);
    if (retry) this.#retry = setTimeout(() => this.#load(), retry);
    for (const bar of this.#early.filter(({ time }) => time >= this.#last)) this.#add(bar);
    this.#stand();
  }

  /** Return why a chart has no price: nothing is chosen, the server refuses the symbol, or it is early. */
  #absence(chart) {
    if (!chart) return "Choose a symbol to see its chart.";
    return this.#table.entry(chart)?.refusal ?? "The chart comes with the first price.";
  }

  /** Return `{bars, note, retry}`: the past, what to say of it, and when to ask again. */
  async #fetch() {
    const { chart, timeframe } = this.#wanted;
    try {
      if (timeframe === "live") return { bars: await this.#past.trades(chart), note: "" };
      const bars = await this.#past.bars(chart, timeframe, this.#quote);
      return { bars, note: bars.length > 1 ? "" : BEGINS };
    } catch (error) {
      const isFinal = error.status === 404 || error.status === 403;
      return { note: `No history: ${reason(error)}`, retry: isFinal ? 0 : error.retryAfter || AGAIN };
    }
  }

  /** Show no other chart in place of one that takes long. */
  #clear() {
    if (!this.#loading || this.#isDrawn) return;
    this.#draw([]);
    this.#drawn = null;
    this.#note("The history is on its way.");
  }

  #draw(bars) {
    const { timeframe, style } = this.#wanted;
    const kind = timeframe === "live" ? "line" : style;
    const options = { style: kind, timeframe, decimals: this.#decimals, keepsView: this.#isDrawn };
    this.#chart.show(bars, options);
    this.#drawn = this.#wanted;
    this.#last = bars.at(-1)?.time ?? 0;
    this.#skew = null;
  }

  #note(text) {
    write(find("chart-note"), text);
    find("chart-note").hidden = text === "";
  }

  // The present

  #priced({ symbol, quote }) {
    if (symbol !== this.#wanted.chart) return;
    if (this.#waits) this.#load();
    if (this.#wanted.timeframe !== "live") return;
    const time = Date.parse(quote.last_updated) || Date.now();
    this.#skew = Date.now() - time;
    this.#addPrice(time, quote.current_price);
  }

  #barred({ symbol, timeframe, bar }) {
    if (symbol === this.#wanted.chart && timeframe === this.#wanted.timeframe) this.#add(chartBar(bar));
  }

  /** Draw a price that stands as time passes. A replay's times are those of its recording. */
  #stand() {
    const quote = this.#quote;
    const isLive = this.#wanted.timeframe === "live" && this.#stream.state === "live";
    if (!isLive || !quote || this.#loading || document.hidden) return;
    const isOfToday = Date.now() - (Date.parse(quote.last_updated) || Date.now()) < TODAY;
    if (this.#skew !== null || isOfToday) this.#addPrice(Date.now() - (this.#skew ?? 0), quote.current_price);
  }

  #addPrice(time, price) {
    if (typeof price === "number") this.#add(chartPoint(Math.max(Math.floor(time / 1000), this.#last), price));
  }

  /** Add a bar. The chart takes bars in their order only; a revised older one needs the history anew. */
  #add(bar) {
    if (this.#loading) this.#early.push(bar);
    else if (bar.time < this.#last) this.#load();
    else if (this.#chart) {
      this.#last = bar.time;
      this.#chart.update(bar);
      if (find("chart-note").textContent === BEGINS) this.#note("");
    }
  }
}
