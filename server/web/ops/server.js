/** Requests to the operators' routes, with the operator's token. Errors: those of `ask`. */

import { Refusal, ask } from "../page/api.js";

/** Milliseconds for the answer to a file. */
const LONG_PATIENCE = 40_000;

/** Return whether another token could help. */
export function concernsToken(error) {
  return error instanceof Refusal && (error.status === 401 || error.code === "forbidden");
}

export class Server {
  #token;

  constructor(token) {
    this.#token = token;
  }

  /** Return the answer's JSON and its Next-Page-Token. */
  async get(path, parameters = {}) {
    const answer = await this.#ask(path, parameters, { method: "GET" });
    return { body: await answer.json(), next: answer.headers.get("Next-Page-Token") };
  }

  async post(path, parameters = {}, body = undefined) {
    const patience = body && { patience: LONG_PATIENCE };
    return (await this.#ask(path, parameters, { method: "POST", body, ...patience })).json();
  }

  async delete(path) {
    return (await this.#ask(path, {}, { method: "DELETE" })).json();
  }

  #ask(path, parameters, options) {
    return ask(`ops/${path}`, parameters, this.#token.current, { cache: "no-store", ...options });
  }
}
