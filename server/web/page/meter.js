/** The cost of the stream: messages and bytes a second, and bytes of an update in each format. */

import { find, make, write } from "./dom.js";
import { NOTHING, bytes, rate } from "./format.js";
import { colour } from "./theme.js";

export const FORMATS = ["json", "compact", "msgpack"];
export const FORMAT_NAMES = { json: "JSON", compact: "Compact", msgpack: "MessagePack" };

/** Seconds that the drawing shows, and over which rates are averaged. */
const SHOWN = 60;
const AVERAGED = 5;

/** Seconds after a new connection that say nothing of an update's size: full quotes come. */
const SETTLING = 2;

export class Meter {
  #stream;
  #canvas = find("meter");
  #seconds = [];
  #updates = 0;
  #last;
  #settles = SETTLING;
  #totals = new Map();
  #colours = null;

  constructor(stream) {
    this.#stream = stream;
    this.#last = stream.stats;
    this.#lists();
    stream.addEventListener("change", () => (this.#updates += 1));
    setInterval(() => this.#second(), 1000);
  }

  /** Take the colours of the present theme. */
  recolour() {
    this.#colours = null;
    this.#draw();
  }

  #second() {
    const { messages, bytes: size, connects } = this.#stream.stats;
    const format = this.#stream.format ?? null;
    const now = { messages: messages - this.#last.messages, bytes: size - this.#last.bytes, format };
    if (connects !== this.#last.connects || !format) this.#settles = SETTLING;
    this.#last = { messages, bytes: size, connects };
    this.#seconds.push(now);
    if (this.#seconds.length > SHOWN) this.#seconds.shift();
    if (this.#settles > 0) this.#settles -= 1;
    else if (this.#updates) this.#weigh(format, now.bytes, this.#updates);
    this.#updates = 0;
    this.#tell();
    if (!document.hidden) this.#draw();
  }

  /** Count an update's bytes. Older seconds count less, so that the number follows the market. */
  #weigh(format, size, updates) {
    const total = this.#totals.get(format) ?? { size: 0, updates: 0 };
    total.size = total.size * 0.8 + size;
    total.updates = total.updates * 0.8 + updates;
    this.#totals.set(format, total);
  }

  #weight(format) {
    const total = this.#totals.get(format);
    return total ? total.size / total.updates : null;
  }

  #tell() {
    const recent = this.#seconds.slice(-AVERAGED);
    const mean = (name) => recent.reduce((sum, each) => sum + each[name], 0) / recent.length;
    write(find("messages"), `${rate(mean("messages"))}/s`);
    write(find("traffic"), `${bytes(mean("bytes"))}/s`);
    const weight = this.#weight(this.#stream.format);
    write(find("weight"), weight === null ? NOTHING : bytes(weight));
    const largest = Math.max(1, ...FORMATS.map((format) => this.#weight(format) ?? 0));
    for (const item of find("weights").children) {
      const { format } = item.dataset;
      const own = this.#weight(format);
      item.classList.toggle("now", format === this.#stream.format);
      item.children[1].firstChild.style.width = `${own === null ? 0 : (100 * own) / largest}%`;
      write(item.children[2], own === null ? NOTHING : bytes(own));
    }
  }

  #lists() {
    for (const format of FORMATS) {
      const item = make("li", {}, make("span", { textContent: FORMAT_NAMES[format] }),
        make("span", {}, make("i")), make("span", { textContent: NOTHING }));
      item.dataset.format = format;
      find("weights").append(item);
    }
  }

  #draw() {
    const canvas = this.#canvas;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    this.#colours ??= { bar: colour("--accent"), base: colour("--line") };
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.fillStyle = this.#colours.base;
    context.fillRect(0, height - 1, width, 1);
    // The first second of a connection brings all quotes. It would hide what follows.
    const sorted = this.#seconds.map((each) => each.bytes).sort((a, b) => a - b);
    const top = Math.max(200, 1.15 * (sorted[Math.floor(0.95 * (sorted.length - 1))] ?? 0));
    const step = width / SHOWN;
    context.fillStyle = this.#colours.bar;
    this.#seconds.forEach((each, i) => {
      const tall = Math.min(1, each.bytes / top) * (height - 2);
      const x = width - (this.#seconds.length - i) * step;
      context.fillRect(x, height - 1 - tall, Math.max(1, step - 1), tall);
    });
    write(find("meter-top"), `up to ${bytes(top)}`);
  }
}
