/**
 * The browser's client of quotestream: live quotes of a server, kept right across lost connections.
 *
 *     import { connect } from "/quotes.js";
 *     const quotes = connect({ url: "wss://quotes.example/ws/quotes", symbols: ["AAPL"] });
 *     quotes.addEventListener("change", ({ detail }) => console.log(detail.symbol, detail.quote));
 *
 * It has no dependencies and needs no build. It also runs in Node 22. quotes.d.ts describes each
 * member and its type, and docs/browsers.md shows a whole page.
 *
 * `Quotes` is the connection, `Book` holds the quotes, and `Decoder` reads the forms of messages.
 */

// -------------------------------------------------------------------- Constants

const PREFIX = "quotestream.v1.";

// The wait before a reconnection is random, below a limit that doubles from the first of these
// milliseconds to the longest. The limit starts over after a connection that lasted for LASTING.
const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;
const LASTING = 10_000;

// A server may ask a client to stay away for this time at most. A longer one is a mistake.
const LONGEST_ASKED = 3_600_000;

// A client comes back to a server that is full, or that limits it, after a time between these.
const BUSY_FROM = 1000;
const BUSY_TO = 5000;

// The heartbeat counts ticks of a second, as a clock may jump. After these numbers of ticks, the
// client sends a ping, tells that no answer came, and gives the connection up.
const TICK = 1000;
const PING_AFTER = 10;
const STALE_AFTER = 3;
const DEAD_AFTER = 10;

// A tick that comes this late tells that the machine slept, or that its clock was set.
const JUMP = 5000;

// A tab that is hidden for this time gives up its connection. A quick look elsewhere costs nothing.
const HIDDEN_FOR = 30_000;

// A resync is repeated after REPAIR_AFTER ticks. At most RESYNC_RATE of them go out between two ticks.
const REPAIR_AFTER = 10;
const RESYNC_RATE = 20;

// The server takes 16 KiB in all, but nginx and Apache take 8 KiB for the line with the URL.
const MAX_URL = 8000;

// Of several failed handshakes, each eighth is without `resume`: a proxy may find the URL too long.
const RESUMING = 8;

// Symbols of one command. The server counts a command once for each 50 of them.
const MAX_SYMBOLS = 50;

// Kinds of rows whose fields the client remembers.
const MAX_MASKS = 256;

// The ids of the client's own commands. Those of a page have numbers.
const PING_ID = "ping";
const RESYNC_ID = "resync";

const NO_MORE_SYMBOLS = new Set(["unknown_symbol", "not_entitled"]);
const PASSING_ERRORS = new Set(["store_unavailable", "rate_limited"]);

// The states of a symbol's market in which it does not trade.
const MARKETS = new Set(["halted", "closed"]);

// The end of a refusal's text, if the server knows when to come back. A browser hides `Retry-After`.
const RETRY_AFTER = /; retry after (\d+) s$/;

// Close codes after which the same request is refused again, and those of a busy server.
const FINAL_CLOSES = new Set([4400, 4401, 4403]);
const BUSY_CLOSES = new Set([4409, 4429, 4503]);

// The reason's code after a close whose text does not begin with one.
const CLOSES = {
  1001: "going_away",
  4400: "bad_request",
  4401: "unauthorized",
  4403: "forbidden",
  4408: "no_answer",
  4429: "too_slow",
};

const SENTENCES = {
  // Why the connection ended, or could not be made.
  unreachable: "The server cannot be reached.",
  connection_lost: "The connection was lost.",
  going_away: "The server shuts down.",
  unauthorized: "The token is not valid any more.",
  no_answer: "The server does not answer.",
  too_slow: "This page reads too slowly. It should ask for fewer symbols, or throttle.",
  bad_options: "No connection can be made of this address and token.",
  closed: "The connection is closed.",
  // Why prices do not flow.
  feed_quiet: "No symbol has traded for a while.",
  feed_ended: "The feed has ended. There will be no more prices.",
  feed_failed: "The feed has failed. There will be no more prices.",
  bus_lost: "The server does not hear the other servers.",
  leader_lost: "The server does not hear the one that makes the prices.",
  session_closed: "The market is closed.",
  // Why the client sleeps.
  paused: "The page has paused the prices.",
  hidden: "The page is not visible.",
  offline: "The network is offline.",
};

/** Open a connection that lasts until `close()` or a final refusal. */
export function connect(options) {
  return new Quotes(options);
}

/** Why the server refused a command, or its part about `symbols`. */
export class QuotesError extends Error {
  constructor(code, message, symbols = []) {
    super(message);
    Object.assign(this, { name: "QuotesError", code, symbols });
  }
}

// -------------------------------------------------------------------- The connection

export class Quotes extends EventTarget {
  #book = new Book((type, detail, full) => this.#noted(type, detail, full));

  // Only the client writes these. quotes.d.ts says what they mean.
  quotes = this.#book.quotes;
  versions = this.#book.versions;
  state = "connecting";
  reason = null;
  retryAt = null;
  lag = null;
  format = null;
  status = null;
  statuses = new Map();
  interval = 0;
  overload = 0;
  stats = { messages: 0, bytes: 0, connects: 0, resumed: 0, resyncs: 0 };

  #options = {};
  #address;
  #wanted = new Set();
  #bars = new Map();

  // The connection. `#attempt` grows with each, so that late answers to earlier ones do not count.
  // `#unnamed`: the wanted symbols for which its URL had no room.
  #attempt = 0;
  #socket = null;
  #decoder = null;
  #acceptedAt = null;
  #unnamed = [];
  #token = null;
  #renewed = false;
  #failures = 0;
  #doublings = 0;
  #timer = 0;

  // The wait that the server asks for, in milliseconds from the end of this connection on. Afterwards:
  // the moment before which the client must not come back, its distance at first, and the reason.
  #asked = 0;
  #awayUntil = 0;
  #awayBy = 0;
  #awayFor = null;

  // Commands without a whole answer, by id.
  #pending = new Map();
  #lastId = 0;
  #throttle = null;
  #resyncs = RESYNC_RATE;

  // The heartbeat. `#unanswered` counts ticks since a ping; null: it was answered.
  #ticker = 0;
  #tickedAt = 0;
  #quiet = 0;
  #unanswered = null;
  #pingedAt = 0;
  #offset = null;

  // The reasons to sleep.
  #asleep = new Set();
  #unwatch = null;

  constructor(options) {
    super();
    this.#set(options);
    this.#watch();
    this.#open();
  }

  get epoch() {
    return this.#book.epoch;
  }

  get missed() {
    return this.gaps.reduce((sum, gap) => sum + gap.count, 0);
  }

  get gaps() {
    const gaps = [...this.#book.gaps.values()];
    return gaps.map(({ symbol, from, to, count }) => ({ symbol, from, to, count }));
  }

  get behind() {
    return [...new Set([...this.#book.gaps.keys(), ...this.#book.doubted])];
  }

  get symbols() {
    return [...this.#wanted];
  }

  get askedUntil() {
    const away = this.#away();
    return away > 0 ? Date.now() + away : null;
  }

  subscribe(symbols) {
    return this.#inParts({ action: "subscribe" }, "symbols", symbols);
  }

  unsubscribe(symbols) {
    return this.#inParts({ action: "unsubscribe" }, "symbols", symbols);
  }

  throttle(interval) {
    this.#throttle = duration(interval);
    return this.#command({ action: "throttle", interval: this.#throttle });
  }

  bars(symbols, timeframe = "1m") {
    return this.#inParts({ action: "subscribe", timeframe }, "bars", symbols);
  }

  unbars(symbols, timeframe = "1m") {
    return this.#inParts({ action: "unsubscribe", timeframe }, "bars", symbols);
  }

  pause() {
    this.#sleep("paused");
  }

  resume() {
    this.#wake("paused");
  }

  close() {
    this.#finish(null);
  }

  reconnect(overrides = {}) {
    this.#set(overrides);
    this.#renewed = false;
    this.#failures = this.#doublings = 0;
    this.#watch();
    this.#disconnect();
    if (this.#asleep.size === 0) this.#comeBack();
  }

  /** Yield changes. A slow reader gets one change of each symbol, with all fields that changed. */
  async *[Symbol.asyncIterator]() {
    const newest = new Map();
    let wake = () => {};
    const look = () => wake();
    const note = ({ detail }) => {
      const changed = new Set([...(newest.get(detail.symbol)?.changed ?? []), ...detail.changed]);
      newest.set(detail.symbol, { ...detail, changed: [...changed] });
      wake();
    };
    this.addEventListener("change", note);
    this.addEventListener("state", look);
    try {
      for (;;) {
        for (const [symbol, change] of newest) {
          newest.delete(symbol);
          yield change;
        }
        if (this.state === "closed" && this.reason === null) return;
        if (this.state === "closed") throw new QuotesError(this.reason.code, this.reason.message);
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      this.removeEventListener("change", note);
      this.removeEventListener("state", look);
    }
  }

  /** Take in options, which hold from the next connection on. */
  #set(options) {
    const { fields } = this.#options;
    const host = this.#address?.host;
    this.#address = new URL(options.url ?? this.#options.url, globalThis.location?.href);
    // Another server has not asked for anything.
    if (host !== this.#address.host) this.#asked = this.#awayUntil = 0;
    Object.assign(this.#options, options);
    this.#address.protocol = this.#address.protocol.replace("http", "ws");
    this.#address.hash = "";
    if ("getToken" in options) this.#token = null;
    // A position is good for the same fields only.
    if (String(fields) !== String(this.#options.fields)) this.#book.distrust();
    if (!options.symbols) return;
    this.#wanted = new Set(normalized(options.symbols));
    if (!this.#wanted.has("*")) this.#book.keep(this.#wanted);
  }

  async #open() {
    const attempt = ++this.#attempt;
    this.#become("connecting", this.reason);
    let token;
    try {
      this.#token ??= this.#askForToken();
      token = await this.#token;
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this.#retry(noToken(error));
      return;
    }
    // The page may have closed, paused or reconnected while it looked for the token.
    if (attempt !== this.#attempt) return;
    const forms = new Set([this.#options.format ?? "compact", "json"]);
    const protocols = [...forms].map((form) => PREFIX + form);
    if (token) protocols.push(`bearer.${token}`);
    const url = this.#request();
    try {
      const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
      this.#socket = new Socket(url, protocols);
    } catch {
      // The browser's own message may repeat the token.
      this.#finish(reason("bad_options"));
      return;
    }
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = ({ data }) => this.#received(data);
    this.#socket.onclose = ({ code, reason: text }) => this.#ended(code, text);
    this.#beat();
  }

  /** Ask for a token. The wait that a refusal names counts from the refusal on, whatever the state. */
  #askForToken() {
    const ask = async () => (await this.#options.getToken?.()) ?? "";
    const asked = ask();
    asked.catch((error) => {
      // A newer source of tokens may have been set meanwhile.
      if (asked === this.#token) this.#noteNoToken(error);
    });
    return asked;
  }

  #noteNoToken(error) {
    this.#token = null;
    if (!(error?.retryAfter > 0)) return;
    this.#stayAway(Math.min(error.retryAfter, LONGEST_ASKED));
    this.#awayFor = noToken(error);
    const isEarly = this.state === "waiting" && this.retryAt - Date.now() < this.#away();
    if (!isEarly) return;
    clearTimeout(this.#timer);
    this.#comeBack();
  }

  /** Return the next URL. Note the symbols for which it has no room. */
  #request() {
    const { fields, interval } = this.#options;
    const parts = ["refuse=close"];
    if (fields?.length) parts.push(`fields=${escaped(fields.join())}`);
    if (interval !== undefined) parts.push(`interval=${escaped(duration(interval))}`);
    const start = `${this.#address}${this.#address.search ? "&" : "?"}`;
    let room = MAX_URL - start.length - parts.join().length - "&symbols=&resume=".length;
    const named = [];
    this.#unnamed = [];
    for (const symbol of this.#wanted) {
      room -= escaped(symbol).length + 1;
      (room > 0 ? named : this.#unnamed).push(symbol);
    }
    if (named.length) parts.push(`symbols=${escaped(named.join())}`);
    const resumes = this.#failures % RESUMING !== RESUMING - 1;
    const position = resumes ? this.#book.position(room) : "";
    if (position) parts.push(`resume=${position}`);
    return start + parts.join("&");
  }

  #opened() {
    const { protocol } = this.#socket;
    this.format = protocol.startsWith(PREFIX) ? protocol.slice(PREFIX.length) : "json";
    this.#decoder = new Decoder(this.#book, Boolean(this.#options.fields?.length));
    this.#book.reconnected();
    // The answer tells that the server accepted this client, and what its clock says.
    this.#ping();
    this.#inParts({ action: "subscribe" }, "symbols", this.#unnamed, true);
    for (const [timeframe, symbols] of this.#bars) {
      this.#inParts({ action: "subscribe", timeframe }, "bars", symbols, true);
    }
    this.#tellMissedBars();
    for (const { command, isAsked, own } of this.#pending.values()) {
      if (!isAsked && !own) this.#send(command);
    }
  }

  #received(data) {
    const arrived = Date.now();
    const waited = this.#unanswered;
    this.stats.messages += 1;
    this.stats.bytes += data.length ?? data.byteLength;
    this.#quiet = 0;
    this.#unanswered = null;
    try {
      const message = this.format === "msgpack" ? unpack(data) : JSON.parse(data);
      text(message[0] ?? message.type);
      if (Array.isArray(message)) this.#quoted(this.#decoder.compact(message), arrived);
      else this.#told(message, arrived);
    } catch (error) {
      // A listener may have ended the connection meanwhile.
      if (!this.#socket) return;
      this.#retry({ code: "bad_message", message: `The server sent nonsense: ${error.message}.` });
      return;
    }
    if (waited >= STALE_AFTER) this.#refresh();
  }

  /** Take in a message that is an object. Those of unknown types are a later server's. */
  #told(message, arrived) {
    const { type, ...detail } = message;
    switch (type) {
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
        whole(message.after_ms);
        this.#asked = message.after_ms;
        return;
      case "pong":
        this.#offset = message.ts / 1000 - (this.#pingedAt + arrived) / 2;
        return this.#accepted();
      case "bar":
      case "bars_end":
      case "bars_missed":
        this.#emit(type, detail);
    }
  }

  /** Measure how old an update is; `ts` is null for quotes that are older than the connection. */
  #quoted(ts, arrived) {
    if (ts !== null && this.#offset !== null) {
      this.lag = Math.max(0, arrived + this.#offset - ts / 1000);
    }
    this.#repair();
  }

  /** Follow what a message did to the quotes. A full quote may be one that a rename brought. */
  #noted(type, detail, full) {
    const { symbol, renamedTo } = detail;
    if (full && !this.#wanted.has("*")) this.#wanted.add(symbol);
    if (type === "removed") {
      this.statuses.delete(symbol);
      for (const symbols of [this.#wanted, ...this.#bars.values()]) {
        if (renamedTo && symbols.delete(symbol)) symbols.add(renamedTo);
      }
      this.#wanted.delete(symbol);
    }
    this.#emit(type, detail);
  }

  #accepted() {
    if (this.#acceptedAt === null) this.stats.connects += 1;
    this.#acceptedAt ??= Date.now();
    this.#renewed = false;
    this.#failures = 0;
    this.#awayFor = null;
    // The server answers in order. So it has said all about the request, and about begun commands.
    for (const [id, { isAsked, isBegun }] of this.#pending) if (isAsked || isBegun) this.#settle(id);
    this.#refresh();
  }

  /** Take in `status`: of all prices, or of one symbol's. */
  #marked(message) {
    const flows = message.status === "live" || message.status === "open";
    if (message.interval !== undefined) this.overload = message.interval;
    for (const symbol of message.symbols ?? []) {
      // A market that is halted is quiet as well. Only `open` ends that.
      const isHalted = MARKETS.has(this.statuses.get(symbol)?.status);
      if (isHalted && (message.status === "live" || message.status === "stale")) continue;
      if (flows) this.statuses.delete(symbol);
      else this.statuses.set(symbol, message);
    }
    if (!message.symbols) {
      // While prices did not flow, bars may have been lost as well.
      if (flows && this.status?.status === "stale") this.#tellMissedBars();
      this.status = message;
    }
    this.#emit("status", message);
    this.#refresh();
  }

  /** Choose the state of an open connection. */
  #refresh() {
    if (this.#acceptedAt === null) return;
    const { status = "live", reason: code, next_open: opening } = this.status ?? {};
    if (this.#unanswered >= STALE_AFTER) {
      this.#become("stale", reason("no_answer"));
    } else if (status === "live" || status === "open") {
      this.#become("live", null);
    } else {
      const { message } = reason(code, `Prices are ${status}: ${code}.`);
      const then = opening ? ` It opens at ${opening}.` : "";
      this.#become("stale", { code, message: message + then });
    }
  }

  /** Go on after the server closed the connection, or none could be made. */
  #ended(code, words) {
    const [, named, message] = /^([a-z_]+): (.*)$/s.exec(words) ?? [];
    const lost = this.#acceptedAt === null ? "unreachable" : "connection_lost";
    const known = own(CLOSES, code);
    let why = known ? reason(known, words) : { code: lost, message: words || SENTENCES[lost] };
    if (named) why = { code: named, message: message.replace(RETRY_AFTER, "") };
    const renewable = code === 4401 && this.#options.getToken && !this.#renewed;
    if (FINAL_CLOSES.has(code) && !renewable) {
      this.#finish(why);
      return;
    }
    if (renewable) {
      this.#renewed = true;
      this.#token = this.#askForToken();
    }
    if (BUSY_CLOSES.has(code)) this.#asked = Math.max(this.#asked, busyDelay(), askedBy(words));
    this.#retry(why);
  }

  /** Connect again after a random time, or the longer one that the server asked for. */
  #retry(why) {
    if (this.#acceptedAt === null) this.#failures += 1;
    else if (Date.now() - this.#acceptedAt >= LASTING) this.#doublings = 0;
    const limit = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#doublings);
    this.#doublings += 1;
    this.#disconnect();
    this.#awayFor = why;
    this.#wait(Math.max(Math.random() * limit, this.#away()), why);
  }

  /** Return the milliseconds for which the server asked this client to stay away, from now on. */
  #away() {
    // A clock that is set back must not make the wait longer.
    return Math.max(0, Math.min(this.#awayUntil - Date.now(), this.#awayBy));
  }

  #stayAway(milliseconds) {
    // Of two waits the longer one counts.
    if (milliseconds < this.#away()) return;
    this.#awayBy = milliseconds;
    this.#awayUntil = Date.now() + milliseconds;
  }

  #wait(milliseconds, why) {
    const end = () => {
      this.#awayUntil = 0;
      this.#open();
    };
    this.retryAt = Date.now() + milliseconds;
    // A timer may come a little early.
    this.#timer = setTimeout(end, milliseconds + 1);
    this.#become("waiting", why);
  }

  /** Connect now, or when the time is over for which the server asked. */
  #comeBack() {
    const away = this.#away();
    if (away > 0) this.#wait(away, this.#awayFor ?? reason("going_away"));
    else this.#open();
  }

  /** Forget the connection, and all that is true of it only. */
  #disconnect() {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#socket = this.#acceptedAt = this.#unanswered = this.#offset = null;
    this.retryAt = this.lag = this.format = this.status = null;
    if (this.#asked) this.#stayAway(Math.min(this.#asked, LONGEST_ASKED));
    this.#asked = this.overload = 0;
    this.statuses.clear();
    for (const [id, { own }] of this.#pending) {
      // The next connection makes the client's own commands anew.
      if (own) this.#pending.delete(id);
      else this.#askLater(id);
    }
  }

  /** End for good, with the reason of a refusal, or null. */
  #finish(why) {
    this.#disconnect();
    this.#unwatch?.();
    this.#unwatch = null;
    this.#asleep.clear();
    const { code, message } = why ?? reason("closed");
    for (const [id, { refusals, open }] of this.#pending) {
      refusals.push(new QuotesError(code, message, [...open]));
      this.#settle(id);
    }
    this.#become("closed", why);
  }

  #become(state, why) {
    const news = state !== this.state || why?.message !== this.reason?.message;
    this.state = state;
    this.reason = why;
    if (news) this.#emit("state", { state, reason: why, retryAt: this.retryAt });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // ------------------------------------------------------------------ Commands

  /** Send a command, now or with the next connection. `own`: the client itself needs it. */
  #command(fields, own = false) {
    if (this.state === "closed") {
      const { code, message } = reason("closed");
      return quiet(Promise.reject(new QuotesError(code, message)));
    }
    const id = ++this.#lastId;
    const command = { ...fields, id };
    const answer = new Promise((resolve, reject) => {
      this.#pending.set(id, { command, own, resolve, reject, ...unanswered(command) });
    });
    if (this.#socket) this.#send(command);
    else this.#askLater(id);
    return quiet(answer);
  }

  /**
   * Send a command in parts of which each fits a message. Return the answer to all of them, which fails
   * with all refused symbols.
   */
  #inParts(fields, name, symbols, own) {
    const all = normalized(symbols);
    const parts = [];
    for (let from = 0; from < all.length; from += MAX_SYMBOLS) {
      const part = all.slice(from, from + MAX_SYMBOLS);
      parts.push(this.#command({ ...fields, [name]: part }, own));
    }
    const join = async () => {
      const answers = await Promise.allSettled(parts);
      const refusals = answers.filter(({ status }) => status === "rejected");
      if (refusals.length) throw joined(refusals.map((each) => each.reason));
      return { ...fields, symbols: answers.flatMap(({ value }) => value.symbols) };
    };
    return quiet(join());
  }

  #send(command) {
    if (this.#socket?.readyState !== 1) return;
    this.#socket.send(this.format === "msgpack" ? pack(command) : JSON.stringify(command));
  }

  /** Leave it to the next request to ask for a command's symbols, or not to ask for them. */
  #askLater(id) {
    const pending = this.#pending.get(id);
    const { action, symbols } = pending.command;
    if (!symbols) {
      // The next connection gets the whole command.
      Object.assign(pending, unanswered(pending.command));
      this.#replaceEarlier(id);
      return;
    }
    Object.assign(pending, { ack: null, isAsked: true });
    want(this.#wanted, action, [...pending.open]);
    if (action === "subscribe") return;
    this.#book.drop(symbols.includes("*") ? [...this.quotes.keys()] : symbols);
    this.#settle(id);
  }

  /** Settle the waiting commands that a newer one repeats: they must not pile up in a long absence. */
  #replaceEarlier(id) {
    const key = kindOf(this.#pending.get(id).command);
    for (const [other, { command, isAsked, own }] of this.#pending) {
      if (other !== id && !isAsked && !own && kindOf(command) === key) this.#settle(other);
    }
  }

  /** Note what a part of the answer says of some symbols. A ping tells when the other parts are there. */
  #answered(id, symbols) {
    const pending = this.#pending.get(id);
    for (const symbol of symbols) pending.open.delete(symbol);
    pending.isBegun = true;
    if (pending.open.size === 0) this.#settle(id);
    else this.#ping();
  }

  /** Give a command's caller the answer: an error if the server refused any of its symbols. */
  #settle(id) {
    const { command, ack, refusals, resolve, reject } = this.#pending.get(id);
    this.#pending.delete(id);
    if (refusals.length) reject(joined(refusals));
    else resolve(ack ?? { action: command.action, symbols: symbolsOf(command) });
  }

  #acknowledged(message) {
    const { action, symbols = [], timeframe, id } = message;
    if (action === "resume") {
      this.stats.resumed += 1;
      this.#book.recovered(message.recovered, this.#unnamed);
    } else if (action === "throttle") {
      this.interval = message.interval;
      this.#options.interval = this.interval ? this.#throttle ?? this.#options.interval : undefined;
    } else if (timeframe) {
      if (!this.#bars.has(timeframe)) this.#bars.set(timeframe, new Set());
      want(this.#bars.get(timeframe), action, symbols);
    } else if (action === "subscribe" || action === "unsubscribe") {
      want(this.#wanted, action, symbols);
    }
    if (!this.#pending.has(id)) return;
    this.#pending.get(id).ack = message;
    this.#answered(id, symbols);
  }

  /** Take in `error`: the server refuses a command, or some symbols of it or of the request. */
  #refused({ type, ...detail }) {
    const { id, code, symbols = [] } = detail;
    if (NO_MORE_SYMBOLS.has(code) || (id === RESYNC_ID && code === "not_subscribed")) {
      for (const each of [this.#wanted, ...this.#bars.values()]) want(each, "unsubscribe", symbols);
      this.#book.drop(symbols);
    }
    if (id === PING_ID) this.#accepted();
    else if (this.#pending.has(id)) this.#refuse(id, detail);
    else if (id === undefined) this.#refuseAsked(detail);
    this.#emit("error", detail);
  }

  /** Take in the refusal of a command, or of some of its symbols. */
  #refuse(id, { code, message, symbols }) {
    const pending = this.#pending.get(id);
    const refused = symbols?.length ? symbols : [...pending.open];
    if (pending.command.action === "throttle") this.#throttle = null;
    if (pending.own && PASSING_ERRORS.has(code)) this.#askAgain(pending.command, refused);
    pending.refusals.push(new QuotesError(code, message, refused));
    this.#answered(id, refused);
  }

  /** Take in what the server refused of a request. Tell the callers whose symbols it asked for. */
  #refuseAsked({ code, message, symbols = [] }) {
    for (const [id, { isAsked, open, refusals }] of this.#pending) {
      const refused = isAsked ? symbols.filter((symbol) => open.delete(symbol)) : [];
      if (refused.length) refusals.push(new QuotesError(code, message, refused));
      if (refused.length && open.size === 0) this.#settle(id);
    }
    if (PASSING_ERRORS.has(code) && symbols.length) this.#askAgain({ action: "subscribe" }, symbols);
  }

  /** Ask for symbols again, which the server could not look up or not yet. */
  #askAgain({ action, timeframe }, symbols) {
    const [fields, name] = timeframe ? [{ action, timeframe }, "bars"] : [{ action }, "symbols"];
    this.#later(() => this.#inParts(fields, name, symbols, true));
  }

  /** Do something a little later, if the connection is still the same. */
  #later(action) {
    const socket = this.#socket;
    setTimeout(() => socket === this.#socket && action(), busyDelay());
  }

  /** Ask for the full quotes of symbols that missed an update, and again if none comes. */
  #repair() {
    if (this.#book.gaps.size === 0) return;
    const open = [...this.#book.gaps.values()].filter((gap) => gap.patience === 0);
    if (open.length === 0 || this.#resyncs === 0) return;
    const gaps = open.slice(0, MAX_SYMBOLS);
    for (const gap of gaps) gap.patience = REPAIR_AFTER;
    this.#resyncs -= 1;
    this.stats.resyncs += 1;
    this.#send({ action: "resync", symbols: gaps.map((gap) => gap.symbol), id: RESYNC_ID });
    this.#repair();
  }

  /** Tell the page to ask `GET /bars` for bars that this client cannot have got. */
  #tellMissedBars() {
    for (const [timeframe, symbols] of this.#bars) {
      for (const symbol of symbols) this.#emit("bars_missed", { symbol, timeframe });
    }
  }

  // ------------------------------------------------------------------ The heartbeat

  #beat() {
    this.#tickedAt = Date.now();
    this.#unanswered = this.#quiet = 0;
    this.#ticker = setInterval(() => this.#tick(), TICK);
  }

  #tick() {
    const late = Math.abs(Date.now() - this.#tickedAt - TICK);
    this.#tickedAt = Date.now();
    this.#resyncs = RESYNC_RATE;
    for (const gap of this.#book.gaps.values()) gap.patience = Math.max(0, gap.patience - 1);
    this.#repair();
    this.#quiet += 1;
    if (this.#unanswered !== null) {
      this.#unanswered += 1;
    } else if (late > JUMP) {
      // Until an answer comes, the client cannot know whether the connection outlived the sleep.
      this.#ping();
      this.#unanswered = STALE_AFTER;
    } else if (this.#quiet >= PING_AFTER) {
      this.#ping();
    }
    if (this.#unanswered >= DEAD_AFTER) this.#retry(reason("no_answer"));
    else this.#refresh();
  }

  #ping() {
    this.#unanswered ??= 0;
    this.#quiet = 0;
    this.#pingedAt = Date.now();
    this.#send({ action: "ping", id: PING_ID });
  }

  // ------------------------------------------------------------------ Sleep

  /** Follow the visibility of the tab and the state of the network, if there are such. */
  #watch() {
    if (this.#unwatch || typeof document === "undefined") return;
    let hiding = 0;
    const hide = () => this.#sleep("hidden");
    const look = () => {
      clearTimeout(hiding);
      if (document.visibilityState === "visible") this.#wake("hidden");
      else hiding = setTimeout(hide, HIDDEN_FOR);
    };
    const listeners = [
      [document, "visibilitychange", look],
      [document, "resume", look],
      [document, "freeze", hide],
      [globalThis, "pageshow", look],
      [globalThis, "pagehide", hide],
      [globalThis, "online", () => this.#wake("offline")],
      // A server on this machine needs no network.
      [globalThis, "offline", () => isLocal(this.#address) || this.#sleep("offline")],
    ];
    for (const [target, type, listener] of listeners) target.addEventListener(type, listener);
    this.#unwatch = () => {
      clearTimeout(hiding);
      for (const [target, type, listener] of listeners) target.removeEventListener(type, listener);
    };
    look();
  }

  #sleep(cause) {
    if (this.state === "closed") return;
    this.#asleep.add(cause);
    this.#disconnect();
    this.#tellSleep();
  }

  #wake(cause) {
    if (!this.#asleep.delete(cause)) return;
    if (this.#asleep.size === 0) this.#comeBack();
    else this.#tellSleep();
  }

  #tellSleep() {
    const [first] = this.#asleep;
    this.#become("sleeping", reason(first));
  }
}

/** Put symbols into a set, or take them out. `*` takes the place of all others. */
function want(wanted, action, symbols) {
  if (symbols.includes("*")) wanted.clear();
  for (const symbol of symbols) {
    if (action === "subscribe") wanted.add(symbol);
    else wanted.delete(symbol);
  }
}

/** Return the symbols that a command is about. */
function symbolsOf({ symbols, bars }) {
  return symbols ?? bars ?? [];
}

/** Return what is known of a command's answer at first. `open`: symbols of which nothing was said. */
function unanswered(command) {
  const open = new Set(symbolsOf(command));
  return { ack: null, refusals: [], open, isAsked: false, isBegun: false };
}

/** Return one error for several: of the first one's code, with the symbols of all. */
function joined([first, ...others]) {
  const symbols = [first, ...others].flatMap((each) => each.symbols);
  return new QuotesError(first.code, first.message, symbols);
}

/** Return what commands have in common of which only the newest counts. */
function kindOf({ action, timeframe, bars }) {
  return JSON.stringify([action, timeframe, bars]);
}

/** Return the reason with this code. `words` are for codes that this client does not know. */
function reason(code, words) {
  return { code, message: own(SENTENCES, code) ?? (words || `The server says ${code}.`) };
}

function busyDelay() {
  return BUSY_FROM + Math.random() * (BUSY_TO - BUSY_FROM);
}

/** Return the milliseconds for which a refusal asks, and up to a second more; 0 if it names none. */
function askedBy(words) {
  const [, seconds] = RETRY_AFTER.exec(words) ?? [];
  return seconds ? (Number(seconds) + Math.random()) * 1000 : 0;
}

function isLocal({ hostname }) {
  return ["localhost", "[::1]"].includes(hostname) || hostname.startsWith("127.");
}

/** Return symbols in their only spelling, each once. */
function normalized(symbols) {
  return [...new Set([...symbols].map((symbol) => String(symbol).trim().toUpperCase()))];
}

/** Return a duration as the server reads it, from text or milliseconds. */
function duration(interval) {
  return typeof interval === "number" ? `${Math.round(interval)}ms` : String(interval);
}

/** Return text for a query, in which `,`, `:` and `=` need no escape. */
function escaped(words) {
  return encodeURIComponent(words).replace(/%(2C|3A|3D)/g, decodeURIComponent);
}

function noToken(error) {
  return { code: "no_token", message: String(error) };
}

/** Return a promise that may fail unnoticed: the event `error` tells of each refusal, too. */
function quiet(promise) {
  promise.catch(() => {});
  return promise;
}

// -------------------------------------------------------------------- The quotes

/** Quotes and versions by symbol, and what is missing. It outlives its connections. */
class Book {
  quotes = new Map();
  versions = new Map();
  epoch = "";
  // Missing updates by symbol. `patience`: ticks until the client asks for the full quote (again).
  gaps = new Map();
  // The symbols of which the present connection has not said yet whether they moved meanwhile.
  doubted = new Set();
  // The symbols whose versions are certain, for `resume`.
  #proven = new Set();
  #tell;

  /** `tell(type, detail, full)` hears of each `change`, `removed` and `missed`. */
  constructor(tell) {
    this.#tell = tell;
  }

  /** Take in a full quote. Return whether it is an update of the one that was held. */
  full(symbol, version, quote, epoch) {
    whole(version);
    const news = version > this.versions.get(symbol);
    if (epoch && epoch !== this.epoch) {
      this.epoch = epoch;
      this.#proven.clear();
    }
    if (epoch) this.#proven.add(symbol);
    this.versions.set(symbol, version);
    this.#show(symbol, quote, true);
    this.#repaired(symbol);
    return news;
  }

  /** Take in a change that follows version `since`. Without a held one, there is no `quote`. */
  change(symbol, version, since, quote, selected) {
    whole(version);
    whole(since);
    const held = this.versions.get(symbol);
    if (!(since <= held && held < version)) {
      // Of chosen fields, only the update at `since` is certain to have been sent.
      const from = held < since && !selected ? held + 1 : since;
      this.doubt(symbol, from, since);
    }
    this.versions.set(symbol, version);
    if (quote) this.#show(symbol, quote, false);
  }

  /** Note that the updates `from` to `to` of a symbol are missing. */
  doubt(symbol, from, to) {
    const gap = this.gaps.get(symbol) ?? { symbol, from, count: 0 };
    this.gaps.set(symbol, { ...gap, to, count: gap.count + to - from + 1, patience: 0 });
    this.#proven.delete(symbol);
    this.#tell("missed", { symbol });
  }

  /** Take a quote away. */
  remove(symbol, renamedTo = null) {
    this.quotes.delete(symbol);
    this.versions.delete(symbol);
    this.#proven.delete(symbol);
    this.#tell("removed", { symbol, renamedTo });
    this.#repaired(symbol);
  }

  /** Take away those of these quotes that are held. */
  drop(symbols) {
    for (const symbol of symbols) if (this.versions.has(symbol)) this.remove(symbol);
  }

  /** Take away all quotes but those of `symbols`. */
  keep(symbols) {
    this.drop([...this.versions.keys()].filter((symbol) => !symbols.has(symbol)));
  }

  /** Prove no version to the next connection, which has other fields. */
  distrust() {
    this.#proven.clear();
  }

  /** Doubt all quotes. Those with gaps come without a command, as `position` does not have them. */
  reconnected() {
    this.doubted = new Set(this.quotes.keys());
    for (const gap of this.gaps.values()) gap.patience = Infinity;
  }

  /** Take in the answer to `resume`: what comes for each symbol. All others but `unnamed` are gone. */
  recovered(results, unnamed) {
    this.keep(new Set([...Object.keys(results), ...unnamed]));
    for (const [symbol, comes] of Object.entries(results)) {
      if (comes !== "quote") this.doubted.delete(symbol);
    }
  }

  /** Return the escaped value of `resume`, with as many versions as have `room`. */
  position(room) {
    let position = "";
    for (const symbol of this.#proven) {
      if (symbol.includes(",") || !this.quotes.has(symbol)) continue;
      const before = position ? "," : `${this.epoch}:`;
      const part = escaped(`${before}${symbol}=${this.versions.get(symbol)}`);
      if (position.length + part.length > room) break;
      position += part;
    }
    return position;
  }

  #show(symbol, quote, full) {
    const old = this.quotes.get(symbol) ?? {};
    const changed = Object.keys(quote).filter((name) => quote[name] !== old[name]);
    for (const name of Object.keys(old)) if (!Object.hasOwn(quote, name)) changed.push(name);
    this.quotes.set(symbol, Object.freeze(quote));
    const version = this.versions.get(symbol);
    this.#tell("change", { symbol, quote, changed, version }, full);
  }

  #repaired(symbol) {
    this.doubted.delete(symbol);
    if (this.gaps.delete(symbol)) this.#tell("missed", { symbol });
  }
}

/**
 * Puts one connection's messages about quotes, of all forms, into a book. Each method returns the
 * time of the update, in microseconds, or null if there was none.
 */
class Decoder {
  #book;
  #selected;
  #fields = null;
  #derived = [];
  // The fields of each mask. A server has few of them.
  #masks = new Map();

  /** `selected`: the client asked for certain fields only. */
  constructor(book, selected) {
    this.#book = book;
    this.#selected = selected;
  }

  schema({ fields, derived = [] }) {
    this.#fields = fields;
    this.#derived = derived;
    this.#masks.clear();
  }

  #present(mask) {
    const known = this.#masks.get(mask);
    if (known) return known;
    if (this.#masks.size === MAX_MASKS) this.#masks.clear();
    const present = this.#fields.filter((_, bit) => (mask / 2 ** bit) & 1);
    this.#masks.set(mask, present);
    return present;
  }

  /** Read an array. A later server may send other kinds, and more elements. */
  compact([kind, ...parts]) {
    if (kind === "s") return this.#full(...parts);
    if (kind === "u") return this.#changes(...parts);
    if (kind === "d") return this.#removal(...parts);
    return null;
  }

  #full(epoch, ts, rows) {
    let news = false;
    for (const [symbol, version, mask, ...values] of rows) {
      const quote = this.#selected ? {} : { symbol };
      for (const field of this.#fields) put(quote, field, null);
      this.#read(quote, mask, values, ts);
      news = this.#book.full(symbol, version, quote, epoch) || news;
    }
    return news ? ts : null;
  }

  #changes(ts, rows) {
    for (const [symbol, version, mask, ...values] of rows) {
      const held = this.#book.quotes.get(symbol);
      const quote = { ...held };
      this.#read(quote, mask, values, ts);
      const [since, now] = Array.isArray(version) ? version : [version - 1, version];
      this.#book.change(symbol, now, since, held && quote, this.#selected);
    }
    return ts;
  }

  #removal(symbols, renamed = {}) {
    for (const symbol of symbols) this.#book.remove(symbol, own(renamed, symbol));
    return null;
  }

  /** Set a row's fields and those that follow from them. A later server may send more values. */
  #read(quote, mask, values, ts) {
    const present = this.#present(mask);
    if (values.length < present.length) throw new RangeError("a row has too few values");
    for (const [place, field] of present.entries()) {
      const value = values[place];
      const isTime = field === "last_updated" && value !== null;
      put(quote, field, isTime ? timeText(ts + value) : value);
    }
    if (this.#derived.includes("change")) quote.change = changeOf(quote);
    if (this.#derived.includes("change_percent")) quote.change_percent = percentOf(quote);
  }

  /** Apply a `quotes_patch` to a document of the quotes that it names, and put these into the book. */
  patch({ ts, operations, versions, since = {}, epoch, renamed = {} }) {
    const { named, entire } = this.#touched(operations, Object.keys(versions));
    let document = { quotes: {} };
    for (const symbol of named) {
      const held = this.#book.quotes.get(symbol);
      if (held) put(document.quotes, symbol, clone(held));
    }
    const failed = new Set();
    for (const operation of operations) {
      try {
        document = applyOperation(document, operation);
      } catch {
        failed.add(pointerParts(operation.path)[1]);
      }
    }
    let news = false;
    for (const symbol of named) {
      const quote = own(document.quotes, symbol);
      const version = own(versions, symbol) ?? this.#book.versions.get(symbol);
      if (entire.has(symbol) && quote === undefined) {
        this.#book.remove(symbol, own(renamed, symbol));
      } else if (entire.has(symbol)) {
        news = this.#book.full(symbol, version, quote, epoch) || news;
      } else if (Object.hasOwn(versions, symbol)) {
        const before = own(since, symbol) ?? version - 1;
        this.#book.change(symbol, version, before, quote, this.#selected);
        news = true;
      }
      // No version is missing, but an operation failed: only the full quote helps.
      if (failed.has(symbol) && quote && !this.#book.gaps.has(symbol)) {
        this.#book.doubt(symbol, version, version);
      }
    }
    return news ? ts : null;
  }

  /** Return the symbols that operations name, and those whose quotes come or go as a whole. */
  #touched(operations, symbols) {
    const named = new Set(symbols);
    const entire = new Set();
    for (const { op, path, from } of operations) {
      for (const pointer of from === undefined ? [path] : [path, from]) {
        const [root = "quotes", symbol, field] = pointerParts(pointer);
        if (root !== "quotes") continue;
        for (const each of symbol === undefined ? this.#book.quotes.keys() : [symbol]) {
          named.add(each);
          if (field === undefined && op !== "test") entire.add(each);
        }
      }
    }
    return { named, entire };
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

/** Round as the server does: of two equally near numbers to the even one, and never to -0. */
function rounded(number, decimals) {
  let digits = number.toFixed(Math.min(decimals, 100));
  // `toFixed` is exact, but rounds ties away from zero. A tie is an odd multiple of this power of 2.
  const halves = number * 2 ** (decimals + 1);
  const last = Number(digits.at(-1));
  if (last % 2 && Number.isInteger(halves) && halves % 2) digits = digits.slice(0, -1) + (last - 1);
  return Number(digits) + 0;
}

/** Return microseconds since 1970 as the server writes times in JSON. */
function timeText(microseconds) {
  const fraction = ((microseconds % 1e6) + 1e6) % 1e6;
  const second = new Date((microseconds - fraction) / 1000).toISOString().slice(0, 19);
  return `${second}${fraction ? `.${String(fraction).padStart(6, "0")}` : ""}Z`;
}

function whole(value) {
  if (!Number.isSafeInteger(value)) throw new TypeError(`${value} is not a whole number`);
}

function text(value) {
  if (typeof value !== "string") throw new TypeError(`${value} is not text`);
}

/** Return a member that an object has itself, so that `toString` is a symbol like any other. */
function own(object, key) {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** Set a member of an object. An assignment to `__proto__` would set its prototype. */
function put(object, key, value) {
  if (key !== "__proto__") {
    object[key] = value;
    return;
  }
  const member = { value, writable: true, enumerable: true, configurable: true };
  Object.defineProperty(object, key, member);
}

// -------------------------------------------------------------------- JSON Patch (RFC 6902)

/** Return `document` with all operations applied. If one fails, it throws and changes nothing. */
export function applyPatch(document, operations) {
  return operations.reduce(applyOperation, clone(document));
}

/** Apply one operation in place. Return the document, which may be another one afterwards. */
function applyOperation(document, { op, path, from, value }) {
  const target = pointerParts(path);
  const source = op === "move" || op === "copy" ? pointerParts(from) : [];
  if (value === undefined && ["add", "replace", "test"].includes(op)) fail("value");
  switch (op) {
    case "add":
      return insert(document, target, clone(value));
    case "replace":
      find(document, target);
      if (target.length === 0) return clone(value);
      put(find(document, target.slice(0, -1)), target.at(-1), clone(value));
      return document;
    case "remove":
      return cut(document, target);
    case "copy":
      return insert(document, target, clone(find(document, source)));
    case "move": {
      if (path.startsWith(`${from}/`)) fail(path);
      const value = find(document, source);
      return insert(cut(document, source), target, value);
    }
    case "test":
      return equal(find(document, target), value) ? document : fail(path);
    default:
      return fail(op);
  }
}

/** Return the parts of a JSON Pointer (RFC 6901). */
function pointerParts(pointer) {
  text(pointer);
  const [first, ...parts] = pointer.split("/");
  if (first !== "") fail(pointer);
  if (!pointer.includes("~")) return parts;
  if (/~([^01]|$)/.test(pointer)) fail(pointer);
  return parts.map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** Return a copy of a JSON value. */
function clone(value) {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(clone);
  const copy = {};
  for (const key of Object.keys(value)) put(copy, key, clone(value[key]));
  return copy;
}

/** Return whether an object has a member of its own, or an array an element. */
function has(node, key) {
  if (Array.isArray(node)) return /^(0|[1-9][0-9]*)$/.test(key) && Number(key) < node.length;
  return typeof node === "object" && node !== null && Object.hasOwn(node, key);
}

function find(document, parts) {
  return parts.reduce((node, key) => (has(node, key) ? node[key] : fail(key)), document);
}

function insert(document, parts, value) {
  if (parts.length === 0) return value;
  const node = find(document, parts.slice(0, -1));
  const key = parts.at(-1);
  if (Array.isArray(node)) {
    const place = key === "-" ? String(node.length) : key;
    if (place !== String(node.length) && !has(node, place)) fail(key);
    node.splice(Number(place), 0, value);
  } else if (typeof node === "object" && node !== null) {
    put(node, key, value);
  } else {
    fail(key);
  }
  return document;
}

function cut(document, parts) {
  if (parts.length === 0) return null;
  const node = find(document, parts.slice(0, -1));
  const key = parts.at(-1);
  if (!has(node, key)) fail(key);
  if (Array.isArray(node)) node.splice(Number(key), 1);
  else delete node[key];
  return document;
}

function equal(one, other) {
  if (one === other) return true;
  const objects = [one, other].every((each) => typeof each === "object" && each !== null);
  if (!objects || Array.isArray(one) !== Array.isArray(other)) return false;
  const keys = Object.keys(one);
  if (keys.length !== Object.keys(other).length) return false;
  return keys.every((key) => has(other, key) && equal(one[key], other[key]));
}

function fail(problem) {
  throw new Error(`a patch cannot be applied: ${problem}`);
}

// -------------------------------------------------------------------- MessagePack

const MAX_DEPTH = 16;
const UTF8 = new TextDecoder("utf-8", { fatal: true });

const NUMBERS = {
  0xca: (view, at) => [view.getFloat32(at), 4],
  0xcb: (view, at) => [view.getFloat64(at), 8],
  0xcc: (view, at) => [view.getUint8(at), 1],
  0xcd: (view, at) => [view.getUint16(at), 2],
  0xce: (view, at) => [view.getUint32(at), 4],
  0xcf: (view, at) => [Number(view.getBigUint64(at)), 8],
  0xd0: (view, at) => [view.getInt8(at), 1],
  0xd1: (view, at) => [view.getInt16(at), 2],
  0xd2: (view, at) => [view.getInt32(at), 4],
  0xd3: (view, at) => [Number(view.getBigInt64(at)), 8],
};

/** Read one MessagePack value of the types that the server sends. A DataView checks the bounds. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  let at = 0;
  const number = (kind) => {
    const [value, size] = NUMBERS[kind](view, at);
    at += size;
    return value;
  };
  const room = (size) => {
    // Each element has at least a byte, so a wrong size cannot take much memory.
    if (size > view.byteLength - at) throw new RangeError("MessagePack ends too early");
    return size;
  };
  const words = (size) => {
    at += room(size);
    return UTF8.decode(new Uint8Array(buffer, at - size, size));
  };
  const array = (size, depth) => Array.from({ length: room(size) }, () => value(depth + 1));
  const map = (size, depth) => {
    const members = {};
    for (let rest = room(size); rest > 0; rest -= 1) {
      const key = String(value(depth + 1));
      put(members, key, value(depth + 1));
    }
    return members;
  };
  const value = (depth) => {
    if (depth > MAX_DEPTH) throw new RangeError("MessagePack is nested too deeply");
    const kind = number(0xcc);
    if (kind < 0x80) return kind;
    if (kind < 0x90) return map(kind - 0x80, depth);
    if (kind < 0xa0) return array(kind - 0x90, depth);
    if (kind < 0xc0) return words(kind - 0xa0);
    if (kind >= 0xe0) return kind - 0x100;
    if (kind === 0xc0) return null;
    if (kind === 0xc2 || kind === 0xc3) return kind === 0xc3;
    if (kind in NUMBERS) return number(kind);
    // Texts have a size of 1, 2 or 4 bytes, arrays and maps of 2 or 4.
    if (kind >= 0xd9 && kind <= 0xdb) return words(number(kind - 0xd9 + 0xcc));
    if (kind === 0xdc || kind === 0xdd) return array(number(kind - 0xdc + 0xcd), depth);
    if (kind === 0xde || kind === 0xdf) return map(number(kind - 0xde + 0xcd), depth);
    throw new RangeError(`MessagePack has a value of the unknown type ${kind}`);
  };
  const result = value(0);
  if (at !== view.byteLength) throw new RangeError("MessagePack goes on after its value");
  return result;
}

/** Write a command: an object of texts, whole numbers below 2^32, and arrays of texts. */
function pack(command) {
  const bytes = [];
  const head = (size, short, limit, long) => {
    if (size < limit) bytes.push(short + size);
    else bytes.push(long, size >> 8, size & 0xff);
  };
  const write = (value) => {
    if (typeof value === "number") {
      bytes.push(0xce, value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
    } else if (typeof value === "string") {
      const encoded = new TextEncoder().encode(value);
      head(encoded.length, 0xa0, 32, 0xda);
      bytes.push(...encoded);
    } else if (Array.isArray(value)) {
      head(value.length, 0x90, 16, 0xdc);
      value.forEach(write);
    } else {
      head(Object.keys(value).length, 0x80, 16, 0xde);
      Object.entries(value).flat().forEach(write);
    }
  };
  write(command);
  return Uint8Array.from(bytes);
}
