/** The visitor's token: a development server gives one, else a dialog asks for it. */

import { find, write } from "./dom.js";
import { tabOnly } from "./settings.js";

export const NOT_A_TOKEN = "This is not a token: it has letters, digits, dots, “-” and “_” only.";

/** Return the token in what a visitor entered, "" if it cannot be one. A copy may have line breaks. */
export function tokenIn(text) {
  const token = text.trim().replace(/^Bearer\s+/i, "").replace(/\s+/g, "");
  return /^[\w.-]+$/.test(token) ? token : "";
}

/** Return the server's configuration. Errors: the fetch's, or an Error with the status. */
export async function fetchConfig() {
  const answer = await fetch("web/config.json", { cache: "no-store" });
  if (!answer.ok) throw new Error(`The server answered with status ${answer.status}.`);
  return answer.json();
}

/** Holds the token. The dialog's promise ends with the first token that the visitor gives. */
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
    find("token-form").addEventListener("submit", (event) => this.#given(event));
    find("token-later").addEventListener("click", () => find("token-dialog").close());
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

  /** Return the token, which may take until the visitor gives one. */
  async get() {
    if (this.#current) return this.#current;
    if (this.#isDevelopment) {
      this.#current = (await fetchConfig()).token;
      // The operator may have set a secret meanwhile.
      this.#isDevelopment = this.#current !== null;
      if (this.#current) return this.#current;
    }
    if (!this.#asked) {
      this.#asked = Promise.withResolvers ? Promise.withResolvers() : resolvers();
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
    const [dialog, told] = [find("token-dialog"), find("token-reason")];
    if (this.#reason) write(told, this.#reason);
    told.classList.toggle("refused", this.#reason !== "");
    if (!dialog.open) dialog.showModal();
    find("token").focus();
  }

  #given() {
    const text = find("token").value;
    const token = tokenIn(text);
    find("token").value = "";
    if (!text.trim()) return;
    if (!token) {
      this.#reason = NOT_A_TOKEN;
      // The dialog closes after this event.
      setTimeout(() => this.ask());
      return;
    }
    this.#current = token;
    this.#reason = "";
    tabOnly.set("token", token);
    this.#asked?.resolve(token);
    this.#asked = null;
    this.dispatchEvent(new Event("given"));
  }
}

function resolvers() {
  let resolve;
  const promise = new Promise((fulfil) => (resolve = fulfil));
  return { promise, resolve };
}
