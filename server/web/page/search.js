/** The search for instruments: a combobox (WAI-ARIA 1.2) over `GET /instruments`. */

import { find, make, write } from "./dom.js";

/** Milliseconds without a key after which the page asks, and results that it asks for. */
const PAUSE = 150;
const RESULTS = 8;

export class Search {
  #api;
  #selection;
  #instruments;
  #input = find("query");
  #found = [];
  #at = -1;
  #timer = 0;
  #running = null;
  #asked = null;

  /** `added` hears of the symbols that the visitor chose, new or not. */
  constructor(api, selection, instruments, added) {
    this.#api = api;
    this.#selection = selection;
    this.#instruments = instruments;
    this.added = added;
    this.#input.addEventListener("input", () => this.#typed());
    this.#input.addEventListener("keydown", (event) => this.#pressed(event));
    this.#input.addEventListener("blur", () => this.#close());
    this.#input.addEventListener("focus", () => this.#input.value.trim() && this.#typed());
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

  #typed() {
    clearTimeout(this.#timer);
    this.#at = -1;
    if (!this.#input.value.trim()) this.#close();
    else this.#timer = setTimeout(() => this.#ask(), PAUSE);
  }

  /** Ask for what is typed. One request runs at a time: the next one replaces it. */
  async #ask() {
    const query = this.#input.value.trim();
    if (!query || query === this.#asked) {
      if (query) this.#show(this.#found, this.#found.length ? "" : nothing(query));
      return;
    }
    this.#running?.abort();
    const mine = (this.#running = new AbortController());
    try {
      const found = await this.#api.get("instruments", { query, limit: RESULTS }, { signal: mine.signal });
      this.#asked = query;
      for (const each of found) this.#instruments.learn(each);
      this.#show(found, found.length ? "" : nothing(query));
    } catch (error) {
      if (mine.signal.aborted) return;
      this.#asked = null;
      if (error.retryAfter) this.#timer = setTimeout(() => this.#ask(), error.retryAfter);
      this.#show([], error.status ? error.message : "The server cannot be reached. The search works again as soon as it is back.");
    } finally {
      if (this.#running === mine) this.#running = null;
    }
  }

  #show(found, hint) {
    this.#found = found;
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
    find("found-box").hidden = document.activeElement !== this.#input;
    this.#input.setAttribute("aria-expanded", String(found.length > 0));
    this.#point(found.length ? 0 : -1);
    this.told?.(hint || `${found.length} found. Enter adds ${found[0].symbol}.`);
  }

  #point(at) {
    const items = [...find("found").children];
    this.#at = at;
    items.forEach((item, i) => item.setAttribute("aria-selected", String(i === at)));
    if (items[at]) this.#input.setAttribute("aria-activedescendant", items[at].id);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #pressed(event) {
    const count = find("found-box").hidden ? 0 : this.#found.length;
    if (event.key === "ArrowDown" && count) this.#point((this.#at + 1) % count);
    else if (event.key === "ArrowUp" && count) this.#point((this.#at + count - 1) % count);
    else if (event.key === "Enter") this.#enter();
    else if (event.key === "Escape") this.#escape();
    else return;
    event.preventDefault();
  }

  /** Add the instrument that is pointed at. Before the answer came, ask at once. */
  async #enter() {
    clearTimeout(this.#timer);
    const query = this.#input.value.trim();
    if (!query) return;
    if (query !== this.#asked) await this.#ask();
    if (query === this.#input.value.trim() && this.#found[this.#at]) this.#choose(this.#found[this.#at]);
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
    this.added(instrument.symbol);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#running?.abort();
    find("found-box").hidden = true;
    this.#input.setAttribute("aria-expanded", "false");
    this.#input.removeAttribute("aria-activedescendant");
  }
}

function nothing(query) {
  return `Nothing found for “${query}”. Try a symbol such as MSFT, or a word of the name.`;
}
