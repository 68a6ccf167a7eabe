/** Prices of the past: bars and trades of the HTTP API, as the chart and the sparklines take them. */

const MINUTE = 60_000;
const DAY = 86_400_000;

/** Bars of a chart at most, and how far back each length of a bar looks, in minutes. */
const MOST = 1000;
const BACK = { "1m": 1440, "5m": 5 * 1440, "15m": 14 * 1440, "1h": 60 * 1440, "1d": 3 * 365 * 1440 };

/** Trades that the chart `live` asks for, and seconds with which it begins. */
const TRADES = 1000;
const SECONDS = 600;

/**
 * Return `{start, end}` of the minutes before the newest of these quotes: a market may rest for days, and a
 * recording's trades are of another year.
 */
function range(quotes, minutes) {
  const newest = Math.max(...quotes.map((quote) => Date.parse(quote.last_updated) || 0));
  const start = (newest || Date.now()) - minutes * MINUTE;
  // The server refuses a range that ends before it begins, as one without an end may if this clock is ahead.
  const end = Math.max(newest, Date.now()) + DAY;
  return { start: new Date(start).toISOString(), end: new Date(end).toISOString() };
}

const seconds = (time) => Math.floor(Date.parse(time) / 1000);

/** Return a bar of the server as the chart takes it. A line shows its close. */
export function chartBar({ t, o, h, l, c, v }) {
  return { time: seconds(t), open: o, high: h, low: l, close: c, value: c, volume: v };
}

/** Return a price as the chart takes it. */
export function chartPoint(time, price) {
  return { time, open: price, high: price, low: price, close: price, value: price };
}

/** Return a point for each second until now. A recording's trades end when they end. */
function everySecond(trades, now) {
  if (trades.length === 0) return [];
  const newest = trades.at(-1)[0];
  const end = now - newest < SECONDS ? Math.max(now, newest) : newest;
  const points = [];
  let next = 0;
  for (let time = Math.max(trades[0][0], end - SECONDS); time <= end; time += 1) {
    while (next < trades.length && trades[next][0] <= time) next += 1;
    points.push(chartPoint(time, trades[Math.max(0, next - 1)][1]));
  }
  return points;
}

export class Past {
  #api;

  constructor(api) {
    this.#api = api;
  }

  /** Return the newest bars of a symbol with this quote, the oldest first. Errors: Refusal, or the fetch's. */
  async bars(symbol, timeframe, quote) {
    const limits = range([quote], BACK[timeframe]);
    const query = { symbols: symbol, timeframe, ...limits, limit: MOST, sort: "desc" };
    const { bars } = await this.#api.get("bars", query);
    return (bars[symbol] ?? []).map(chartBar).reverse();
  }

  /** Return a symbol's price in each of the last seconds. Errors: Refusal, or the fetch's. */
  async trades(symbol) {
    const { trades } = await this.#api.get("trades", { symbol, limit: TRADES });
    return everySecond(trades.map(({ t, price }) => [seconds(t), price]), Math.floor(Date.now() / 1000));
  }

  /**
   * Return the closing prices of the last hour's minutes, by symbol. `quotes` are those of the symbols.
   * Errors: Refusal, or the fetch's.
   */
  async lastHour(symbols, quotes) {
    const query = { symbols: symbols.join(), timeframe: "1m", ...range(quotes, 60), limit: symbols.length * 60 };
    const { bars } = await this.#api.get("bars", query);
    return new Map(Object.entries(bars).map(([symbol, all]) => [symbol, all.map(({ c }) => c)]));
  }
}
