/** The operator's token: a development server gives one, else a dialog asks for it. */

import { find, write } from "../page/dom.js";
import { tabOnly } from "../page/settings.js";
import { NOT_A_TOKEN, tokenIn } from "../page/token.js";

const KEPT = "operator";

/** Return a configuration with a token of an administrator, if the server makes one. */
async function fetchConfig() {
  const answer = await fetch("web/config.json?role=admin", { cache: "no-store" });
  return answer.ok ? answer.json() : { token: null };
}

/** Holds the token. It dispatches `given` when the operator enters one. */
export class Token extends EventTarget {
  #current = tabOnly.get(KEPT);
  #isDevelopment = false;

  constructor() {
    super();
    find("token-form").addEventListener("submit", () => this.#given());
    find("token-later").addEventListener("click", () => find("token-dialog").close());
  }

  /** Ask a development server for a token. */
  async begin() {
    const { token } = await fetchConfig();
    this.#isDevelopment = token !== null;
    this.#current = token ?? this.#current;
  }

  /** The headers of a request. Without a token they are none: the operators' own port needs none. */
  get headers() {
    return this.#current ? { Authorization: `Bearer ${this.#current}` } : {};
  }

  /** Forget a refused token. Return whether there is a new one at once. */
  async refused() {
    const before = this.#current;
    this.#current = null;
    tabOnly.remove(KEPT);
    if (this.#isDevelopment) await this.begin();
    return this.#current !== null && this.#current !== before;
  }

  /** Show the dialog, with the reason if a token was refused. */
  ask(reason = "") {
    const dialog = find("token-dialog");
    if (reason) write(find("token-reason"), reason);
    find("token-reason").classList.toggle("refused", reason !== "");
    if (!dialog.open) dialog.showModal();
    find("token").focus();
  }

  #given() {
    const text = find("token").value;
    const token = tokenIn(text);
    find("token").value = "";
    if (!text.trim()) return;
    if (!token) {
      // The dialog closes after this event.
      setTimeout(() => this.ask(NOT_A_TOKEN));
      return;
    }
    this.#current = token;
    tabOnly.set(KEPT, token);
    this.dispatchEvent(new Event("given"));
  }
}
