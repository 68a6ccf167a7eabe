/** Asks before an action that somebody notices. */

import { find, make, write } from "../page/dom.js";
import { reason } from "./server.js";

let act = async () => {};

/** Show a dialog. `action` runs when the operator agrees; if it fails, the dialog stays with the reason. */
export function confirm({ title, text, facts = {}, label, isHarmless = false, action }) {
  write(find("confirm-title"), title);
  write(find("confirm-text"), text);
  write(find("confirm-yes"), label);
  write(find("confirm-problem"), "");
  const entries = Object.entries(facts).flatMap(([name, fact]) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: fact }),
  ]);
  find("confirm-facts").replaceChildren(...entries);
  find("confirm-yes").disabled = false;
  find("confirm-yes").className = `button ${isHarmless ? "primary" : "danger"}`;
  act = action;
  find("confirm").showModal();
  find("confirm-no").focus();
}

export function bindConfirm() {
  find("confirm-no").addEventListener("click", () => find("confirm").close());
  find("confirm-yes").addEventListener("click", async () => {
    find("confirm-yes").disabled = true;
    try {
      await act();
      find("confirm").close();
    } catch (error) {
      write(find("confirm-problem"), reason(error));
      find("confirm-yes").disabled = false;
    }
  });
}

/** Tell what was done, also to a screen reader. */
export function announce(text) {
  write(find("announcer"), text);
}
