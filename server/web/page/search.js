/** The search for instruments: a combobox (WAI-ARIA 1.2) over `GET /instruments`. */

import { Refusal, reason } from "./api.js";
import { announce, find, make, write } from "./dom.js";

/** Milliseconds without a key after which the page asks, and results that it asks for. */
const PAUSE = 150;
const RESULTS = 8;

export class Search {
  #api;
  #selection;
  #instruments;
  #chosen;
  #input = find("query");
  #found = [];
  #hint = "";
  #at = -1;
  #timer = 0;
  #running = null;
  #asked = null;

  /** `chosen` hears of the symbol that the visitor chose. */
  constructor(api, selection, instruments, chosen) {
    this.#api = api;
    this.#selection = selection;
    this.#instruments = instruments;
    this.#chosen = chosen;
    this.#input.addEventListener("input", () => this.#look());
    this.#input.addEventListener("keydown", (event) => this.#pressed(event));
    this.#input.addEventListener("blur", () => this.#close());
    this.#input.addEventListener("focus", () => this.#typed && this.#look());
    find("search").addEventListener("submit", (event) => event.preventDefault());
    // A press must not take the focus away before its click arrives.
    find("found-box").addEventListener("pointerdown", (event) => event.preventDefault());
    find("found").addEventListener("click", ({ target }) => {
      const item = target.closest("li");
      if (item) this.#choose(this.#found[[...find("found").children].indexOf(item)]);
    });
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  get #typed() {
    return this.#input.value.trim();
  }

  #look() {
    clearTimeout(this.#timer);
    this.#point(-1);
    if (!this.#typed) this.#close();
    else this.#timer = setTimeout(() => this.#ask(), PAUSE);
  }

  /** Ask for what is typed, until the answer is for that. One request runs at a time. */
  #ask() {
    clearTimeout(this.#timer);
    this.#running ??= this.#askAll().finally(() => (this.#running = null));
    return this.#running;
  }

  async #askAll() {
    for (let query = this.#typed; query && query !== this.#asked; query = this.#typed) {
      this.#asked = query;
      try {
        const found = await this.#api.get("instruments", { query, limit: RESULTS });
        for (const each of found) this.#instruments.learn(each);
        this.#found = found;
        this.#hint = found.length ? "" : `Nothing found for “${query}”. Try a symbol such as MSFT, or a word of the name.`;
      } catch (error) {
        this.#found = [];
        this.#hint = error instanceof Refusal ? error.message : `${reason(error)} Type on as soon as it is back.`;
        this.#asked = null;
        if (error.retryAfter) this.#timer = setTimeout(() => this.#ask(), error.retryAfter);
        break;
      }
    }
    this.#show();
  }

  #show() {
    if (!this.#typed || document.activeElement !== this.#input) return;
    const [found, hint] = [this.#found, this.#hint];
    const items = found.map((each, i) => {
      const has = this.#selection.has(each.symbol);
      const item = make("li", { id: `found-${i}`, role: "option" },
        make("b", { textContent: each.symbol }), make("span", { textContent: each.name }),
        make("small", { textContent: has ? "in the list" : each.type.toLowerCase() }));
      item.setAttribute("aria-selected", "false");
      return item;
    });
    find("found").replaceChildren(...items);
    find("found").hidden = found.length === 0;
    write(find("found-hint"), hint);
    find("found-box").hidden = false;
    this.#input.setAttribute("aria-expanded", String(found.length > 0));
    this.#point(found.length ? 0 : -1);
    announce(hint || `${found.length} found. Enter adds ${found[0].symbol}.`);
  }

  #point(at) {
    const items = [...find("found").children];
    this.#at = at;
    items.forEach((item, i) => item.setAttribute("aria-selected", String(i === at)));
    if (items[at]) this.#input.setAttribute("aria-activedescendant", items[at].id);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #pressed(event) {
    // Enter ends the choice of a Chinese or Japanese character, and does not add a symbol.
    if (event.isComposing) return;
    const count = find("found-box").hidden ? 0 : this.#found.length;
    if (event.key === "ArrowDown" && count) this.#point((this.#at + 1) % count);
    else if (event.key === "ArrowUp" && count) this.#point((this.#at + count - 1) % count);
    else if (event.key === "Enter") this.#enter();
    else if (event.key === "Escape") this.#escape();
    else return;
    event.preventDefault();
  }

  /** Add the instrument that is pointed at. If the answer is not shown yet, wait for it. */
  async #enter() {
    const query = this.#typed;
    if (!query) return;
    if (query !== this.#asked || this.#running || this.#at < 0) await this.#ask();
    if (query === this.#typed && this.#found[this.#at]) this.#choose(this.#found[this.#at]);
  }

  #escape() {
    if (find("found-box").hidden) this.#input.blur();
    this.#input.value = "";
    this.#close();
  }

  #choose(instrument) {
    this.#input.value = "";
    this.#asked = null;
    this.#close();
    this.#chosen(instrument.symbol);
  }

  #close() {
    clearTimeout(this.#timer);
    find("found-box").hidden = true;
    this.#input.setAttribute("aria-expanded", "false");
    this.#input.removeAttribute("aria-activedescendant");
  }
}
