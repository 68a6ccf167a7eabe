/** Requests of both pages to the HTTP API. */

/** Milliseconds for an answer. A network that was cut would leave a request without one for minutes. */
const PATIENCE = 8000;

/** Milliseconds that a `Retry-After` counts for at most, and that the page adds at random. */
const LONGEST_ASKED = 3_600_000;
const JITTER = 500;

/** An answer that is not 2xx. `retryAfter`: milliseconds to wait, 0 if the server names no time. */
export class Refusal extends Error {
  constructor(status, { code = "", message = `Status ${status}.` }, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/**
 * Refusals that ask for time, by path. Too many requests (429) concern all paths. A refusal of a token
 * does not concern another one.
 */
const waits = new Map();
const ALL = "*";

/**
 * Return the answer to a request with a token, if there is one. The page makes no request while the
 * server asks it to wait. Errors: Refusal, or the fetch's own.
 */
export async function ask(path, parameters, token, { patience = PATIENCE, ...options } = {}) {
  checkWaits(path, token);
  const query = new URLSearchParams(parameters);
  const headers = { Accept: "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const signal = AbortSignal.timeout(patience);
  const answer = await fetch(`${path}${query.size ? `?${query}` : ""}`, { headers, signal, ...options });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  const wait = retryAfter(answer.headers.get("Retry-After"));
  const refusal = new Refusal(answer.status, body?.error ?? {}, wait);
  if (wait) waits.set(answer.status === 429 ? ALL : path, { refusal, token, until: Date.now() + wait });
  throw refusal;
}

/** Return the milliseconds of a header `Retry-After`, in seconds or a date (RFC 9110 §10.2.3). */
function retryAfter(header) {
  if (header === null) return 0;
  const wait = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return wait >= 0 ? Math.min(wait, LONGEST_ASKED) + Math.random() * JITTER : 0;
}

/** Throw the server's last refusal again while it asks the page to wait. Errors: Refusal. */
function checkWaits(path, token) {
  const now = Date.now();
  for (const [key, { refusal, token: refused, until }] of waits) {
    // A clock that is set back must not make a wait longer.
    const left = Math.min(until - now, refusal.retryAfter);
    if (left <= 0) waits.delete(key);
    else if (refused && refused !== token) continue;
    else if (key === ALL || key === path) throw new Refusal(refusal.status, refusal, left);
  }
}

/** Return why a request failed, in words for a page. */
export function reason(error) {
  if (error instanceof Refusal) return error.message;
  if (error.name === "TimeoutError") return "The server gives no answer in time.";
  return "The server cannot be reached.";
}

/** Return the server's configuration, with its development token for a role. Errors: those of `ask`. */
export async function fetchConfig(parameters = {}) {
  return (await ask("web/config.json", parameters, null, { cache: "no-store" })).json();
}

/** Requests with the visitor's token. */
export class Api {
  #tokens;

  constructor(tokens) {
    this.#tokens = tokens;
  }

  /** Return the JSON of `path` with these parameters. Errors: those of `ask`. */
  async get(path, parameters = {}) {
    return (await ask(path, parameters, await this.#tokens.get())).json();
  }
}
