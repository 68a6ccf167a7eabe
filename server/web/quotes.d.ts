/** The types of quotes.js, the browser's client of quotestream. */

export type Form = "compact" | "json" | "msgpack";

export type Timeframe = "1m" | "5m" | "15m" | "30m" | "1h" | "4h" | "1d" | "1w";

export type State = "connecting" | "live" | "stale" | "waiting" | "sleeping" | "closed";

export interface Options {
  /** The address of `/ws/quotes`; relative to the page in a browser. `http` stands for `ws`. */
  url: string | URL;
  /**
   * Returns a token. It is asked at the start, and once when the server refuses the token. If it fails
   * with a `retryAfter`, the client asks again after that number of milliseconds at the earliest.
   */
  getToken?: () => string | Promise<string>;
  /** The symbols to begin with; `["*"]` for all. */
  symbols?: Iterable<string>;
  /** The form to offer first; `compact` by default. A server without it speaks `json`. */
  format?: Form;
  /** The fields of a quote to get; all by default. */
  fields?: readonly string[];
  /** Get each symbol at most once in this time: milliseconds, or text such as `2s`. */
  interval?: number | string;
  /** The class to connect with, if there is no global one. */
  WebSocket?: typeof WebSocket;
}

export interface Reason {
  /** A word that stays the same, such as `unauthorized`, `feed_quiet` or `unreachable`. */
  code: string;
  /** A sentence for people. */
  message: string;
}

/** A quote as the server's protocol has it. With chosen `fields` it has these only. */
export interface Quote {
  readonly symbol: string;
  readonly name: string;
  readonly type: string;
  readonly currency: string;
  readonly current_price: number | null;
  readonly base_price: number | null;
  readonly change: number | null;
  readonly change_percent: number | null;
  /** RFC 3339 in UTC. */
  readonly last_updated: string | null;
  readonly volume: number | null;
  readonly market_cap: number | null;
  readonly open: number | null;
  readonly high: number | null;
  readonly low: number | null;
  readonly previous_close: number | null;
  readonly bid: number | null;
  readonly ask: number | null;
  readonly bid_size: number | null;
  readonly ask_size: number | null;
}

export interface Bar {
  t: string;
  o: number;
  h: number;
  l: number;
  c: number;
  v: number;
  n: number;
  vw: number;
  final: boolean;
  rev: number;
}

/** An update of one quote. `changed` has the names of the fields with another value. */
export interface Change {
  symbol: string;
  quote: Readonly<Partial<Quote>>;
  changed: string[];
  version: number;
}

/** The versions `from` to `to` of a symbol did not arrive. `count`: how many updates these are. */
export interface Gap {
  symbol: string;
  from: number;
  to: number;
  count: number;
}

export interface Status {
  type: "status";
  status: "live" | "stale" | "open" | "halted" | "closed";
  reason: string;
  symbols?: string[];
  interval?: number;
  next_open?: string;
}

export interface Stats {
  messages: number;
  /** The characters of text messages, and the bytes of binary ones. */
  bytes: number;
  connects: number;
  resumed: number;
  resyncs: number;
}

/** The answer to a command, which the server carried out for all its symbols. */
export interface Ack {
  action: string;
  symbols: string[];
  /** With `throttle`: the seconds that the server granted. */
  interval?: number;
  timeframe?: Timeframe;
}

export interface Events {
  state: { state: State; reason: Reason | null; retryAt: number | null };
  change: Change;
  /** The server took a quote away: unsubscribed, delisted, or renamed. */
  removed: { symbol: string; renamedTo: string | null };
  /** `missed` grew or shrank. */
  missed: { symbol: string };
  status: Status;
  /** The server refused a command or some of its symbols. */
  error: { code: string; message: string; symbols?: string[]; id?: number | string };
  bar: { symbol: string; timeframe: Timeframe; bar: Bar };
  bars_end: { timeframe: Timeframe; t: string };
  /** Bars may be missing since the last final one: ask `GET /bars` for them. */
  bars_missed: { symbol: string; timeframe: Timeframe };
}

/** Why the server refused a command, or its part about `symbols`. The other symbols count. */
export class QuotesError extends Error {
  readonly code: string;
  readonly symbols: string[];
}

export class Quotes extends EventTarget implements AsyncIterable<Change> {
  private constructor();

  readonly state: State;
  /** Why the state is so, or null. */
  readonly reason: Reason | null;
  /** When the next attempt starts, in milliseconds since 1970, in the state `waiting`. */
  readonly retryAt: number | null;
  /**
   * Until when the server asked this client to stay away, in milliseconds since 1970, or null. Until
   * then neither `reconnect()` nor `resume()` opens a connection to it.
   */
  readonly askedUntil: number | null;
  readonly quotes: ReadonlyMap<string, Readonly<Partial<Quote>>>;
  readonly versions: ReadonlyMap<string, number>;
  readonly epoch: string;
  /** The number of updates that are proven missing and not repaired yet. */
  readonly missed: number;
  readonly gaps: Gap[];
  /** The symbols whose quotes are not proven to be the newest. */
  readonly behind: string[];
  /** Milliseconds from the newest update's time at the server to its arrival. */
  readonly lag: number | null;
  readonly stats: Stats;
  /** The symbols that the server sends, or that the next connection asks for. */
  readonly symbols: string[];
  /** The form in which the server speaks now. */
  readonly format: Form | null;
  readonly status: Status | null;
  /** The newest status of each symbol whose prices do not flow. */
  readonly statuses: ReadonlyMap<string, Status>;
  /** Seconds between two updates of a symbol, as `throttle` granted; 0 for all updates. */
  readonly interval: number;
  /** Seconds between two updates of a symbol while the server is overloaded, else 0. */
  readonly overload: number;

  subscribe(symbols: Iterable<string>): Promise<Ack>;
  unsubscribe(symbols: Iterable<string>): Promise<Ack>;
  throttle(interval: number | string): Promise<Ack>;
  bars(symbols: Iterable<string>, timeframe?: Timeframe): Promise<Ack>;
  unbars(symbols: Iterable<string>, timeframe?: Timeframe): Promise<Ack>;

  /** Give up the connection until `resume()`. */
  pause(): void;
  resume(): void;
  /** End for good. */
  close(): void;
  /** Connect anew at once, with other options. It also ends the state `closed`. */
  reconnect(overrides?: Partial<Options>): void;

  [Symbol.asyncIterator](): AsyncIterator<Change, void, undefined>;

  addEventListener<Type extends keyof Events>(
    type: Type,
    listener: (event: CustomEvent<Events[Type]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Type extends keyof Events>(
    type: Type,
    listener: (event: CustomEvent<Events[Type]>) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** Open a connection that lasts until `close()` or a final refusal. */
export function connect(options: Options): Quotes;

/** Return `document` with all operations of a JSON Patch (RFC 6902) applied, or throw. */
export function applyPatch(document: unknown, operations: readonly object[]): unknown;

/** Read one MessagePack value, or throw. */
export function unpack(buffer: ArrayBuffer): unknown;
