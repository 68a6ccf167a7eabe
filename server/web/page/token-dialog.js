/** The dialog of both pages that asks for a token. */

import { find, write } from "./dom.js";

const NOT_A_TOKEN = "This is not a token: it has letters, digits, dots, “-” and “_” only.";

/** Return the token in an entered text, "" if there is none. A copy may have line breaks. */
function tokenIn(text) {
  const token = text.trim().replace(/^Bearer\s+/i, "").replace(/\s+/g, "");
  return /^[\w.-]+$/.test(token) ? token : "";
}

/** Let the dialog take tokens. `given` hears of each. */
export function bindTokenDialog(given) {
  find("token-later").addEventListener("click", () => find("token-dialog").close());
  find("token-form").addEventListener("submit", () => {
    const text = find("token").value;
    const token = tokenIn(text);
    find("token").value = "";
    if (token) given(token);
    // The dialog closes after this event.
    else if (text.trim()) setTimeout(() => askForToken(NOT_A_TOKEN));
  });
}

/** Show the dialog, with the reason if a token was refused. */
export function askForToken(reason = "") {
  const [dialog, told] = [find("token-dialog"), find("token-reason")];
  if (reason) write(told, reason);
  told.classList.toggle("refused", reason !== "");
  if (!dialog.open) dialog.showModal();
  find("token").focus();
}
