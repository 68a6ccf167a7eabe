/** Puts the page together: configuration, token, connection, and what they show. */

import { connect } from "../quotes.js";
import { normalized, readAddress, writeAddress } from "./address.js";
import { Api } from "./api.js";
import { attribution } from "./chart.js";
import { Chosen } from "./chosen.js";
import { bindControls, keptOptions, togglePause } from "./controls.js";
import { find, write } from "./dom.js";
import { bindHands } from "./hands.js";
import { Past } from "./history.js";
import { Instruments } from "./instruments.js";
import { Meter } from "./meter.js";
import { Search } from "./search.js";
import { Selection } from "./selection.js";
import { Status } from "./status.js";
import { Table } from "./table.js";
import { bindTheme } from "./theme.js";
import { Tokens, fetchConfig } from "./token.js";

/** The list of a first visit. A server without these symbols shows its own first ones. */
const FIRST = ["AAPL", "MSFT", "NVDA", "GOOGL", "AMZN", "META", "TSLA", "BRK.B", "JPM", "V", "LLY", "XOM", "KO", "DIS", "SPY", "QQQ"];

/** Milliseconds until the configuration is asked for again, and in which rows that came are gathered. */
const AGAIN = 2000;
const GATHERED = 100;

async function start() {
  const asked = readAddress();
  const isFirst = asked.symbols === null;
  const chart = asked.chart ?? (isFirst ? FIRST[0] : null);
  const symbols = normalized([...(asked.symbols ?? FIRST), chart ?? ""]);
  const selection = new Selection({ ...asked, symbols, chart });
  const config = await configuration();
  const tokens = new Tokens(config);
  const api = new Api(tokens);
  const instruments = new Instruments(api);
  const table = new Table(selection, instruments);
  const past = new Past(api);
  const chosen = new Chosen(selection, instruments, past);
  describeServer(config);

  const options = keptOptions();
  const stream = connect({
    url: new URL(config.stream.replace(/^\//, ""), document.baseURI).href,
    getToken: () => tokens.next(),
    symbols: [],
    ...options,
  });
  table.quotes = stream.quotes;
  const status = new Status(stream, tokens, table, {
    retry: () => stream.reconnect({ symbols: selection.symbols }),
    resume: () => stream.resume(),
    token: () => tokens.ask(),
  });
  const meter = new Meter(stream);
  const search = new Search(api, selection, instruments, (symbol) => add(selection, table, status, symbol));
  search.told = (text) => status.say(text);
  bindHands(table, selection, (text) => status.say(text));

  bindControls(stream, options);
  bindList(selection, stream);
  bindStream(stream, { selection, table, tokens, isFirst, api });
  bindRows(table, past);
  bindKeys(search, stream);
  bindTheme(() => {
    chosen.recolour();
    meter.recolour();
  });
  find("defaults").addEventListener("click", () => {
    selection.add(FIRST);
    table.focus(selection.symbols[0]);
  });
  await chosen.follow(stream);
}

/** Return the server's configuration. Until it comes, say that the page waits. */
async function configuration() {
  for (;;) {
    try {
      return await fetchConfig();
    } catch {
      write(find("pill-text"), "No server");
      find("banner").hidden = false;
      find("banner").dataset.tone = "bad";
      write(find("banner-title"), "The server does not answer");
      write(find("banner-text"), "The page tries again every two seconds.");
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
}

function describeServer({ version, prices }) {
  write(find("version"), `quotestream ${version}`);
  find("attribution").replaceChildren(...attribution());
  const source = origin(prices);
  write(find("source"), source);
  find("source").hidden = source === "";
}

/** Say if prices are not today's. */
function origin(feeds) {
  if (feeds.includes("replay")) return "Recorded prices, replayed";
  if (!feeds.includes("simulator")) return "";
  return feeds.length === 1 ? "Simulated prices" : "Some prices are simulated";
}

/** Keep the server's subscriptions and the address equal to the list. */
function bindList(selection, stream) {
  let subscribed = new Set();
  const follow = () => {
    const wanted = new Set(selection.symbols);
    const news = [...wanted].filter((symbol) => !subscribed.has(symbol));
    const gone = [...subscribed].filter((symbol) => !wanted.has(symbol));
    subscribed = wanted;
    // A server may take another list than the one that it refused.
    if (stream.state === "closed" && news.length + gone.length) stream.reconnect({ symbols: wanted });
    // The event `error` tells each refusal.
    else if (gone.length) stream.unsubscribe(gone).catch(() => {});
    if (news.length) stream.subscribe(news).catch(() => {});
    find("empty").hidden = wanted.size > 0;
    find("quotes").hidden = wanted.size === 0;
    writeAddress(selection);
  };
  selection.addEventListener("list", follow);
  selection.addEventListener("chart", () => writeAddress(selection));
  follow();
}

function bindStream(stream, { selection, table, tokens, isFirst, api }) {
  const known = new Set();
  stream.addEventListener("change", ({ detail: { symbol, quote } }) => {
    table.take(symbol, quote, known.has(symbol));
    known.add(symbol);
  });
  // The first quotes of the next connection may be old.
  stream.addEventListener("state", () => stream.state === "connecting" && known.clear());
  stream.addEventListener("removed", ({ detail: { symbol, renamedTo } }) => {
    known.delete(symbol);
    if (!selection.has(symbol)) return;
    if (renamedTo) selection.rename(symbol, renamedTo);
    else table.refuse(symbol, "No longer listed. You can remove it.");
  });
  const refuse = (code, message, symbols) => {
    for (const symbol of symbols) {
      if (!selection.has(symbol)) continue;
      if (code === "unknown_symbol" && isFirst && FIRST.includes(symbol)) selection.remove(symbol);
      else table.refuse(symbol, refusal(code, message));
    }
    if (isFirst && selection.symbols.length === 0) firstOfServer(api, selection);
  };
  stream.addEventListener("error", ({ detail: { code, message, symbols = [] } }) => {
    // A list that is too long is refused as a whole.
    const all = code === "too_many_symbols" ? selection.symbols.filter((each) => !stream.quotes.has(each)) : symbols;
    refuse(code, message, all);
  });
  stream.addEventListener("state", () => {
    if (stream.state !== "closed" || stream.reason?.code !== "too_many_symbols") return;
    // A visitor who asked for nothing gets as much of the first list as the server allows.
    const { symbols } = selection;
    if (!isFirst || symbols.length < 2 || !symbols.every((each) => FIRST.includes(each))) return;
    for (const symbol of symbols.slice(Math.ceil(symbols.length / 2))) selection.remove(symbol);
  });
  stream.addEventListener("state", () => {
    if (stream.state !== "closed" || stream.reason?.code !== "no_valid_symbols") return;
    // The server takes a connection without a symbol, but not one with unknown symbols only.
    stream.reconnect({ symbols: [] });
    refuse("unknown_symbol", "", selection.symbols);
  });
  stream.addEventListener("status", ({ detail: { symbols = [], status } }) => {
    const mark = (symbol, text) => {
      const entry = table.entry(symbol);
      if (entry) entry.status = text;
      table.touch(symbol);
    };
    const isFlowing = status === "live" || status === "open";
    for (const symbol of symbols) mark(symbol, isFlowing ? "" : status);
  });
  stream.addEventListener("state", () => {
    if (stream.state !== "closed" || stream.reason?.code !== "unauthorized") return;
    tokens.forget(stream.reason.message);
    // A development server gave a new token, which was refused as well.
    if (!tokens.isDevelopment) stream.reconnect();
  });
}

function refusal(code, message) {
  if (code === "unknown_symbol") return "This server does not know the symbol. Search for another, or remove it.";
  if (code === "not_entitled") return "Your token does not include this symbol.";
  if (code === "too_many_symbols") return "The list is longer than the server allows. Remove some symbols.";
  return message;
}

/** Show the first symbols of a server that has none of the usual ones. */
async function firstOfServer(api, selection) {
  try {
    const found = await api.get("instruments", { limit: FIRST.length });
    selection.add(found.map(({ symbol }) => symbol));
  } catch {
    // The empty list says what to do.
  }
}

/** Fetch the last hour of rows that come into view with a price. */
function bindRows(table, past) {
  let waiting = [];
  const fetchThem = async () => {
    const symbols = waiting;
    waiting = [];
    try {
      for (const [symbol, closes] of await past.lastHour(symbols)) {
        table.entry(symbol)?.trail.begin(closes, Date.now());
        table.touch(symbol);
      }
    } catch {
      // A sparkline without history begins with the next prices.
    }
  };
  table.addEventListener("priced", ({ detail }) => {
    if (waiting.push(detail) === 1) setTimeout(fetchThem, GATHERED);
  });
}

function add(selection, table, status, symbol) {
  const news = selection.add([symbol]);
  selection.look({ chart: symbol });
  status.say(news.length ? `${symbol} was added.` : `${symbol} is in the list already.`);
  table.arrange();
  table.reveal(symbol);
}

function bindKeys(search, stream) {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input[type=text], input[type=password], dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") search.focus();
    else if (event.key === "p") togglePause(stream);
    else if (event.key === "t") find("theme").click();
    else return;
    event.preventDefault();
  });
}

start();
