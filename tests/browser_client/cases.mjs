/**
 * Plays the cases that it reads from its input against quotes.js, without a network and with a clock of
 * its own. It prints, for each case, what the client asked for at each `open` and held at each `expect`.
 *
 * The frames come ready-made, so that the bytes of MessagePack are not the client's own idea of them.
 */

import { readFileSync } from "node:fs";
import { advance, clock, nextTimer, settle } from "./clock.mjs";
import { connect } from "../../server/web/quotes.js";
import { FakeSocket } from "./fakes.mjs";

const MOST_TIMERS = 10_000;

function frame({ text, hex }) {
  return text ?? Uint8Array.from(Buffer.from(hex, "hex")).buffer;
}

/** Return a query's list; null if the parameter is absent. */
function listed(url, name) {
  return url.searchParams.get(name)?.split(",") ?? null;
}

class Run {
  #events = { bar: [], bars_missed: [], bars_end: [], error: [] };
  #tokens = 0;
  #calls = 0;
  #refused = [];
  #socket = null;
  #seen = 0;
  observed = [];

  constructor({ form, pong, connect: options, token }) {
    FakeSocket.opened = [];
    this.form = form;
    this.pong = pong;
    this.quotes = connect({
      url: "http://quotes.example/ws/quotes",
      getToken: token === "renewable" ? () => `token${(this.#tokens += 1)}` : undefined,
      ...options,
      format: form,
      WebSocket: FakeSocket,
    });
    for (const [type, list] of Object.entries(this.#events)) {
      this.quotes.addEventListener(type, ({ detail }) => list.push(detail));
    }
  }

  async step(step) {
    const [[kind, value]] = Object.entries(step);
    await settle();
    if (kind !== "open" && kind !== "close") this.#socket?.answer();
    await this[kind](value);
    await settle();
  }

  async open() {
    for (let timers = 0; FakeSocket.opened.length === this.#seen; timers += 1) {
      if (timers === MOST_TIMERS || !nextTimer()) throw new Error("the client does not connect");
      await settle();
    }
    const socket = FakeSocket.opened[this.#seen++];
    this.#socket = socket;
    const resume = socket.url.searchParams.get("resume");
    this.observed.push({
      symbols: listed(socket.url, "symbols") ?? [],
      fields: listed(socket.url, "fields"),
      interval: socket.url.searchParams.get("interval"),
      resume: resume && [resume.split(":")[0], resume.slice(resume.indexOf(":") + 1)],
      protocols: socket.protocols,
    });
    socket.pong = frame(this.pong);
    socket.open();
  }

  server(frames) {
    for (const each of frames) this.#socket.onmessage?.({ data: frame(each) });
  }

  close({ code, reason }) {
    this.#socket.end(code, reason);
  }

  call({ method, symbols, timeframe, interval }) {
    const rest = method === "throttle" ? [interval] : timeframe ? [symbols, timeframe] : [symbols];
    const call = (this.#calls += 1);
    this.quotes[method](...rest).catch(({ code, symbols: named }) => {
      this.#refused.push({ call, code, symbols: named });
    });
  }

  expect(wanted) {
    const { quotes } = this;
    this.observed.push({
      quotes: Object.fromEntries(quotes.quotes),
      versions: Object.fromEntries([...quotes.versions].filter(([symbol]) => quotes.quotes.has(symbol))),
      epoch: quotes.epoch,
      missed: quotes.behind,
      count: quotes.missed,
      state: quotes.state,
      reason: quotes.reason?.code ?? null,
      status: quotes.status?.status ?? null,
      next_open: quotes.status?.next_open ?? null,
      markets: Object.fromEntries(quotes.statuses),
      overload: quotes.overload,
      interval: quotes.interval,
      sent: "sent" in wanted ? this.#socket.sent.splice(0) : null,
      errors: this.#events.error,
      refused: this.#refused,
      bars: "bars" in wanted ? this.#events.bar.splice(0) : null,
      bars_missed: "bars_missed" in wanted ? this.#events.bars_missed.splice(0) : null,
      bars_end: "bars_end" in wanted ? this.#events.bars_end.splice(0) : null,
      wait: quotes.retryAt === null ? null : (quotes.retryAt - clock()) / 1000,
      tokens: this.#tokens,
    });
  }
}

const results = [];
for (const each of JSON.parse(readFileSync(0, "utf8"))) {
  const run = new Run(each);
  try {
    for (const step of each.steps) await run.step(step);
    results.push({ observed: run.observed });
  } catch (error) {
    results.push({ observed: run.observed, error: String(error.stack) });
  }
  run.quotes.close();
  advance(0);
}
console.log(JSON.stringify(results));
