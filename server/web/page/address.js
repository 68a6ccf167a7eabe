/** The page's address: the list and the chart, so that a visitor can share them. */

export const TIMEFRAMES = ["live", "1m", "5m", "15m", "1h", "1d"];
export const STYLES = ["line", "candles"];

/** Symbols that one connection may have by default. A longer list in an address is a mistake. */
const MOST = 500;
const LONGEST = 50;

/** Return `{symbols, chart, timeframe, style}` of the address. `symbols` is null if it names none. */
export function readAddress(search = location.search) {
  const values = new URLSearchParams(search);
  const one = (name, allowed) => (allowed.includes(values.get(name)) ? values.get(name) : allowed[0]);
  const symbols = values.has("symbols") ? normalized(values.get("symbols").split(",")) : null;
  const chart = normalized([values.get("chart") ?? ""])[0] ?? symbols?.[0] ?? null;
  return { symbols, chart, timeframe: one("timeframe", TIMEFRAMES), style: one("style", STYLES) };
}

/** Return the symbols in upper case, each once. `*` stands for all in a request, and has no row. */
export function normalized(symbols) {
  const each = symbols.map((symbol) => symbol.trim().toUpperCase());
  const isOne = (symbol) => symbol && symbol !== "*" && symbol.length <= LONGEST;
  return [...new Set(each.filter(isOne))].slice(0, MOST);
}

/** Show the selection in the address. */
export function writeAddress({ symbols, chart, timeframe, style }) {
  const parts = [`symbols=${symbols.map(encodeURIComponent).join(",")}`];
  if (chart) parts.push(`chart=${encodeURIComponent(chart)}`);
  parts.push(`timeframe=${timeframe}`, `style=${style}`);
  history.replaceState(null, "", `?${parts.join("&")}${location.hash}`);
}
