/**
 * The browser's client of quotestream: live quotes of a server, kept right across lost connections.
 *
 *     import { connect } from "/quotes.js";
 *     const quotes = connect({ url: "wss://quotes.example/ws/quotes", symbols: ["AAPL"] });
 *     quotes.addEventListener("change", ({ detail }) => console.log(detail.symbol, detail.quote));
 *
 * It has no dependencies and needs no build. It also runs in Node 22. Types are in quotes.d.ts, and
 * docs/browsers.md shows a whole page.
 */

const PREFIX = "quotestream.v1.";

// The back-off, in milliseconds: a random time below a limit that doubles up to the longest.
const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;

// Milliseconds after which a connection counts as one that lasted. The back-off then starts over.
const LASTING = 10_000;

// The longest time that a server may ask a client to stay away. A longer one is a mistake.
const LONGEST_ASKED = 3_600_000;

// Milliseconds between which a client comes back to a server that is full or limits it.
const BUSY_FROM = 1000;
const BUSY_TO = 5000;

// The heartbeat counts ticks, since a clock may jump: a ping after PING_AFTER ticks, the state `stale`
// after STALE_AFTER ticks without an answer, and another connection after DEAD_AFTER.
const TICK = 1000;
const PING_AFTER = 10;
const STALE_AFTER = 3;
const DEAD_AFTER = 10;

// A tick that is this late, in milliseconds, tells that the machine slept or its clock was set.
const JUMP = 5000;

// Milliseconds after which a hidden tab gives up its connection. A quick look elsewhere costs nothing.
const HIDDEN_FOR = 30_000;

// Servers take requests of 16 KiB. Browsers and proxies add headers of their own.
const MAX_REQUEST = 14_000;
const MAX_RESUME = 8192;

// Symbols of a command, which has at most 16 KiB. Each 50 count as one command for the server's limit.
const MAX_SYMBOLS = 50;

// Every eighth failed handshake in a row is without `resume`, in case a proxy finds the URL too long.
const WITHOUT_RESUME = 8;

// A resync is repeated after this number of ticks. At most RESYNC_RATE of them go out in a tick.
const REPAIR_AFTER = 10;
const RESYNC_RATE = 20;

// The ids of the client's own commands. Those that a page gives have numbers.
const PING_ID = "ping";
const RESYNC_ID = "resync";

/** Meanings of close codes that come without a reason of the form `code: message`. */
const CLOSES = new Map([
  [1001, ["going_away", "The server shuts down."]],
  [1006, ["connection_lost", "The connection was lost."]],
  [4401, ["unauthorized", "The token is not valid any more."]],
  [4408, ["no_answer", "The server heard nothing from this client."]],
  [4429, ["too_slow", "This client reads too slowly. Ask for fewer symbols, or throttle."]],
]);

/** Close codes that say that the same request will be refused again. */
const FINAL = new Set([4400, 4401, 4403]);

/** Close codes after which the client stays away for BUSY_FROM to BUSY_TO. */
const BUSY = new Set([4409, 4429, 4503]);

/** Meanings of the server's `status`. */
const STATUSES = {
  feed_quiet: "No symbol has traded for a while.",
  feed_ended: "The feed has ended. There will be no more prices.",
  feed_failed: "The feed has failed. There will be no more prices.",
  bus_lost: "The server does not hear the other servers.",
  leader_lost: "The server does not hear the one that makes the prices.",
  session_closed: "The market is closed.",
};

/** Meanings of the reasons to sleep. */
const SLEEPS = {
  paused: "The page has paused the prices.",
  hidden: "The page is not visible.",
  offline: "The network is offline.",
};

/**
 * Open a connection that lasts until `close()` or a final refusal.
 *
 * @param {import("./quotes.js").Options} options
 * @returns {Quotes}
 */
export function connect(options) {
  return new Quotes(options);
}

/** An error that the server or the client names by a code. */
export class QuotesError extends Error {
  constructor(code, message, symbols = []) {
    super(message);
    this.name = "QuotesError";
    this.code = code;
    this.symbols = symbols;
  }
}

/** A connection's quotes, state and commands. */
export class Quotes extends EventTarget {
  // The connection.
  #options;
  #wanted;
  #token = null;
  #renewed = false;
  #socket = null;
  #attempts = 0;
  #failures = 0;
  #timer = 0;
  #asked = 0;
  #acceptedAt = null;
  #decoder = null;
  #form = null;

  // What it tells.
  #state = "connecting";
  #reason = null;
  #retryAt = null;
  #status = null;
  #statuses = new Map();
  #overload = 0;
  #interval = 0;
  #throttle = null;
  #lag = null;
  #offset = null;
  #stats = { messages: 0, bytes: 0, connects: 0, resumed: 0, resyncs: 0 };
  #book = new Book((type, detail) => this.#emit(type, detail));

  // Commands.
  #lastId = 0;
  #pending = new Map();
  #resyncs = RESYNC_RATE;
  #bars = new Map();

  // The heartbeat and sleep.
  #ticker = 0;
  #tickedAt = 0;
  #quietTicks = 0;
  #unanswered = null;
  #pingedAt = 0;
  #asleep = new Set();
  #unwatch = null;

  /** Use `connect` instead. */
  constructor(options) {
    super();
    this.#options = { format: "compact", ...options };
    this.#wanted = new Set(normalized(options.symbols ?? []));
    this.#watch();
    this.#open();
  }

  // ---------------------------------------------------------------- What a page reads

  get state() {
    return this.#state;
  }

  /** Why the state is so: `{code, message}`, or null. */
  get reason() {
    return this.#reason;
  }

  /** When the next attempt starts, in milliseconds since 1970. Null unless the state is `waiting`. */
  get retryAt() {
    return this.#retryAt;
  }

  /** The newest quote of each symbol, each frozen. */
  get quotes() {
    return this.#book.quotes;
  }

  get versions() {
    return this.#book.versions;
  }

  /** The number of updates that are proven missing and not repaired yet. */
  get missed() {
    return this.#book.missed;
  }

  get gaps() {
    return [...this.#book.gaps.values()].map(({ symbol, from, to }) => ({ symbol, from, to }));
  }

  /** Milliseconds from the newest update's time at the server to its arrival, or null. */
  get lag() {
    return this.#lag;
  }

  get stats() {
    return { ...this.#stats };
  }

  /** The symbols that the server sends, or that the next connection asks for. */
  get symbols() {
    return [...this.#wanted];
  }

  /** The form in which the server speaks now: `json`, `compact`, `msgpack`, or null. */
  get format() {
    return this.#form;
  }

  /** The symbols whose quotes are not proven to be the newest. */
  get behind() {
    return [...new Set([...this.#book.gaps.keys(), ...this.#book.doubted])];
  }

  /** The epoch to which the versions belong. */
  get epoch() {
    return this.#book.epoch;
  }

  /** The server's newest `status` of all prices, or null. */
  get status() {
    return this.#status;
  }

  /** The newest `status` of each symbol whose prices do not flow. */
  get statuses() {
    return this.#statuses;
  }

  /** Seconds between two updates of a symbol that this client asked for; 0 for all updates. */
  get interval() {
    return this.#interval;
  }

  /** Seconds between two updates of a symbol while the server is overloaded, else 0. */
  get overload() {
    return this.#overload;
  }

  // ---------------------------------------------------------------- What a page asks for

  subscribe(symbols) {
    return this.#inParts("symbols", symbols, { action: "subscribe" });
  }

  unsubscribe(symbols) {
    return this.#inParts("symbols", symbols, { action: "unsubscribe" });
  }

  /** Get each symbol at most once in this time: milliseconds, or text such as `2s`; 0 for no limit. */
  throttle(interval) {
    this.#throttle = duration(interval);
    return this.#command({ action: "throttle", interval: this.#throttle });
  }

  bars(symbols, timeframe = "1m") {
    return this.#inParts("bars", symbols, { action: "subscribe", timeframe });
  }

  unbars(symbols, timeframe = "1m") {
    return this.#inParts("bars", symbols, { action: "unsubscribe", timeframe });
  }

  /** Give up the connection until `resume()`. The quotes stay. */
  pause() {
    this.#sleep("paused");
  }

  resume() {
    this.#wake("paused");
  }

  /** End for good. */
  close() {
    this.#finish(null);
  }

  /** Connect anew at once, with the changed options. It also ends the state `closed`. */
  reconnect(overrides = {}) {
    const fields = this.#options.fields;
    Object.assign(this.#options, overrides);
    if ("symbols" in overrides) {
      this.#wanted = new Set(normalized(overrides.symbols ?? []));
      if (!this.#wanted.has("*")) this.#book.keep(this.#wanted);
    }
    if ("getToken" in overrides) this.#token = null;
    // A position is good for the same fields only.
    if (String(this.#options.fields) !== String(fields)) this.#book.distrust();
    this.#renewed = false;
    this.#failures = 0;
    this.#watch();
    this.#disconnect();
    if (this.#asleep.size === 0) this.#open();
  }

  /** Yield changes. A slow reader gets the newest change of each symbol, with all fields that changed. */
  async *[Symbol.asyncIterator]() {
    const newest = new Map();
    let wake = () => {};
    const note = ({ detail }) => {
      const earlier = newest.get(detail.symbol)?.changed ?? [];
      newest.set(detail.symbol, { ...detail, changed: [...new Set([...earlier, ...detail.changed])] });
      wake();
    };
    const look = () => wake();
    this.addEventListener("change", note);
    this.addEventListener("state", look);
    try {
      for (;;) {
        for (const [symbol, change] of newest) {
          newest.delete(symbol);
          yield change;
        }
        if (this.#state === "closed") {
          if (this.#reason) throw new QuotesError(this.#reason.code, this.#reason.message);
          return;
        }
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      this.removeEventListener("change", note);
      this.removeEventListener("state", look);
    }
  }

  // ---------------------------------------------------------------- The connection

  async #open() {
    const attempt = ++this.#attempts;
    this.#become("connecting", this.#reason);
    this.#beat();
    let token;
    try {
      this.#token ??= this.#askForToken();
      token = await this.#token;
    } catch (error) {
      this.#token = null;
      if (attempt === this.#attempts) this.#retry({ code: "no_token", message: String(error) });
      return;
    }
    // The page may have closed, paused or reconnected while it looked for the token.
    if (attempt !== this.#attempts) return;
    const forms = [...new Set([this.#options.format, "json"])].map((form) => PREFIX + form);
    const { url, rest } = this.#request(token.length);
    let socket;
    try {
      const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
      socket = new Socket(url, token ? [...forms, `bearer.${token}`] : forms);
    } catch (error) {
      // The message of the browser's error may repeat the token.
      this.#finish({ code: "bad_request", message: `This is not an address and token (${error.name}).` });
      return;
    }
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened(rest);
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onclose = ({ code, reason }) => this.#ended(code, reason);
    this.#socket = socket;
  }

  async #askForToken() {
    return (await this.#options.getToken?.()) ?? "";
  }

  /** Return the URL of the next connection, and the symbols for which it has no room. */
  #request(reserved) {
    const { url: address, fields, interval } = this.#options;
    const url = new URL(address, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    const parts = ["refuse=close"];
    if (fields?.length) parts.push(`fields=${escaped(fields.join())}`);
    if (interval !== undefined) parts.push(`interval=${escaped(String(duration(interval)))}`);
    let room = MAX_REQUEST - url.href.length - reserved - parts.join().length;
    const named = [];
    const rest = [];
    for (const symbol of this.#wanted) {
      room -= escaped(symbol).length + 1;
      // A comma separates symbols, so a symbol that has one cannot be named here.
      (room > 0 && !symbol.includes(",") ? named : rest).push(symbol);
    }
    if (named.length) parts.push(`symbols=${escaped(named.join())}`);
    const tries = this.#failures % WITHOUT_RESUME < WITHOUT_RESUME - 1;
    const position = tries ? this.#book.position(Math.min(room, MAX_RESUME)) : "";
    if (position) parts.push(`resume=${position}`);
    const query = parts.join("&");
    return { url: `${url.href}${url.search ? "&" : "?"}${query}`, rest };
  }

  #opened(rest) {
    this.#stats.connects += 1;
    this.#form = this.#socket.protocol.startsWith(PREFIX) ? this.#socket.protocol.slice(PREFIX.length) : "json";
    this.#decoder = new Decoder(this.#book, Boolean(this.#options.fields?.length));
    this.#book.reconnected();
    // The answer tells that the server accepted this client, and what its clock says.
    this.#ping();
    if (rest.length) this.#inParts("symbols", rest, { action: "subscribe" }, true);
    for (const [timeframe, symbols] of this.#bars) {
      this.#inParts("bars", [...symbols], { action: "subscribe", timeframe }, true);
    }
    this.#tellMissedBars();
    for (const { command, asked, own } of this.#pending.values()) if (!asked && !own) this.#send(command);
  }

  #received(data) {
    const arrived = Date.now();
    this.#stats.messages += 1;
    this.#stats.bytes += data.length ?? data.byteLength;
    this.#quietTicks = 0;
    const silent = this.#unanswered >= STALE_AFTER;
    this.#unanswered = null;
    try {
      const message = this.#form === "msgpack" ? unpack(data) : JSON.parse(data);
      text(message[0] ?? message.type);
      if (Array.isArray(message)) this.#quoted(this.#decoder.compact(message), arrived);
      else this.#told(message, arrived);
    } catch (error) {
      this.#lose({ code: "bad_message", message: `The server sent a message that is not valid: ${error.message}` });
      return;
    }
    if (silent) this.#refresh();
  }

  /** Take in a message that is an object. */
  #told(message, arrived) {
    switch (message.type) {
      case "quotes_patch":
        return this.#quoted(this.#decoder.patch(message), arrived);
      case "schema":
        return this.#decoder.schema(message);
      case "ack":
        return this.#acknowledged(message);
      case "error":
        return this.#refused(message);
      case "status":
        return this.#marked(message);
      case "reconnect":
        this.#asked = message.after_ms;
        return;
      case "pong":
        this.#offset = message.ts / 1000 - (this.#pingedAt + arrived) / 2;
        return this.#accepted();
      case "bar":
      case "bars_end":
      case "bars_missed": {
        const { type, ...detail } = message;
        this.#emit(type, detail);
      }
    }
  }

  /** Note what a message about quotes did. */
  #quoted({ ts, news, arrived: came = [], removed = [], renamed = {} }, arrived) {
    if (!this.#wanted.has("*")) for (const symbol of came) this.#wanted.add(symbol);
    for (const symbol of removed) {
      const next = own(renamed, symbol);
      this.#statuses.delete(symbol);
      if (this.#wanted.delete(symbol) && next) this.#wanted.add(next);
      if (!next) continue;
      for (const symbols of this.#bars.values()) if (symbols.delete(symbol)) symbols.add(next);
    }
    // The first quotes of a connection may be as old as the last trade.
    if (news && this.#acceptedAt !== null && this.#offset !== null) {
      this.#lag = Math.max(0, arrived + this.#offset - ts / 1000);
    }
    this.#repair();
  }

  #accepted() {
    this.#acceptedAt ??= Date.now();
    this.#renewed = false;
    this.#failures = 0;
    for (const [id, { command, asked }] of this.#pending) {
      if (asked) this.#settle(id, { action: command.action, symbols: [...asked] });
    }
    this.#refresh();
  }

  /** Take in `status`: of all prices, or of one symbol. */
  #marked(message) {
    if (message.interval !== undefined) this.#overload = message.interval;
    if (message.symbols) {
      for (const symbol of message.symbols) {
        if (["live", "open"].includes(message.status)) this.#statuses.delete(symbol);
        else this.#statuses.set(symbol, message);
      }
    } else {
      // While prices did not flow, bars may have been lost as well.
      if (message.status === "live" && this.#status?.status === "stale") this.#tellMissedBars();
      this.#status = message;
    }
    this.#emit("status", message);
    this.#refresh();
  }

  /** Choose the state of an open connection. */
  #refresh() {
    if (!this.#socket || this.#acceptedAt === null) return;
    const { status = "live", reason = "", next_open: opens } = this.#status ?? {};
    if (this.#unanswered >= STALE_AFTER) {
      this.#become("stale", { code: "no_answer", message: "The server does not answer at the moment." });
    } else if (status === "live" || status === "open") {
      this.#become("live", null);
    } else {
      const next = opens ? ` It opens at ${opens}.` : "";
      this.#become("stale", { code: reason, message: (own(STATUSES, reason) ?? `Prices: ${status}.`) + next });
    }
  }

  /** Go on after the connection has ended or could not be made. */
  async #ended(code, text) {
    const [, name, words] = /^([a-z_]+): (.*)$/s.exec(text) ?? [];
    const known = CLOSES.get(code) ?? ["connection_lost", text || `The connection ended with code ${code}.`];
    const reason = { code: name ?? known[0], message: words ?? (text || known[1]) };
    if (this.#acceptedAt === null) {
      this.#failures += 1;
      if (code === 1006) Object.assign(reason, { code: "unreachable", message: "The server cannot be reached." });
    }
    const renewable = code === 4401 && this.#options.getToken && !this.#renewed;
    if (FINAL.has(code) && !renewable) {
      this.#finish(reason);
      return;
    }
    if (renewable) {
      this.#renewed = true;
      this.#token = quiet(this.#askForToken());
    }
    if (BUSY.has(code)) this.#asked = Math.max(this.#asked, BUSY_FROM + Math.random() * (BUSY_TO - BUSY_FROM));
    this.#retry(reason);
  }

  /** Give up a connection that is of no use. */
  #lose(reason) {
    if (this.#acceptedAt === null) this.#failures += 1;
    this.#retry(reason);
  }

  /** Connect again after a random time, or a longer one that the server asked for. */
  #retry(reason) {
    const lasted = this.#acceptedAt !== null && Date.now() - this.#acceptedAt >= LASTING;
    this.#delays = lasted ? 0 : this.#delays;
    const limit = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#delays);
    this.#delays = Math.min(this.#delays + 1, 16);
    const wait = Math.max(Math.random() * limit, Math.min(this.#asked, LONGEST_ASKED));
    this.#disconnect();
    this.#retryAt = Date.now() + wait;
    this.#timer = setTimeout(() => this.#open(), wait);
    this.#become("waiting", reason);
  }
  #delays = 0;

  /** Forget the connection, and what is true of it only. */
  #disconnect() {
    this.#attempts += 1;
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#socket = this.#acceptedAt = this.#retryAt = this.#status = this.#form = null;
    this.#lag = this.#offset = this.#unanswered = null;
    this.#asked = this.#overload = 0;
    this.#statuses.clear();
    // The next connection makes these anew.
    for (const [id, { own: mine }] of this.#pending) {
      if (mine) this.#pending.delete(id);
      else this.#ask(id);
    }
  }

  /** End for good, with the reason of a refusal or null. */
  #finish(reason) {
    this.#disconnect();
    this.#unwatch?.();
    this.#unwatch = null;
    const why = reason ?? { code: "closed", message: "The connection was closed." };
    for (const id of [...this.#pending.keys()]) this.#settle(id, new QuotesError(why.code, why.message));
    this.#become("closed", reason);
  }

  #become(state, reason) {
    if (state !== "waiting") this.#retryAt = null;
    const same = state === this.#state && reason?.code === this.#reason?.code && reason?.message === this.#reason?.message;
    this.#state = state;
    this.#reason = reason;
    if (!same || state === "waiting") this.#emit("state", { state, reason, retryAt: this.#retryAt });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // ---------------------------------------------------------------- Commands

  /** Send a command as soon as there is a connection. `own`: the client itself needs it. */
  #command(fields, own = false) {
    if (this.#state === "closed") return quiet(Promise.reject(new QuotesError("closed", "The connection is closed.")));
    const id = ++this.#lastId;
    const answer = new Promise((resolve, reject) => {
      this.#pending.set(id, { command: { ...fields, id }, resolve, reject, own, asked: null });
    });
    if (this.#socket) this.#send({ ...fields, id });
    else this.#ask(id);
    return quiet(answer);
  }

  /** Send a command in parts that the server takes. Return the answer to all of them. */
  #inParts(name, symbols, fields, own = false) {
    const all = normalized(symbols);
    const parts = [];
    for (let from = 0; from < all.length; from += MAX_SYMBOLS) parts.push(all.slice(from, from + MAX_SYMBOLS));
    const answers = Promise.all(parts.map((part) => this.#command({ ...fields, [name]: part }, own)));
    return quiet(answers.then((acks) => ({ ...fields, symbols: acks.flatMap((ack) => ack.symbols) })));
  }

  #send(command) {
    if (this.#socket?.readyState !== 1) return;
    this.#socket.send(this.#form === "msgpack" ? pack(command) : JSON.stringify(command));
  }

  /** Carry out a command without a connection: the request of the next one has its symbols or not. */
  #ask(id) {
    const pending = this.#pending.get(id);
    const { action, symbols } = pending.command;
    if (!symbols) return;
    pending.asked = new Set(symbols);
    this.#want(this.#wanted, action, symbols);
    if (action === "unsubscribe") {
      this.#book.drop(symbols.includes("*") ? [...this.#book.quotes.keys()] : symbols);
      this.#settle(id, { action, symbols });
    }
  }

  #want(wanted, action, symbols) {
    if (symbols.includes("*")) wanted.clear();
    for (const symbol of symbols) {
      if (action === "subscribe") wanted.add(symbol);
      else wanted.delete(symbol);
    }
  }

  #settle(id, outcome) {
    const { resolve, reject } = this.#pending.get(id) ?? {};
    this.#pending.delete(id);
    if (outcome instanceof Error) reject?.(outcome);
    else resolve?.(outcome);
  }

  #acknowledged(message) {
    const { action, symbols, timeframe } = message;
    if (action === "resume") {
      this.#stats.resumed += 1;
      this.#book.recovered(message.recovered);
    } else if (action === "throttle") {
      this.#interval = message.interval;
      if (message.interval === 0) this.#options.interval = undefined;
      else this.#options.interval = this.#throttle ?? this.#options.interval;
    } else if (action === "subscribe" || action === "unsubscribe") {
      if (timeframe && !this.#bars.has(timeframe)) this.#bars.set(timeframe, new Set());
      this.#want(timeframe ? this.#bars.get(timeframe) : this.#wanted, action, symbols);
    }
    this.#settle(message.id, message);
  }

  /** Take in `error`: the server refuses a command, or some symbols of it or of the handshake. */
  #refused(message) {
    const { id, code, symbols = [] } = message;
    if (id === PING_ID) this.#accepted();
    const waiting = this.#pending.get(id);
    if (code === "unknown_symbol" || code === "not_entitled" || (id === RESYNC_ID && code === "not_subscribed")) {
      for (const each of this.#bars.values()) for (const symbol of symbols) each.delete(symbol);
      for (const symbol of symbols) this.#wanted.delete(symbol);
      this.#book.drop(symbols);
    }
    const passing = code === "store_unavailable" || code === "rate_limited";
    if (passing && waiting?.own) this.#later(() => this.#send(waiting.command));
    else if (passing && id === undefined && symbols.length) {
      this.#later(() => this.#inParts("symbols", symbols, { action: "subscribe" }, true));
    }
    const error = new QuotesError(code, message.message, symbols);
    if (id === undefined) this.#refuseAsked(error);
    else if (!(passing && waiting?.own)) this.#settle(id, error);
    const { type, ...detail } = message;
    this.#emit("error", detail);
  }

  /** Tell of symbols that the handshake refused to the callers that asked for them meanwhile. */
  #refuseAsked(error) {
    for (const [id, { asked }] of this.#pending) {
      if (!asked) continue;
      for (const symbol of error.symbols) asked.delete(symbol);
      if (asked.size === 0) this.#settle(id, error);
    }
  }

  /** Do something after a while, if the connection is still the same. */
  #later(action) {
    const socket = this.#socket;
    const wait = BUSY_FROM + Math.random() * (BUSY_TO - BUSY_FROM);
    setTimeout(() => socket === this.#socket && action(), wait);
  }

  /** Ask for the full quotes of symbols that missed an update, and again if none comes. */
  #repair() {
    const gaps = [...this.#book.gaps.values()].filter((gap) => gap.patience === 0).slice(0, MAX_SYMBOLS);
    if (gaps.length === 0 || this.#resyncs === 0) return;
    for (const gap of gaps) gap.patience = REPAIR_AFTER;
    this.#resyncs -= 1;
    this.#stats.resyncs += 1;
    this.#send({ action: "resync", symbols: gaps.map((gap) => gap.symbol), id: RESYNC_ID });
    this.#repair();
  }

  /** Tell the page to ask `GET /bars` for bars that the client cannot have got. */
  #tellMissedBars() {
    for (const [timeframe, symbols] of this.#bars) {
      for (const symbol of symbols) this.#emit("bars_missed", { symbol, timeframe });
    }
  }

  // ---------------------------------------------------------------- The heartbeat

  #beat() {
    clearInterval(this.#ticker);
    this.#tickedAt = Date.now();
    this.#unanswered = 0;
    this.#quietTicks = 0;
    this.#ticker = setInterval(() => this.#tick(), TICK);
  }

  #tick() {
    const now = Date.now();
    const jumped = Math.abs(now - this.#tickedAt - TICK) > JUMP;
    this.#tickedAt = now;
    this.#quietTicks += 1;
    this.#resyncs = RESYNC_RATE;
    for (const gap of this.#book.gaps.values()) gap.patience = Math.max(0, gap.patience - 1);
    this.#repair();
    if (this.#unanswered === null) {
      if (jumped || this.#quietTicks >= PING_AFTER) this.#ping();
      // Until the answer comes, nobody knows if the connection outlived the sleep.
      if (jumped) this.#unanswered = STALE_AFTER;
    } else {
      this.#unanswered += 1;
    }
    if (this.#unanswered >= DEAD_AFTER) {
      this.#lose({ code: "no_answer", message: "The server does not answer." });
    } else {
      this.#refresh();
    }
  }

  #ping() {
    this.#quietTicks = 0;
    this.#unanswered ??= 0;
    this.#pingedAt = Date.now();
    this.#send({ action: "ping", id: PING_ID });
  }

  // ---------------------------------------------------------------- Sleep

  /** Follow the visibility of the tab and the state of the network, where there are such. */
  #watch() {
    if (this.#unwatch || typeof document === "undefined") return;
    let hiding = 0;
    const listeners = [
      [document, "visibilitychange", () => {
        clearTimeout(hiding);
        if (document.visibilityState === "visible") this.#wake("hidden");
        else hiding = setTimeout(() => this.#sleep("hidden"), HIDDEN_FOR);
      }],
      [document, "freeze", () => this.#sleep("hidden")],
      [document, "resume", () => this.#wake("hidden")],
      [globalThis, "pagehide", () => this.#sleep("hidden")],
      [globalThis, "pageshow", () => this.#wake("hidden")],
      [globalThis, "offline", () => this.#isLocal() || this.#sleep("offline")],
      [globalThis, "online", () => this.#wake("offline")],
    ];
    for (const [target, type, listener] of listeners) target.addEventListener(type, listener);
    this.#unwatch = () => {
      clearTimeout(hiding);
      for (const [target, type, listener] of listeners) target.removeEventListener(type, listener);
    };
  }

  /** Return whether the server is on this machine, which no network is needed for. */
  #isLocal() {
    const { hostname } = new URL(this.#options.url, globalThis.location?.href);
    return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
  }

  #sleep(cause) {
    if (this.#state === "closed") return;
    this.#asleep.add(cause);
    this.#disconnect();
    const [first] = this.#asleep;
    this.#become("sleeping", { code: first, message: SLEEPS[first] });
  }

  #wake(cause) {
    if (!this.#asleep.delete(cause) || this.#state === "closed") return;
    const [next] = this.#asleep;
    if (next) this.#become("sleeping", { code: next, message: SLEEPS[next] });
    else this.#open();
  }
}

// -------------------------------------------------------------------- The quotes that a client holds

/** Quotes and versions by symbol, and what is missing. It outlives its connections and does no I/O. */
class Book {
  quotes = new Map();
  versions = new Map();
  gaps = new Map();
  doubted = new Set();
  epoch = "";
  #proven = new Set();
  #tell;

  /** `tell(type, detail)` hears of each `change`, `removed` and `missed`. */
  constructor(tell) {
    this.#tell = tell;
  }

  get missed() {
    let count = 0;
    for (const gap of this.gaps.values()) count += gap.count;
    return count;
  }

  /** Take in a full quote. Return whether it is an update of the quote that was held. */
  full(symbol, version, quote, epoch) {
    whole(version);
    const news = version > this.versions.get(symbol);
    this.versions.set(symbol, version);
    if (epoch && epoch !== this.epoch) {
      this.epoch = epoch;
      this.#proven.clear();
    }
    if (epoch) this.#proven.add(symbol);
    this.doubted.delete(symbol);
    const repaired = this.gaps.delete(symbol);
    this.#show(symbol, quote);
    if (repaired) this.#tellMissed();
    return news;
  }

  /** Take in a change, which follows the version `since`. Without `quote`, none is held. */
  change(symbol, version, since, quote, selected) {
    whole(version);
    whole(since);
    const held = this.versions.get(symbol);
    if (!(since <= held && held < version)) {
      const from = held === undefined || held >= since ? since : held + 1;
      // Of chosen fields, only the update at `since` is certain to have been sent.
      this.doubt(symbol, from, since, selected ? 1 : since - from + 1);
    }
    this.versions.set(symbol, version);
    if (quote) this.#show(symbol, quote);
  }

  /** Note that updates of a symbol are missing. */
  doubt(symbol, from, to, count = 1) {
    const gap = this.gaps.get(symbol);
    if (gap) Object.assign(gap, { to, count: gap.count + count, patience: 0 });
    else this.gaps.set(symbol, { symbol, from, to, count, patience: 0 });
    this.#proven.delete(symbol);
    this.#tellMissed();
  }

  /** Take a quote away; `renamedTo` is its new symbol. */
  remove(symbol, renamedTo = null) {
    this.quotes.delete(symbol);
    this.versions.delete(symbol);
    this.#proven.delete(symbol);
    this.doubted.delete(symbol);
    const repaired = this.gaps.delete(symbol);
    this.#tell("removed", { symbol, renamedTo });
    if (repaired) this.#tellMissed();
  }

  /** Take away the quotes of these symbols, if there are such. */
  drop(symbols) {
    for (const symbol of symbols) if (this.versions.has(symbol)) this.remove(symbol);
  }

  /** Take away all quotes but those of `symbols`. */
  keep(symbols) {
    this.drop([...this.versions.keys()].filter((symbol) => !symbols.has(symbol)));
  }

  /** Trust no version any more, as the next connection has other fields. */
  distrust() {
    this.#proven.clear();
  }

  /** Doubt all quotes of the last connection. The full quotes of all gaps come without a command. */
  reconnected() {
    this.doubted = new Set(this.quotes.keys());
    for (const gap of this.gaps.values()) gap.patience = Infinity;
  }

  /** Take in what `resume` sends: only the quotes that are named stay. */
  recovered(results) {
    this.keep(new Set(Object.keys(results)));
    for (const [symbol, result] of Object.entries(results)) if (result !== "quote") this.doubted.delete(symbol);
  }

  /** Return the escaped value of `resume`, with as many versions as have `room`. */
  position(room) {
    let text = "";
    for (const symbol of this.#proven) {
      if (symbol.includes(",") || !this.quotes.has(symbol)) continue;
      const part = escaped(`${text ? "," : `${this.epoch}:`}${symbol}=${this.versions.get(symbol)}`);
      if (text.length + part.length > room) break;
      text += part;
    }
    return text;
  }

  #show(symbol, quote) {
    const old = this.quotes.get(symbol) ?? {};
    this.quotes.set(symbol, Object.freeze(quote));
    const names = new Set([...Object.keys(quote), ...Object.keys(old)]);
    const changed = [...names].filter((name) => own(quote, name) !== own(old, name));
    this.#tell("change", { symbol, quote, changed, version: this.versions.get(symbol) });
  }

  #tellMissed() {
    this.#tell("missed", { missed: this.missed });
  }
}

/**
 * Puts one connection's messages about quotes, of all forms, into a book. It returns what it did:
 * `ts`, whether there were `news`, the symbols that `arrived` or were `removed`, and `renamed` ones.
 */
class Decoder {
  #book;
  #selected;
  #fields = null;
  #derived = [];

  /** `selected`: the client asked for certain fields only. */
  constructor(book, selected) {
    this.#book = book;
    this.#selected = selected;
  }

  schema({ fields, derived = [] }) {
    this.#fields = fields;
    this.#derived = derived;
  }

  /** A later server may send other kinds of arrays, and more elements. */
  compact([kind, ...parts]) {
    if (kind === "s") return this.#full(...parts);
    if (kind === "u") return this.#changes(...parts);
    if (kind === "d") return this.#removal(...parts);
    return {};
  }

  #full(epoch, ts, rows) {
    let news = false;
    for (const [symbol, version, mask, ...values] of rows) {
      const quote = this.#selected ? {} : { symbol };
      for (const field of this.#fields) put(quote, field, null);
      this.#read(quote, mask, values, ts);
      news = this.#book.full(symbol, version, quote, epoch) || news;
    }
    return { ts, news, arrived: rows.map(([symbol]) => symbol) };
  }

  #changes(ts, rows) {
    for (const [symbol, version, mask, ...values] of rows) {
      const held = this.#book.quotes.get(symbol);
      const quote = { ...held };
      this.#read(quote, mask, values, ts);
      const [since, now] = Array.isArray(version) ? version : [version - 1, version];
      this.#book.change(symbol, now, since, held && quote, this.#selected);
    }
    return { ts, news: true };
  }

  #removal(symbols, renamed = {}) {
    for (const symbol of symbols) this.#book.remove(symbol, own(renamed, symbol));
    return { removed: symbols, renamed };
  }

  /** Set the fields of a row, and those that follow from them. A later server may send more values. */
  #read(quote, mask, values, ts) {
    const present = this.#fields.filter((_, bit) => (mask / 2 ** bit) & 1);
    if (values.length < present.length) throw new RangeError("a row has too few values");
    present.forEach((field, place) => {
      const value = values[place];
      put(quote, field, field === "last_updated" && value !== null ? timeText(ts + value) : value);
    });
    if (this.#derived.includes("change")) quote.change = changeOf(quote);
    if (this.#derived.includes("change_percent")) quote.change_percent = percentOf(quote);
  }

  /** Apply a `quotes_patch`: to a document that has only the quotes that it names. */
  patch({ ts, operations, versions, since = {}, epoch, renamed = {} }) {
    const named = new Set(Object.keys(versions));
    const entire = new Set();
    for (const { op, path, from } of operations) {
      for (const pointer of from === undefined ? [path] : [path, from]) {
        const [, symbol, field] = tokens(pointer);
        for (const each of symbol === undefined ? this.#book.quotes.keys() : [symbol]) {
          named.add(each);
          if (field === undefined && op !== "test") entire.add(each);
        }
      }
    }
    const held = [...named].filter((symbol) => this.#book.quotes.has(symbol));
    let document = { quotes: {} };
    for (const symbol of held) put(document.quotes, symbol, structuredClone(this.#book.quotes.get(symbol)));
    const failed = new Set();
    for (const operation of operations) {
      try {
        document = applyOperation(document, operation);
      } catch {
        failed.add(tokens(operation.path)[1]);
      }
    }
    return this.#patched(document.quotes, { ts, named, entire, failed, versions, since, epoch, renamed });
  }

  #patched(quotes, { ts, named, entire, failed, versions, since, epoch, renamed }) {
    const done = { ts, news: false, arrived: [], removed: [], renamed };
    for (const symbol of named) {
      const quote = own(quotes, symbol);
      const version = own(versions, symbol) ?? this.#book.versions.get(symbol);
      if (entire.has(symbol) && quote === undefined) {
        this.#book.remove(symbol, own(renamed, symbol));
        done.removed.push(symbol);
      } else if (entire.has(symbol)) {
        done.news = this.#book.full(symbol, version, quote, epoch) || done.news;
        done.arrived.push(symbol);
      } else if (Object.hasOwn(versions, symbol)) {
        this.#book.change(symbol, version, own(since, symbol) ?? version - 1, quote, this.#selected);
        done.news = true;
      }
      // An operation failed though no version is missing: only the full quote helps.
      if (failed.has(symbol) && !this.#book.gaps.has(symbol)) this.#book.doubt(symbol, version, version);
    }
    return done;
  }
}

/** Return `current_price - base_price` with the decimals that these two show, or null. */
function changeOf({ current_price: price = null, base_price: base = null }) {
  if (price === null || base === null) return null;
  return rounded(price - base, Math.max(shownDecimals(price), shownDecimals(base)));
}

/** Return the change in percent with four decimals, or null: there is none from a base of zero. */
function percentOf({ current_price: price = null, base_price: base = null }) {
  if (price === null || base === null || base <= 0) return null;
  return rounded(((price - base) * 100) / base, 4);
}

function shownDecimals(number) {
  const [digits, exponent = "0"] = String(number).split("e");
  return Math.max(0, (digits.split(".")[1] ?? "").length - Number(exponent));
}

/** Round as the server does: to the nearest, of two equally near to the even one, and never to -0. */
function rounded(number, decimals) {
  let text = number.toFixed(Math.min(decimals, 100));
  // `toFixed` is exact, but rounds ties away from zero. A tie is an odd multiple of this power of two.
  const halves = number * 2 ** (decimals + 1);
  const odd = Number(text.at(-1)) % 2;
  if (odd && Number.isInteger(halves) && halves % 2 !== 0) text = text.slice(0, -1) + (text.at(-1) - 1);
  return Number(text) + 0;
}

/** Return microseconds since 1970 as the server writes them in JSON: RFC 3339 in UTC. */
function timeText(microseconds) {
  const fraction = ((microseconds % 1e6) + 1e6) % 1e6;
  const seconds = new Date((microseconds - fraction) / 1000).toISOString().slice(0, 19);
  return `${seconds}${fraction ? `.${String(fraction).padStart(6, "0")}` : ""}Z`;
}

// -------------------------------------------------------------------- JSON Patch (RFC 6902)

/** Return `document` with all operations applied. It throws, and changes nothing, if one fails. */
export function applyPatch(document, operations) {
  return operations.reduce(applyOperation, structuredClone(document));
}

/** Apply one operation in place, and return the document, which may be another one. */
function applyOperation(document, { op, path, from, value }) {
  const target = tokens(path);
  if (value === undefined && ["add", "replace", "test"].includes(op)) throw new Error("an operation has no value");
  switch (op) {
    case "add":
      return insert(document, target, structuredClone(value));
    case "replace":
      if (target.length === 0) return structuredClone(value);
      return insert(cut(document, target), target, structuredClone(value));
    case "remove":
      return cut(document, target);
    case "test":
      if (!equal(find(document, target), value)) throw new Error(`${path} has another value`);
      return document;
    case "copy":
      return insert(document, target, structuredClone(find(document, tokens(from))));
    case "move": {
      if (path.startsWith(`${from}/`)) throw new Error(`${from} cannot move into itself`);
      const source = tokens(from);
      const moved = find(document, source);
      return insert(cut(document, source), target, moved);
    }
    default:
      throw new Error(`${op} is not an operation`);
  }
}

/** Return the parts of a JSON Pointer (RFC 6901). */
function tokens(pointer) {
  if (!/^(\/([^~]|~[01])*)?$/.test(pointer)) throw new Error(`${pointer} is not a JSON Pointer`);
  return pointer.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function find(document, path) {
  return path.reduce((node, key) => {
    if (!has(node, key)) throw new Error(`there is nothing at ${key}`);
    return node[key];
  }, document);
}

/** Return whether an object has a member of its own, or an array an element. */
function has(node, key) {
  if (Array.isArray(node)) return /^(0|[1-9][0-9]*)$/.test(key) && Number(key) < node.length;
  return typeof node === "object" && node !== null && Object.hasOwn(node, key);
}

function insert(document, path, value) {
  if (path.length === 0) return value;
  const node = find(document, path.slice(0, -1));
  const key = path.at(-1);
  if (Array.isArray(node)) {
    if (key !== "-" && key !== String(node.length) && !has(node, key)) throw new Error(`${key} is not an index`);
    node.splice(key === "-" ? node.length : Number(key), 0, value);
  } else if (typeof node === "object" && node !== null) {
    put(node, key, value);
  } else {
    throw new Error(`there is no place for ${key}`);
  }
  return document;
}

function cut(document, path) {
  if (path.length === 0) return null;
  const node = find(document, path.slice(0, -1));
  const key = path.at(-1);
  if (!has(node, key)) throw new Error(`there is nothing at ${key}`);
  if (Array.isArray(node)) node.splice(Number(key), 1);
  else delete node[key];
  return document;
}

function equal(one, other) {
  if (one === other) return true;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const keys = Object.keys(one);
  return keys.length === Object.keys(other).length && keys.every((key) => has(other, key) && equal(one[key], other[key]));
}

/** Set a member of an object. An assignment to `__proto__` would change its prototype. */
function put(object, key, value) {
  if (key !== "__proto__") object[key] = value;
  else Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

/** Return a member that an object has itself, so that `toString` is a symbol like any other. */
function own(object, key) {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

// -------------------------------------------------------------------- MessagePack

const MAX_DEPTH = 16;
const UTF8 = new TextDecoder("utf-8", { fatal: true });

/** Read one MessagePack value of the types that the server sends. It throws if the bytes are not one. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  let place = 0;

  const take = (size) => {
    if (size > view.byteLength - place) throw new RangeError("MessagePack ends too early");
    place += size;
    return place - size;
  };
  const text = (size) => UTF8.decode(new Uint8Array(buffer, take(size), size));
  const array = (size, depth) => {
    // Each element has a byte at least, so a wrong size cannot ask for much memory.
    if (size > view.byteLength - place) throw new RangeError("MessagePack ends too early");
    return Array.from({ length: size }, () => value(depth + 1));
  };
  const map = (size, depth) => {
    const members = {};
    for (let each = 0; each < size; each += 1) put(members, String(value(depth + 1)), value(depth + 1));
    return members;
  };

  const value = (depth) => {
    if (depth > MAX_DEPTH) throw new RangeError("MessagePack is nested too deeply");
    const kind = view.getUint8(take(1));
    if (kind < 0x80) return kind;
    if (kind < 0x90) return map(kind & 0x0f, depth);
    if (kind < 0xa0) return array(kind & 0x0f, depth);
    if (kind < 0xc0) return text(kind & 0x1f);
    if (kind >= 0xe0) return kind - 0x100;
    switch (kind) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xca: return view.getFloat32(take(4));
      case 0xcb: return view.getFloat64(take(8));
      case 0xcc: return view.getUint8(take(1));
      case 0xcd: return view.getUint16(take(2));
      case 0xce: return view.getUint32(take(4));
      case 0xcf: return Number(view.getBigUint64(take(8)));
      case 0xd0: return view.getInt8(take(1));
      case 0xd1: return view.getInt16(take(2));
      case 0xd2: return view.getInt32(take(4));
      case 0xd3: return Number(view.getBigInt64(take(8)));
      case 0xd9: return text(view.getUint8(take(1)));
      case 0xda: return text(view.getUint16(take(2)));
      case 0xdb: return text(view.getUint32(take(4)));
      case 0xdc: return array(view.getUint16(take(2)), depth);
      case 0xdd: return array(view.getUint32(take(4)), depth);
      case 0xde: return map(view.getUint16(take(2)), depth);
      case 0xdf: return map(view.getUint32(take(4)), depth);
      default: throw new RangeError(`MessagePack of an unknown type ${kind}`);
    }
  };

  const whole = value(0);
  if (place !== view.byteLength) throw new RangeError("MessagePack goes on behind its value");
  return whole;
}

/** Write a command: an object of texts, whole numbers and arrays of texts. */
function pack(value) {
  const bytes = [];
  const head = (size, short, limit, code) => {
    if (size < limit) bytes.push(short | size);
    else bytes.push(code, size >> 8, size & 0xff);
  };
  const write = (each) => {
    if (typeof each === "string") {
      const encoded = new TextEncoder().encode(each);
      head(encoded.length, 0xa0, 32, 0xda);
      bytes.push(...encoded);
    } else if (Array.isArray(each)) {
      head(each.length, 0x90, 16, 0xdc);
      each.forEach(write);
    } else if (typeof each === "object") {
      bytes.push(0x80 | Object.keys(each).length);
      Object.entries(each).flat().forEach(write);
    } else {
      bytes.push(0xce, each >>> 24, (each >>> 16) & 0xff, (each >>> 8) & 0xff, each & 0xff);
    }
  };
  write(value);
  return Uint8Array.from(bytes);
}

// -------------------------------------------------------------------- Small helpers

/** Return symbols in their only spelling, each once. */
function normalized(symbols) {
  return [...new Set([...symbols].map((symbol) => String(symbol).trim().toUpperCase()))];
}

/** Return a duration as the server reads it, from text or milliseconds. */
function duration(interval) {
  return typeof interval === "number" ? `${Math.round(interval)}ms` : String(interval);
}

/** Return text for a query, in which `,`, `:`, `=` and `*` need no escape. */
function escaped(text) {
  return encodeURIComponent(text).replace(/%(2C|3A|3D)/g, decodeURIComponent);
}

/** Check that a value of a message is a number as versions are. */
function whole(value) {
  if (!Number.isSafeInteger(value)) throw new TypeError(`${value} is not a whole number`);
}

/** Check that a value of a message is text. */
function text(value) {
  if (typeof value !== "string") throw new TypeError(`${value} is not text`);
}

/** Return a promise that may fail unnoticed: the event `error` tells of each refusal. */
function quiet(promise) {
  promise.catch(() => {});
  return promise;
}
