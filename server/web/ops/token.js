/** The operator's token: a development server gives one, else a dialog asks for it. */

import { fetchConfig } from "../page/api.js";
import { tabOnly } from "../page/settings.js";
import { bindTokenDialog } from "../page/token-dialog.js";

const KEPT = "operator";

/** Holds the token. Tells "given" when the operator enters one. */
export class Token extends EventTarget {
  #current = tabOnly.get(KEPT);

  // Whether the server may give a token. Until it has answered, nobody knows.
  #mayGive = true;

  constructor() {
    super();
    bindTokenDialog((token) => {
      this.#current = token;
      tabOnly.set(KEPT, token);
      this.dispatchEvent(new Event("given"));
    });
  }

  /** The token, or null: the operators' own port needs none. */
  get current() {
    return this.#current;
  }

  /** Ask a development server for a token. Errors: those of `fetchConfig`. */
  async begin() {
    const { token } = await fetchConfig({ role: "admin" });
    this.#mayGive = token !== null;
    this.#current = token ?? this.#current;
  }

  /** Forget a refused token. Return whether there is a new one at once. Errors: those of `begin`. */
  async refused() {
    this.#current = null;
    tabOnly.remove(KEPT);
    if (this.#mayGive) await this.begin();
    return this.#current !== null;
  }
}
