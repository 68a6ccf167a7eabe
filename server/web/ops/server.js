/** Requests to the operators' routes. */

/** Milliseconds for one answer. A file may take longer. */
const PATIENCE = 8000;
const LONG_PATIENCE = 40_000;

/** An answer that is not 2xx. */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether another token could help. */
  get concernsToken() {
    return this.status === 401 || this.code === "forbidden";
  }
}

export class Server {
  #token;

  constructor(token) {
    this.#token = token;
  }

  /** Return the answer's JSON and its Next-Page-Token. Errors: Refusal, or the fetch's own. */
  async get(path, parameters = {}) {
    return this.#ask("GET", path, parameters);
  }

  async post(path, parameters = {}, body = undefined) {
    return (await this.#ask("POST", path, parameters, body)).body;
  }

  async delete(path) {
    return (await this.#ask("DELETE", path, {})).body;
  }

  async #ask(method, path, parameters, body) {
    const query = new URLSearchParams(parameters);
    const answer = await fetch(`ops/${path}${query.size ? `?${query}` : ""}`, {
      method,
      body,
      headers: { Accept: "application/json", ...this.#token.headers },
      cache: "no-store",
      signal: AbortSignal.timeout(body ? LONG_PATIENCE : PATIENCE),
    });
    if (answer.ok) {
      return { body: await answer.json(), next: answer.headers.get("Next-Page-Token") };
    }
    const { error = {} } = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, error.code ?? "", error.message ?? `Status ${answer.status}.`);
  }
}

/** Return why a request failed, in words for the page. */
export function reason(error) {
  if (error instanceof Refusal) return error.message;
  if (error.name === "TimeoutError") return "The server gives no answer in time.";
  return "The server cannot be reached.";
}
