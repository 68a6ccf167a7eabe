/** Keys of one letter. A visitor can turn them off (WCAG 2.2, 2.1.4): speech input may press them by mistake. */

import { find } from "./dom.js";
import { settings } from "./settings.js";

/** Let each key of `actions` act, but not while the visitor types or holds it down. */
export function bindKeys(actions) {
  const box = find("letter-keys");
  const tell = () => document.body.classList.toggle("no-letters", !box.checked);
  box.checked = settings.get("letter-keys") !== "off";
  box.addEventListener("change", () => {
    settings.set("letter-keys", box.checked ? "on" : "off");
    tell();
  });
  tell();
  document.addEventListener("keydown", (event) => {
    const { key, repeat, ctrlKey, metaKey, altKey, target } = event;
    if (!box.checked || !Object.hasOwn(actions, key) || repeat || ctrlKey || metaKey || altKey) return;
    if (target.closest("input[type=text], input[type=password], dialog")) return;
    event.preventDefault();
    actions[key]();
  });
}
