/** Light or dark: the system's, until the visitor chooses. */

import { find, write } from "./dom.js";
import { settings } from "./settings.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Return the theme that the page shows. */
function theme() {
  return document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
}

/** Switch the theme by a button. `changed` draws anew what does not use the style sheets. */
export function bindTheme(changed) {
  const tell = () => write(find("theme-name"), theme() === "dark" ? "Light theme" : "Dark theme");
  const apply = () => {
    tell();
    changed();
  };
  find("theme").addEventListener("click", () => {
    const next = theme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    settings.set("theme", next);
    apply();
  });
  dark.addEventListener("change", apply);
  tell();
}

const probe = document.createElement("span");
probe.hidden = true;

/** Return the value of a variable of base.css in the present theme, as `rgb(…)`. */
export function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
