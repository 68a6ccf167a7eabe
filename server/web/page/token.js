/** The visitor's token: a development server gives one, else a dialog asks for it. */

import { fetchConfig } from "./api.js";
import { tabOnly } from "./settings.js";
import { askForToken, bindTokenDialog } from "./token-dialog.js";

/** Holds the token. Tells "wanted" when it waits for the visitor's, and "given" when that is there. */
export class Tokens extends EventTarget {
  #isDevelopment;
  #current;
  #asked = null;
  #wasTaken = false;
  #reason = "";

  constructor(config) {
    super();
    this.#isDevelopment = config.token !== null;
    this.#current = config.token ?? tabOnly.get("token");
    bindTokenDialog((token) => this.#given(token));
  }

  /** Whether the page waits for the visitor's token. */
  get isWanted() {
    return this.#asked !== null;
  }

  get isDevelopment() {
    return this.#isDevelopment;
  }

  /** Return a token for a connection. The stream asks again only if the server refused the last one. */
  async next() {
    if (this.#isDevelopment && this.#wasTaken) this.#current = null;
    this.#wasTaken = true;
    return this.get();
  }

  /** Return the token, which may take until the visitor gives one. Errors: those of `fetchConfig`. */
  async get() {
    if (this.#current) return this.#current;
    if (this.#isDevelopment) {
      this.#current = (await fetchConfig()).token;
      // The operator may have set a secret meanwhile.
      this.#isDevelopment = this.#current !== null;
      if (this.#current) return this.#current;
    }
    if (!this.#asked) {
      let resolve;
      const promise = new Promise((fulfil) => (resolve = fulfil));
      this.#asked = { promise, resolve };
      this.dispatchEvent(new Event("wanted"));
      this.ask();
    }
    return this.#asked.promise;
  }

  /** Forget a token that the server refused, with its reason. */
  forget(reason) {
    this.#current = null;
    this.#reason = `The server refused the last token: ${reason}`;
    if (!this.#isDevelopment) tabOnly.remove("token");
  }

  /** Show the dialog. */
  ask() {
    askForToken(this.#reason);
  }

  #given(token) {
    this.#current = token;
    this.#reason = "";
    tabOnly.set("token", token);
    this.#asked?.resolve(token);
    this.#asked = null;
    this.dispatchEvent(new Event("given"));
  }
}
