/** Requests to the HTTP API, with the visitor's token. */

/** An answer that is not 2xx. `retryAfter`: milliseconds, if the server names a time. */
export class Refusal extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export class Api {
  #tokens;

  constructor(tokens) {
    this.#tokens = tokens;
  }

  /** Return the JSON of `path` with these parameters. Errors: Refusal, or the fetch's own. */
  async get(path, parameters = {}) {
    const query = new URLSearchParams(parameters);
    const token = await this.#tokens.get();
    const headers = { Accept: "application/json", Authorization: `Bearer ${token}` };
    const answer = await fetch(`${path}${query.size ? `?${query}` : ""}`, { headers });
    if (answer.ok) return answer.json();
    const { error = {} } = await answer.json().catch(() => ({}));
    const after = Number(answer.headers.get("Retry-After")) * 1000;
    throw new Refusal(answer.status, error.code ?? "", error.message ?? `Status ${answer.status}.`, after);
  }
}
