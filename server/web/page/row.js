/** The row of one symbol. It writes only the cells whose text changed. */

import { icon, make, prefersStillness } from "./dom.js";
import { NOTHING, duration, move, number, tone, volume } from "./format.js";
import { Sparkline } from "./sparkline.js";

/** Milliseconds in which a flash fades, and below which the next one does not begin anew. */
const FADES = 400;
const SPACING = 120;

const cell = (kind, ...children) => make("div", { role: "cell", className: `cell ${kind}` }, ...children);
const figure = (kind = "figure", text = NOTHING) => make("span", { className: kind, textContent: text });

export class Row {
  #texts = new Map();
  #flashed = 0;
  #flashing = null;
  #price = null;
  #parts;
  #kind = "waits";

  constructor(entry) {
    this.entry = entry;
    const { symbol } = entry;
    this.pick = make("button", { type: "button", className: "pick", tabIndex: -1, "aria-describedby": "row-keys" },
      make("b", { textContent: symbol }), make("span"));
    this.element = make("div", { role: "row", className: "row waits" });
    this.element.dataset.symbol = symbol;
    this.#parts = this.#fill(symbol);
  }

  /** Write what changed. `decimals` are those of the prices. */
  paint(decimals, now) {
    const { quote, refusal, status } = this.entry;
    this.#become(refusal ? "unknown" : !quote ? "waits" : status ? "halted" : "priced");
    this.#put("told", refusal ?? "");
    if (!quote || refusal) return;
    const [price, day] = [quote.current_price, tone(quote.change)];
    const hasBook = quote.bid != null || quote.ask != null;
    this.#put("title", quote.name ?? "");
    this.#put("price", number(price, decimals));
    this.#put("change", move(quote.change, decimals), `move ${day}`);
    this.#put("percent", move(quote.change_percent, 2, "%"), `move ${day}`);
    this.#put("bid", hasBook ? number(quote.bid, decimals) : "");
    this.#put("times", hasBook ? "×" : NOTHING);
    this.#put("ask", hasBook ? number(quote.ask, decimals) : "");
    this.#put("volume", volume(quote.volume));
    this.#range(quote, decimals);
    this.age(now);
    if (this.#price !== null && price !== this.#price) this.#flash(price > this.#price, now);
    this.#price = price;
  }

  /** Return the lengths of the texts that make columns wide, in characters. */
  get lengths() {
    const length = (name) => this.#texts.get(name)?.length ?? 0;
    return { price: length("price"), change: length("change"), book: length("bid") + length("ask") };
  }

  /** Write what time changes: how old the price is, and a line that waits for its turn. */
  age(now) {
    this.#parts.spark.show(this.entry.trail, now);
    const age = this.entry.age(now);
    const { status } = this.entry;
    const text = status?.status ?? (age === undefined ? NOTHING : duration(age));
    if (this.#put("age", text)) this.#parts.age.title = status?.reason ?? "";
  }

  choose(isChosen) {
    this.element.classList.toggle("chosen-row", isChosen);
    this.pick.setAttribute("aria-pressed", String(isChosen));
  }

  #fill(symbol) {
    const parts = {
      title: this.pick.lastChild,
      flash: make("span", { className: "flash", "aria-hidden": "true" }),
      price: figure(), change: figure("move"), percent: figure("move"),
      bid: figure("side", ""), times: figure("times"), ask: figure("side", ""),
      volume: figure(), age: figure(), mark: make("i", { hidden: true }),
      day: figure("unseen", ""), spark: new Sparkline(), told: figure("told", ""),
    };
    const button = (kind, name, title) => {
      const properties = { type: "button", className: kind, tabIndex: -1, title };
      return make("button", { ...properties, "aria-label": `${name} ${symbol}` }, icon(kind));
    };
    this.element.append(
      cell("tight", button("grip", "Move", "Drag to move")),
      cell("name", this.pick),
      cell("price", parts.flash, parts.price),
      cell("change", parts.change),
      cell("percent", parts.percent),
      cell("book", parts.bid, parts.times, parts.ask),
      cell("volume", parts.volume),
      cell("day", make("span", { className: "range" }, parts.mark), parts.day),
      cell("trend", parts.spark.element),
      cell("age", parts.age),
      cell("tight last", button("remove", "Remove", "Remove")),
    );
    this.element.children[1].append(parts.told);
    return parts;
  }

  #become(kind) {
    if (kind === this.#kind) return;
    this.element.classList.replace(this.#kind, kind);
    this.#kind = kind;
  }

  #range({ low, high, current_price: price }, decimals) {
    const { mark } = this.#parts;
    const known = typeof low === "number" && typeof high === "number" && typeof price === "number";
    const place = known && high > low ? Math.round((200 * (price - low)) / (high - low)) / 2 : 50;
    if (this.#texts.get("mark") !== place) {
      mark.style.left = `${Math.min(100, Math.max(0, place))}%`;
      this.#texts.set("mark", place);
    }
    if (mark.hidden === known) mark.hidden = !known;
    const text = known ? `${number(low, decimals)} to ${number(high, decimals)}` : "No trades yet";
    if (this.#put("day", text)) mark.parentElement.title = text;
  }

  /** Flash, without a change of the layout. */
  #flash(rose, now) {
    if (now - this.#flashed < SPACING || prefersStillness()) return;
    this.#flashed = now;
    const { flash } = this.#parts;
    const kind = rose ? "flash rose" : "flash fell";
    if (flash.className !== kind) flash.className = kind;
    // One animation for all flashes. To look for a running one would compute all styles anew.
    this.#flashing ??= flash.animate({ opacity: [1, 0] }, { duration: FADES, easing: "ease-out" });
    this.#flashing.currentTime = 0;
    this.#flashing.play();
  }

  /** Write a part's text and class. Return whether the text is another one. */
  #put(name, text, kind) {
    const part = this.#parts[name];
    if (kind && part.className !== kind) part.className = kind;
    if (this.#texts.get(name) === text) return false;
    this.#texts.set(name, text);
    // A new node would cost more than another text in the same one.
    if (part.firstChild) part.firstChild.data = text;
    else part.textContent = text;
    return true;
  }
}
