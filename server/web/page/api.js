/** Requests of both pages to the HTTP API. */

/** Milliseconds for an answer. A network that was cut would leave a request without one for minutes. */
const PATIENCE = 8000;

/** An answer that is not 2xx. `retryAfter`: milliseconds, if the server names a time. */
export class Refusal extends Error {
  constructor(status, { code = "", message = `Status ${status}.` }, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** Return the answer to a request with a token, if there is one. Errors: Refusal, or the fetch's own. */
export async function ask(path, parameters, token, { patience = PATIENCE, ...options } = {}) {
  const query = new URLSearchParams(parameters);
  const headers = { Accept: "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const signal = AbortSignal.timeout(patience);
  const answer = await fetch(`${path}${query.size ? `?${query}` : ""}`, { headers, signal, ...options });
  if (answer.ok) return answer;
  const { error = {} } = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, error, Number(answer.headers.get("Retry-After")) * 1000);
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
