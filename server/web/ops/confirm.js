/** Asks before an action that clients or subscribers notice. */

import { reason } from "../page/api.js";
import { announce, find, make, write } from "../page/dom.js";

/** The action of the dialog that is shown. */
let act = async () => {};

/**
 * Show a dialog. `action` runs when the operator agrees; if it fails, the dialog stays with the reason.
 * Afterwards `next` gets the focus if the button that opened the dialog is gone.
 */
export function confirm({ title, text, facts = {}, label, isHarmless = false, action, next }) {
  const opener = document.activeElement;
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
  act = async () => {
    await action();
    return () => opener.isConnected || next.focus();
  };
  find("confirm").showModal();
  find("confirm-no").focus();
}

export function bindConfirm() {
  find("confirm-no").addEventListener("click", () => find("confirm").close());
  find("confirm-yes").addEventListener("click", async () => {
    const mine = act;
    // The operator may have closed the dialog meanwhile, and opened another one.
    const isShown = () => mine === act && find("confirm").open;
    find("confirm-yes").disabled = true;
    try {
      const leave = await mine();
      if (!isShown()) return;
      find("confirm").close();
      leave();
    } catch (error) {
      if (!isShown()) {
        announce(reason(error));
        return;
      }
      write(find("confirm-problem"), reason(error));
      find("confirm-yes").disabled = false;
    }
  });
}
