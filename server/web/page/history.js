/** Prices of the past: bars and trades of the HTTP API, as the chart and the sparklines take them. */

const MINUTE = 60_000;

/** Bars of a chart at most, and how far back each length of a bar looks, in minutes. */
const MOST = 1000;
const BACK = { "1m": 1440, "5m": 5 * 1440, "15m": 14 * 1440, "1h": 60 * 1440, "1d": 3 * 365 * 1440 };

/** Trades at the beginning of the chart `live`. */
const TRADES = 1000;

const seconds = (time) => Math.floor(Date.parse(time) / 1000);

/** Return a bar of the server as the chart takes it. A line shows its close. */
export function chartBar({ t, o, h, l, c, v }) {
  return { time: seconds(t), open: o, high: h, low: l, close: c, value: c, volume: v };
}

/** Return a price as the chart takes it. */
export function chartPoint(time, price) {
  return { time, open: price, high: price, low: price, close: price, value: price };
}

export class Past {
  #api;

  constructor(api) {
    this.#api = api;
  }

  /** Return the newest bars of a symbol, the oldest first. Errors: Refusal, or the fetch's. */
  async bars(symbol, timeframe) {
    const start = new Date(Date.now() - BACK[timeframe] * MINUTE).toISOString();
    const query = { symbols: symbol, timeframe, start, limit: MOST, sort: "desc" };
    const { bars } = await this.#api.get("bars", query);
    return (bars[symbol] ?? []).map(chartBar).reverse();
  }

  /** Return the newest trades of a symbol, the last of each second. Errors: Refusal, or the fetch's. */
  async trades(symbol) {
    const { trades } = await this.#api.get("trades", { symbol, limit: TRADES });
    const points = [];
    for (const { t, price } of trades) {
      const time = seconds(t);
      const last = points.at(-1);
      if (!last || time > last.time) points.push(chartPoint(time, price));
      else points[points.length - 1] = chartPoint(last.time, price);
    }
    return points;
  }

  /** Return the closing prices of the last hour's minutes, by symbol. Errors: Refusal, or the fetch's. */
  async lastHour(symbols) {
    const start = new Date(Date.now() - 60 * MINUTE).toISOString();
    const limit = symbols.length * 60;
    const { bars } = await this.#api.get("bars", { symbols: symbols.join(), timeframe: "1m", start, limit });
    return new Map(Object.entries(bars).map(([symbol, all]) => [symbol, all.map(({ c }) => c)]));
  }
}
