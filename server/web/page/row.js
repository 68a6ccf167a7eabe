/** One row of the table. It writes only the cells whose text changed. */

import { icon, make, prefersStillness } from "./dom.js";
import { NOTHING, duration, move, number, tone, volume } from "./format.js";
import { Sparkline, Trail } from "./sparkline.js";

/** Milliseconds in which a flash fades, and below which the next one does not begin anew. */
const FADES = 400;
const SPACING = 120;

const cell = (kind, ...children) => make("div", { role: "cell", className: `cell ${kind}` }, ...children);

export class Row {
  #filled = null;
  #texts = new Map();
  #flashed = 0;
  #price = null;
  #arrived = 0;

  /** The time of the price at the server, in milliseconds since 1970. */
  #time = null;

  constructor(symbol) {
    this.symbol = symbol;
    this.trail = new Trail();
    this.quote = null;
    this.isSeen = false;
    this.pick = make("button", { type: "button", className: "pick", tabIndex: -1 },
      make("b", { textContent: symbol }), make("span", { className: "title" }));
    this.pick.setAttribute("aria-describedby", "row-keys");
    this.grip = make("button", { type: "button", className: "grip", tabIndex: -1, title: "Drag to move" }, icon("grip"));
    this.grip.setAttribute("aria-label", `Move ${symbol}`);
    this.element = make("div", { role: "row", className: "row waits" }, cell("tight", this.grip), cell("name", this.pick));
    this.element.dataset.symbol = symbol;
  }

  /** Take in a quote, which is shown by the next `paint`. */
  take(quote, now, isLive) {
    const price = quote.current_price;
    if (typeof price === "number") this.trail.push(price, now);
    // Only a change that the page saw tells how old the price is by this machine's clock.
    if (isLive) this.#arrived = now;
    this.#time = Date.parse(quote.last_updated) || null;
    this.quote = quote;
  }

  /** Write what changed. `decimals` are those of the prices. */
  paint(decimals, now, flashes) {
    this.#fill();
    const { quote } = this;
    if (!quote) return;
    const [price, day] = [quote.current_price, tone(quote.change)];
    this.#put("title", quote.name ?? "");
    this.#put("price", number(price, decimals));
    this.#put("change", move(quote.change, decimals));
    this.#put("percent", move(quote.change_percent, 2, "%"));
    const hasBook = quote.bid !== null || quote.ask !== null;
    this.#put("bid", hasBook ? number(quote.bid, decimals) : "");
    this.#put("times", hasBook ? "×" : NOTHING);
    this.#put("ask", hasBook ? number(quote.ask, decimals) : "");
    this.#put("volume", volume(quote.volume));
    this.#class("change", `move ${day}`);
    this.#class("percent", `move ${day}`);
    this.#range(quote, decimals);
    this.#filled.spark.show(this.trail);
    this.age(now);
    this.element.classList.remove("waits");
    if (this.#price !== null && price !== this.#price) this.#tick(price > this.#price, now, flashes);
    this.#price = price;
  }

  /** Write how old the price is. */
  age(now) {
    if (!this.#filled || !this.quote) return;
    const since = this.#arrived || this.#time;
    this.#put("age", since ? duration(now - since) : NOTHING);
  }

  /** Return the milliseconds since the price came, or Infinity. */
  oldness(now) {
    return now - (this.#arrived || this.#time || -Infinity);
  }

  /** Say why the row has no quote. */
  refuse(text) {
    this.#fill();
    this.element.classList.remove("waits");
    this.element.classList.add("unknown");
    for (const each of [...this.element.children].slice(2, -1)) each.remove();
    this.element.lastChild.before(cell("told", text));
    this.isRefused = true;
  }

  /** Show that the symbol's prices do not flow: halted, closed or quiet. */
  mark(status) {
    this.element.classList.toggle("halted", status !== "");
    this.element.title = status;
  }

  /** Make the cells, which a row has only from when it was seen first. */
  #fill() {
    if (this.#filled) return;
    const figure = (kind = "figure") => make("span", { className: kind, textContent: NOTHING });
    const parts = {
      title: this.pick.lastChild,
      flash: make("span", { className: "flash" }),
      price: figure(), change: figure("move"), percent: figure("move"),
      bid: figure(), times: figure("times"), ask: figure(), volume: figure(), age: figure(),
      mark: make("i", { hidden: true }),
      day: make("span", { className: "unseen" }),
      spark: new Sparkline(),
    };
    parts.flash.setAttribute("aria-hidden", "true");
    const remove = make("button", { type: "button", className: "remove", tabIndex: -1, title: "Remove" }, icon("remove"));
    remove.setAttribute("aria-label", `Remove ${this.symbol}`);
    this.element.append(
      cell("price", parts.flash, parts.price),
      cell("change", parts.change),
      cell("percent", parts.percent),
      cell("book", parts.bid, parts.times, parts.ask),
      cell("volume", parts.volume),
      cell("day", make("span", { className: "range" }, parts.mark), parts.day),
      cell("trend", parts.spark.element),
      cell("age", parts.age),
      cell("tight last", remove),
    );
    this.#filled = parts;
  }

  #range({ low, high, current_price: price }, decimals) {
    const { mark } = this.#filled;
    const known = typeof low === "number" && typeof high === "number" && typeof price === "number";
    const place = known && high > low ? Math.round((200 * (price - low)) / (high - low)) / 2 : 50;
    if (this.#texts.get("mark") !== place) {
      mark.style.left = `${Math.min(100, Math.max(0, place))}%`;
      this.#texts.set("mark", place);
    }
    if (mark.hidden === known) mark.hidden = !known;
    const text = known ? `${number(low, decimals)} to ${number(high, decimals)}` : "No trades today";
    this.#put("day", text);
    if (mark.parentElement.title !== text) mark.parentElement.title = text;
  }

  /** Flash, without a change of the layout. */
  #tick(rose, now, flashes) {
    if (!flashes || now - this.#flashed < SPACING || prefersStillness()) return;
    this.#flashed = now;
    const { flash } = this.#filled;
    flash.className = rose ? "flash rose" : "flash fell";
    for (const running of flash.getAnimations()) running.cancel();
    flash.animate({ opacity: [1, 0] }, { duration: FADES, easing: "ease-out" });
  }

  #put(name, text) {
    if (this.#texts.get(name) === text) return;
    this.#texts.set(name, text);
    this.#filled[name].textContent = text;
  }

  #class(name, value) {
    if (this.#filled[name].className !== value) this.#filled[name].className = value;
  }
}
