/** Puts the page together: configuration, token, connection, and what they show. */

import { connect } from "../quotes.js";
import { normalized, readAddress } from "./address.js";
import { Api, Refusal, fetchConfig } from "./api.js";
import { attribution } from "./chart.js";
import { Chosen } from "./chosen.js";
import { bindControls, keptOptions, togglePause } from "./controls.js";
import { announce, find, write } from "./dom.js";
import { bindHands } from "./hands.js";
import { Head } from "./head.js";
import { Past } from "./history.js";
import { Instruments } from "./instruments.js";
import { bindKeys } from "./keys.js";
import { FIRST, List } from "./list.js";
import { Meter } from "./meter.js";
import { Search } from "./search.js";
import { Selection } from "./selection.js";
import { Status } from "./status.js";
import { Table } from "./table.js";
import { bindTheme } from "./theme.js";
import { Tokens } from "./token.js";

/** Milliseconds until the configuration is asked for again, and in which rows that came are gathered. */
const AGAIN = 2000;
const GATHERED = 100;

/** Rows of a request for the last hour: the server gives 10,000 bars at most. */
const MOST = 100;

/** Milliseconds until a last hour that did not come is asked for again, and between two looks at the time. */
const LATER = 5000;
const TICK = 1000;

/** Milliseconds without prices after which the last hour of each row is asked for again. */
const ABSENT = 60_000;

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
  const past = new Past(api);
  describeServer(config);

  const options = keptOptions();
  const stream = connect({
    url: new URL(config.stream.replace(/^\//, ""), document.baseURI).href,
    getToken: () => tokens.next(),
    ...options,
  });
  const table = new Table(selection, instruments, stream.quotes);
  new Status(stream, tokens, (isStill) => table.still(isStill), {
    retry: () => stream.reconnect({ symbols: selection.symbols }),
    resume: () => stream.resume(),
    token: () => tokens.ask(),
  });
  const search = new Search(api, selection, instruments, (symbol) => add(selection, table, symbol));
  new Head(selection, instruments, stream);
  const chosen = new Chosen(selection, instruments, past, stream, table);
  const meter = new Meter(stream);

  new List(selection, stream, table, api, isFirst);
  bindTokens(stream, tokens);
  bindHands(table, selection);
  bindControls(stream, options);
  bindRows(table, past, stream);
  bindTheme(() => {
    chosen.recolour();
    meter.recolour();
  });
  bindKeys({ "/": () => search.focus(), p: () => togglePause(stream), t: () => find("theme").click() });
  find("defaults").addEventListener("click", () => {
    selection.add(FIRST);
    table.focus(selection.symbols[0]);
  });
  await chosen.open();
}

/** Return the server's configuration. Until it comes, say that the page waits. */
async function configuration() {
  for (;;) {
    try {
      return await fetchConfig();
    } catch (error) {
      const isBusy = error instanceof Refusal;
      const title = isBusy ? "The server refuses the page for now" : "The server does not answer";
      write(find("pill-text"), isBusy ? "Refused" : "No server");
      find("banner").hidden = false;
      find("banner").dataset.tone = "bad";
      write(find("banner-title"), title);
      write(find("banner-text"), `${isBusy ? `${error.message.replace(/\.$/, "")}. ` : ""}The page tries again by itself.`);
      announce(`${title}. The page tries again.`);
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
}

function describeServer({ version, prices, has_operators: hasOperators }) {
  write(find("version"), `quotestream ${version}`);
  find("attribution").replaceChildren(...attribution());
  const source = origin(prices);
  write(find("source"), source);
  find("source").hidden = source === "";
  for (const link of document.querySelectorAll("a.operators")) link.hidden = !hasOperators;
}

/** Say if prices are not today's. */
function origin(feeds) {
  if (feeds.includes("replay")) return "Recorded prices, replayed";
  if (!feeds.includes("simulator")) return "";
  return feeds.length === 1 ? "Simulated prices" : "Some prices are simulated";
}

/** Fetch the last hour of rows that come into view with a price, and again after an absence. */
function bindRows(table, past, stream) {
  const waiting = [];
  const fetchThem = async () => {
    const symbols = waiting.splice(0, MOST).filter((symbol) => table.entry(symbol)?.quote);
    if (waiting.length) setTimeout(fetchThem, GATHERED);
    if (symbols.length === 0) return;
    try {
      for (const [symbol, closes] of await past.lastHour(symbols, symbols.map((symbol) => table.entry(symbol).quote))) {
        table.entry(symbol)?.trail.begin(closes, Date.now());
        table.touch(symbol);
      }
    } catch (error) {
      // Meanwhile, a sparkline without history begins with the next prices.
      const isFinal = error.status < 500 && !error.retryAfter;
      if (!isFinal) setTimeout(() => symbols.forEach(want), error.retryAfter || LATER);
    }
  };
  const want = (symbol) => {
    if (waiting.push(symbol) === 1) setTimeout(fetchThem, GATHERED);
  };
  table.addEventListener("priced", ({ detail }) => want(detail));
  let liveAt = Date.now();
  setInterval(() => {
    // The machine may have slept: then this tick is late.
    if (stream.state !== "live") return;
    if (Date.now() - liveAt > ABSENT) table.greetAgain();
    liveAt = Date.now();
  }, TICK);
}

function add(selection, table, symbol) {
  const news = selection.add([symbol]);
  selection.look({ chart: symbol });
  announce(news.length ? `${symbol} was added.` : `${symbol} is in the list already.`);
  table.arrange();
  table.reveal(symbol);
}

/** Ask for another token when the server has refused two. */
function bindTokens(stream, tokens) {
  stream.addEventListener("state", () => {
    if (stream.state !== "closed" || stream.reason?.code !== "unauthorized") return;
    tokens.forget(stream.reason.message);
    // A development server gave a new token, which was refused as well.
    if (!tokens.isDevelopment) stream.reconnect();
  });
}

start();
