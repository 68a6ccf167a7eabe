/** Draws the chart. Only this module knows lightweight-charts. */

import { make } from "./dom.js";
import { number } from "./format.js";
import { colour } from "./theme.js";

const AUTHORS = "https://www.tradingview.com/";

/** Distance of the drawing from the upper and lower edge, as parts of the height. */
const MARGINS = { top: 0.08, bottom: 0.24 };
const VOLUME_MARGINS = { top: 0.82, bottom: 0 };

/** Bars that a chart shows at first. */
const SHOWN = 120;

/** Bars of a chart that stays open, and updates after which the chart forgets the older ones. */
const KEPT = 2000;

/** Bars for which a chart without history has room at first. They come in from the left. */
const ROOM = 40;

/** Pixels to the left of the first bar, so that the time below it is not cut off. */
const HALF_LABEL = 32;

const timeOfDay = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exactTime = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });

/**
 * Milliseconds from the beginning of a day of the session to a moment that has the same date in UTC. A day
 * begins between 13 hours before midnight UTC (New Zealand) and 10 hours after it (Hawaii).
 */
const SAME_DATE = 13 * 3_600_000;
const utcDay = new Intl.DateTimeFormat([], { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

/** Return the notice and the link that the licence of lightweight-charts asks for. */
export function attribution() {
  const notice = "Charts: TradingView Lightweight Charts™ Copyright (c) 2026 TradingView, Inc. ";
  return [notice, make("a", { href: AUTHORS, rel: "noreferrer", textContent: AUTHORS })];
}

/** Return a colour such as `rgb(1, 2, 3)` that lets through what is behind it. */
function faint(name, part) {
  return name.replace(/^rgb\((.*)\)$/, `rgba($1, ${part})`);
}

/** Return the date of a bar of a day. */
function dateOf(time) {
  return utcDay.format(new Date(time * 1000 + SAME_DATE));
}

/** A chart in `element`. `hovered` hears of the bar below the pointer, or null. */
export class Chart {
  #library;
  #chart;
  #series = null;
  #volume = null;
  #style = "line";
  #decimals = 2;
  #timeframe = "1m";
  #hovered;
  #times = new Set();
  #wasMoved = false;
  #updates = 0;

  static async in(element, hovered) {
    return new Chart(await import("../vendor/lightweight-charts.js"), element, hovered);
  }

  constructor(library, element, hovered) {
    this.#library = library;
    this.#hovered = hovered;
    this.#chart = library.createChart(element, {
      autoSize: true,
      // The attribution stands in the footer. The logo's own style element would break the page's policy.
      layout: { attributionLogo: false, fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12 },
      timeScale: {
        borderVisible: false,
        timeVisible: true,
        allowBoldLabels: false,
        rightOffset: 4,
        tickMarkFormatter: (time, kind) => this.#tick(time, kind),
      },
      rightPriceScale: { borderVisible: false, scaleMargins: MARGINS, entireTextOnly: true },
      localization: { timeFormatter: (time) => this.#time(time) },
      crosshair: { mode: library.CrosshairMode.Normal },
      handleScroll: { vertTouchDrag: false, mouseWheel: false, pressedMouseMove: true, horzTouchDrag: true },
      handleScale: { mouseWheel: true, pinch: true },
    });
    this.#chart.subscribeCrosshairMove(({ time, seriesData }) => {
      this.#hovered(time === undefined ? null : seriesData.get(this.#series) ?? null);
    });
    // A phone may be turned.
    this.#chart.timeScale().subscribeSizeChange(() => this.#fit());
    for (const name of ["pointerdown", "wheel"]) {
      element.addEventListener(name, () => (this.#wasMoved = true), { passive: true });
    }
    this.recolour();
  }

  /** Take the colours of the present theme. */
  recolour() {
    const [text, line] = [colour("--muted"), colour("--line")];
    const cross = { color: text, labelBackgroundColor: colour("--edge") };
    this.#chart.applyOptions({
      layout: { background: { color: "transparent" }, textColor: text },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: { vertLine: cross, horzLine: cross },
    });
    this.#series?.applyOptions(this.#colours());
    this.#volume?.applyOptions({ color: faint(colour("--edge"), 0.4) });
  }

  /**
   * Show other bars: `{time, open, high, low, close, value, volume}`, the oldest first. `keepsView`: the
   * visitor looks at the same times, if the chart was moved.
   */
  show(bars, { style, timeframe, decimals, keepsView }) {
    const view = keepsView && this.#wasMoved && bars.length ? this.#view() : null;
    this.#timeframe = timeframe;
    this.#decimals = decimals;
    if (style !== this.#style || !this.#series) this.#make(style);
    this.#chart.applyOptions({ timeScale: { secondsVisible: timeframe === "live" } });
    const { LineType } = this.#library;
    // A price stands until the next trade. A line between closing prices would show steps that never were.
    const lineType = timeframe === "live" ? LineType.WithSteps : LineType.Simple;
    this.#series.applyOptions({ priceFormat: this.#format(), lineType });
    this.#series.setData(bars);
    this.#volume.setData(bars.filter((bar) => bar.volume !== undefined).map(({ time, volume }) => ({ time, value: volume })));
    this.#times = new Set(bars.slice(-SHOWN).map(({ time }) => time));
    this.#updates = 0;
    if (view) {
      view(bars.length);
      return;
    }
    this.#wasMoved = false;
    const scale = this.#chart.timeScale();
    const end = bars.length + 4;
    if (bars.length > SHOWN) scale.setVisibleLogicalRange({ from: bars.length - SHOWN, to: end });
    else this.#fit();
  }

  /** Return a function that restores the view with other bars: the same times, or the same distance to the end. */
  #view() {
    const scale = this.#chart.timeScale();
    const count = this.#series.data().length;
    const [times, { from, to }] = [scale.getVisibleRange(), scale.getVisibleLogicalRange() ?? {}];
    if (times === null) return null;
    if (to < count - 1) return () => scale.setVisibleRange(times);
    return (now) => scale.setVisibleLogicalRange({ from: from + now - count, to: to + now - count });
  }

  /** Show all bars of a chart that has few, until the visitor moves it. */
  #fit() {
    const count = this.#times.size;
    if (this.#wasMoved || count === 0 || count >= SHOWN) return;
    const scale = this.#chart.timeScale();
    const to = Math.max(count + 2, ROOM);
    scale.setVisibleLogicalRange({ from: (-HALF_LABEL * to) / Math.max(HALF_LABEL, scale.width()), to });
  }

  /** Add a bar, or change the newest. */
  update(bar) {
    if (!this.#series) return;
    if (this.#updates++ > KEPT) this.#forget();
    this.#series.update(bar);
    if (bar.volume !== undefined) this.#volume?.update({ time: bar.time, value: bar.volume });
    if (this.#times.size >= SHOWN || this.#times.has(bar.time)) return;
    this.#times.add(bar.time);
    this.#fit();
  }

  /** Forget the oldest bars, so that a page that stays open does not grow. */
  #forget() {
    this.#updates = 0;
    for (const series of [this.#series, this.#volume]) series.setData(series.data().slice(-KEPT));
  }

  /** Set the decimals of the price scale. */
  refine(decimals) {
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    this.#series?.applyOptions({ priceFormat: this.#format() });
  }

  #make(style) {
    const { CandlestickSeries, AreaSeries, HistogramSeries } = this.#library;
    if (this.#series) this.#chart.removeSeries(this.#series);
    if (!this.#volume) {
      this.#volume = this.#chart.addSeries(HistogramSeries, {
        priceScaleId: "",
        color: faint(colour("--edge"), 0.4),
        priceFormat: { type: "volume" },
        lastValueVisible: false,
        priceLineVisible: false,
      });
      this.#volume.priceScale().applyOptions({ scaleMargins: VOLUME_MARGINS });
    }
    this.#style = style;
    this.#series = this.#chart.addSeries(style === "candles" ? CandlestickSeries : AreaSeries, this.#colours());
  }

  #format() {
    const formatter = (price) => number(price, this.#decimals);
    return { type: "custom", formatter, minMove: 10 ** -this.#decimals };
  }

  #colours() {
    const [up, down, accent] = [colour("--up"), colour("--down"), colour("--accent")];
    if (this.#style === "candles") {
      return { upColor: up, downColor: down, wickUpColor: up, wickDownColor: down, borderVisible: false };
    }
    return { lineColor: accent, lineWidth: 2, topColor: faint(accent, 0.2), bottomColor: faint(accent, 0) };
  }

  #time(time) {
    if (this.#timeframe === "1d") return dateOf(time);
    const date = new Date(time * 1000);
    return `${day.format(date)}, ${(this.#timeframe === "live" ? exactTime : timeOfDay).format(date)}`;
  }

  #tick(time, kind) {
    if (this.#timeframe === "1d") return dateOf(time).replace(/,? \d{4}$/, "");
    const date = new Date(time * 1000);
    const { TickMarkType } = this.#library;
    if (kind === TickMarkType.TimeWithSeconds) return exactTime.format(date);
    if (kind === TickMarkType.Time) return timeOfDay.format(date);
    return day.format(date);
  }
}
