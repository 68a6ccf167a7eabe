/** The charts of the last hour. All of them show the same moment. */

import { announce, find, write } from "../page/dom.js";
import { clock } from "../page/format.js";
import { Chart, FEWEST } from "./chart.js";
import { FORMATS, count } from "./units.js";

const LONGEST = 360;

/** Lines that a chart of many names shows: those with the most of it in the hour. */
const SHOWN = 4;

const one = (name) => () => [{ name, label: "" }];

function sum(points) {
  return points.reduce((total, each) => total + (each ?? 0), 0);
}

/** Return the series that begin so, those with the most first. */
function most(start) {
  return (hour) =>
    hour
      .named(start)
      .map((name) => ({ name, label: name.slice(start.length).replaceAll("_", " "), total: sum(hour.get(name).points) }))
      .toSorted((a, b) => b.total - a.total)
      .slice(0, SHOWN);
}

function highest(name) {
  return (hour) => {
    const { points, unit } = hour.get(name);
    const known = points.filter((each) => each !== null);
    return known.length ? `at most ${FORMATS[unit](Math.max(...known))}` : "";
  };
}

/** Return a note with the number of events in the hour. */
function happened(name, what, several = `${what}s`) {
  return (hour) => {
    const total = Math.round(sum(hour.get(name).points) * hour.interval);
    return total ? `${count(total)} ${total === 1 ? what : several}` : `no ${several}`;
  };
}

const CHARTS = [
  { title: "Connections", lines: one("connections"), note: highest("connections") },
  { title: "Messages", lines: one("messages"), note: highest("messages") },
  { title: "Bytes", lines: one("bytes"), note: highest("bytes") },
  {
    title: "Delivery latency",
    main: 0,
    lines: () => [
      { name: "latency_p95", label: "p95" },
      { name: "latency_p50", label: "p50" },
      { name: "latency_p99", label: "p99" },
    ],
  },
  { title: "Event loop lag", lines: one("lag"), note: highest("lag") },
  { title: "Refused connections", lines: (hour) => refusals(hour), note: () => "none in this hour" },
  { title: "Breakers not closed", lines: one("breakers"), note: highest("breakers") },
  { title: "Conflated updates", lines: one("conflated"), note: happened("conflated", "update merged", "updates merged") },
  { title: "Cache hits", lines: one("cache_hits"), note: () => "of the symbols not in memory" },
  { title: "Database statement", lines: one("database_time"), note: happened("database_errors", "error") },
  { title: "Bus round trip", lines: one("bus_round_trip"), note: happened("bus_gaps", "gap") },
  { title: "Trades taken in", lines: one("trades"), note: highest("trades") },
  { title: "Lag of sources", lines: (hour) => some(most("source_lag.")(hour), "source_lag"), note: () => "" },
  { title: "Leaders here", lines: one("leaders"), note: () => "workers that make the prices" },
  { title: "Processors", lines: one("cpu"), note: highest("cpu") },
  { title: "Memory", lines: one("memory"), note: highest("memory") },
];

function some(lines, otherwise) {
  return lines.length ? lines : [{ name: otherwise, label: "" }];
}

function refusals(hour) {
  const reasons = most("refused.")(hour).filter((each) => each.total > 0);
  return some(reasons, "refused");
}

export class Charts {
  #charts = CHARTS.map((each) => new Chart(each));
  #hour;
  #back = null;
  #span = FEWEST;

  constructor(hour) {
    this.#hour = hour;
    const box = find("charts");
    box.append(...this.#charts.map((each) => each.element));
    box.addEventListener("pointermove", (event) => this.#point(event));
    box.addEventListener("pointerleave", () => this.#show(null));
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("blur", () => this.#show(null));
  }

  draw() {
    this.#span = Math.min(LONGEST, Math.max(FEWEST, this.#hour.length));
    const minutes = Math.round((this.#span * this.#hour.interval) / 60);
    write(find("hour-title"), minutes >= 60 ? "The last hour" : `The last ${minutes} minutes`);
    if (this.#hour.length) {
      const [from, to] = [this.#span - 1, 0].map((back) => clock(this.#hour.time(back)));
      write(find("hour-hint"), `${from} to ${to}, a point every ${this.#hour.interval} seconds`);
    }
    for (const each of this.#charts) each.draw(this.#hour, this.#span);
    this.#show(this.#back);
  }

  #point(event) {
    const plot = event.target.closest?.(".chart")?.querySelector(".plot");
    if (!plot) return;
    const { left, width } = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - left) / width));
    this.#show(Math.round((1 - share) * (this.#span - 1)));
  }

  #key(event) {
    const steps = { ArrowLeft: 1, ArrowRight: -1, PageUp: 30, PageDown: -30 };
    if (event.key === "Escape") this.#show(null);
    else if (event.key in steps) {
      event.preventDefault();
      this.#show(Math.min(this.#span - 1, Math.max(0, (this.#back ?? 0) + steps[event.key])));
      announce(find("moment").textContent);
    }
  }

  #show(back) {
    this.#back = back;
    for (const each of this.#charts) each.show(back, this.#hour);
    write(find("moment"), back === null ? "" : clock(this.#hour.time(back)));
  }
}
