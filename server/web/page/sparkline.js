/** The last hour of a symbol as a small line. */

import { draw } from "./dom.js";
import { tone } from "./format.js";

/** Points of a line: its last hour in minutes. */
const POINTS = 60;
const MINUTE = 60_000;

/** Milliseconds between the first points without history, so that a new server's line fills soon. */
const AT_FIRST = 1000;

/** Milliseconds between two drawings of a line. It shows an hour, so nobody sees more of them. */
const REDRAWN = 500;

/** Closing prices from which on a line counts as history. */
const HISTORY = 8;

const [WIDTH, HEIGHT] = [100, 24];

/** Prices at equal distances. The last point is the newest price. */
export class Trail {
  /** Grows with each change of the line. */
  version = 0;

  #points = [];
  #spacing = AT_FIRST;
  #movedAt = 0;

  /** Begin with closing prices. */
  begin(closes, now) {
    if (closes.length === 0) return;
    this.version += 1;
    this.#points = [...closes.slice(-POINTS + 1), this.#points.at(-1) ?? closes.at(-1)];
    if (closes.length >= HISTORY) this.#spacing = MINUTE;
    this.#movedAt = now;
  }

  push(price, now) {
    if (price !== this.#points.at(-1)) this.version += 1;
    if (now - this.#movedAt >= this.#spacing || this.#points.length === 0) {
      this.version += 1;
      this.#points.push(price);
      this.#movedAt = now;
      if (this.#points.length > POINTS) this.#makeRoom();
    } else {
      this.#points[this.#points.length - 1] = price;
    }
  }

  /** Forget the oldest point, or each second one of a line that does not show an hour yet. */
  #makeRoom() {
    if (this.#spacing === MINUTE) {
      this.#points.shift();
      return;
    }
    this.#points = this.#points.filter((_, place) => place % 2 === 0);
    this.#spacing = Math.min(MINUTE, 2 * this.#spacing);
  }

  /** Return the line's points as SVG has them, and the class of its whole move. */
  shape() {
    const points = this.#points;
    if (points.length < 2) return { line: "", tone: "" };
    let [low, high] = [Infinity, -Infinity];
    for (const price of points) {
      if (price < low) low = price;
      if (price > high) high = price;
    }
    const [x, y] = [WIDTH / (points.length - 1), high > low ? (HEIGHT - 4) / (high - low) : 0];
    const middle = y ? HEIGHT - 2 : HEIGHT / 2;
    const line = points.map((price, i) => `${(i * x).toFixed(1)},${(middle - (price - low) * y).toFixed(1)}`);
    return { line: line.join(" "), tone: tone(points.at(-1) - points[0]) };
  }
}

/** Shows a trail. */
export class Sparkline {
  #line = draw("polyline", { points: "" });
  #shown = 0;
  #drawnAt = 0;
  #tone = "";

  constructor() {
    this.element = draw(
      "svg",
      { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.#line,
    );
  }

  /** Draw a line that changed. One that was drawn a moment ago waits for a later call. */
  show(trail, now) {
    const isEarly = Math.abs(now - this.#drawnAt) < REDRAWN;
    if (trail.version === this.#shown || (isEarly && this.#shown)) return;
    [this.#shown, this.#drawnAt] = [trail.version, now];
    const { line, tone: way } = trail.shape();
    this.#line.setAttribute("points", line);
    if (way !== this.#tone) this.element.setAttribute("class", `spark ${way}`);
    this.#tone = way;
  }
}
