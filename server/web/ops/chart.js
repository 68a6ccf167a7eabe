/** One small chart of the last hour: up to four lines, an axis with values, and the values of a moment. */

import { draw, make, write } from "../page/dom.js";
import { FORMATS, top } from "./units.js";

const [WIDTH, HEIGHT] = [300, 64];

/** Points of the shortest time axis: ten minutes. A server that just started has no hour. */
export const FEWEST = 60;

const LINES = 4;

export class Chart {
  #lines = [];
  #paths = [];
  #legend = [];
  #span = FEWEST;
  #unit = "";

  /** `lines` returns the names of the series and their labels; `main` is the number of the line whose
   * value is the chart's own, else that is the largest. */
  constructor({ title, lines, note, main = null }) {
    this.title = title;
    this.lines = lines;
    this.note = note;
    this.main = main;
    this.#build();
  }

  #build() {
    this.value = make("p", { className: "value" });
    this.legend = make("p", { className: "legend" });
    this.top = make("span", { className: "top" });
    this.bottom = make("span", { className: "bottom" });
    this.cursor = draw("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.area = draw("path", { class: "area" });
    for (let number = 0; number < LINES; number += 1) {
      this.#paths.push(draw("path", { class: `line line-${number}` }));
    }
    const grid = draw("path", { class: "grid", d: `M0 0.5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}` });
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      grid, this.area, ...this.#paths.toReversed(), this.cursor);
    this.said = make("p", { className: "unseen" });
    const plot = make("div", { className: "plot" }, this.svg, this.top, this.bottom);
    const head = make("div", { className: "chart-head" }, make("h3", { textContent: this.title }), this.value);
    this.element = make("div", { className: "chart" }, head, plot, this.legend, this.said);
    this.plot = plot;
  }

  /** Draw the newest points. */
  draw(hour, span) {
    this.#span = span;
    this.#lines = this.lines(hour).slice(0, LINES).map(({ name, label }) => ({ label, ...hour.get(name) }));
    this.#unit = this.#lines[0]?.unit ?? "";
    const known = this.#lines.flatMap((line) => line.points).filter((each) => each !== null);
    const highest = top(Math.max(0, ...known), this.#unit);
    this.#paths.forEach((path, number) => {
      const points = this.#lines[number]?.points ?? [];
      path.setAttribute("d", shape(points, highest, span));
    });
    const first = this.#lines[0]?.points ?? [];
    this.area.setAttribute("d", this.#lines.length === 1 ? shape(first, highest, span, true) : "");
    const format = FORMATS[this.#unit];
    write(this.top, known.length ? format(highest).replace(/\.0(?!\d)/, "") : "");
    write(this.bottom, known.length && this.#unit !== "grade" ? "0" : "");
    this.element.classList.toggle("unknown", known.length === 0);
    this.#say(known, format);
    this.show(null, hour);
  }

  /** Show the values of a point, `back` before the newest; null for the newest. */
  show(back, hour) {
    const format = FORMATS[this.#unit];
    const at = (line) => line.points.at(-1 - (back ?? 0)) ?? null;
    const values = this.#lines.map(at);
    const main = this.main === null ? values.reduce(larger, null) : values[this.main];
    write(this.value, format(main));
    const isKnown = !this.element.classList.contains("unknown");
    const note = back === null && isKnown ? this.note?.(hour) : "";
    const labelled = this.#lines.some((line) => line.label);
    // The main line's value is the chart's own.
    const told = ({ label }, i) => (i === this.main ? label : `${label} ${format(values[i])}`);
    this.#tell(labelled ? this.#lines.map(told) : [], note ?? "");
    const x = WIDTH - (WIDTH / (this.#span - 1)) * (back ?? 0);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.cursor.setAttribute("visibility", back === null ? "hidden" : "visible");
  }

  #tell(parts, note) {
    const wanted = parts.length || 1;
    while (this.#legend.length < wanted) {
      const [mark, text] = [make("i", { className: `mark-${this.#legend.length}` }), make("span")];
      const item = make("span", { className: "item" }, mark, text);
      this.legend.append(item);
      this.#legend.push({ item, mark, text });
    }
    this.#legend.forEach(({ item, mark, text }, number) => {
      item.hidden = number >= wanted;
      mark.hidden = parts.length === 0;
      write(text, parts[number] ?? (number === 0 ? note : ""));
    });
  }

  #say(known, format) {
    if (!known.length) {
      write(this.said, "No values yet.");
      return;
    }
    write(this.said, `Lowest ${format(Math.min(...known))}, highest ${format(Math.max(...known))}.`);
  }
}

function larger(one, other) {
  return one === null || (other !== null && other > one) ? other : one;
}

/** Return the path of points. Missing points interrupt it. With `filled`, it encloses the area below. */
function shape(points, highest, span, filled = false) {
  const shown = points.slice(-span);
  const step = WIDTH / (span - 1);
  const x = (place) => (WIDTH - step * (shown.length - 1 - place)).toFixed(1);
  const y = (value) => (HEIGHT - 1 - (Math.min(value, highest) / highest) * (HEIGHT - 2)).toFixed(1);
  const parts = runs(shown).map((run) => {
    const line = run.map(([place, value]) => `${x(place)} ${y(value)}`).join("L");
    // A length makes a lone point visible.
    if (!filled) return `M${line}h0.01`;
    return `M${x(run[0][0])} ${HEIGHT}L${line}L${x(run.at(-1)[0])} ${HEIGHT}Z`;
  });
  return parts.join("");
}

/** Return the runs of points without a gap, each as a list of `[place, value]`. */
function runs(points) {
  const found = [];
  points.forEach((value, place) => {
    if (value === null) return;
    if (place === 0 || points[place - 1] === null) found.push([]);
    found.at(-1).push([place, value]);
  });
  return found;
}
