/** Health with its history, the workers, and the sources of prices. */

import { find, make, write } from "../page/dom.js";
import { NOTHING, clock, duration } from "../page/format.js";
import { FORMATS, GRADES, count, seconds, size } from "./units.js";

const TONES = { healthy: "good", degraded: "warn", unhealthy: "bad", critical: "bad" };

/** Components as people call them. */
const NAMES = {
  pool: "Connections", refusals: "Refusals", errors: "Errors", clients: "Clients", event_loop: "Event loop",
  feed: "Feed", overload: "Overload", catalogue: "Database", cache: "Cache", write_back: "Writing to the database",
  bus: "Bus", publishing: "Published prices",
};

function worst(workers) {
  const grades = workers.map((each) => GRADES.indexOf(each.health.status));
  return GRADES[Math.max(0, ...grades)];
}

function chip(status) {
  return make("span", { className: "chip", "data-tone": TONES[status] ?? "idle", textContent: status });
}

/** Show all that an overview says of the workers. */
export function showHealth({ workers, silent }) {
  const status = silent.length ? "critical" : worst(workers);
  find("pill").dataset.tone = TONES[status];
  write(find("pill-text"), silent.length ? `${silent.length} silent` : status[0].toUpperCase() + status.slice(1));
  showComponents(workers);
  showHistory(workers);
  showWorkers(workers, silent);
  showSources(workers);
}

function named(worker, text) {
  return worker.worker === null ? text : `${text}, worker ${worker.worker}`;
}

/** Show each component once, the worst first. Workers that say the same share a line. */
function showComponents(workers) {
  const found = new Map();
  for (const { worker, health } of workers) {
    for (const [name, { status, detail = "" }] of Object.entries(health.components)) {
      const each = found.get(name) ?? { name, status, details: new Map() };
      if (GRADES.indexOf(status) > GRADES.indexOf(each.status)) each.status = status;
      each.details.set(detail, [...(each.details.get(detail) ?? []), worker]);
      found.set(name, each);
    }
  }
  const items = [...found.values()].toSorted((a, b) => GRADES.indexOf(b.status) - GRADES.indexOf(a.status));
  fill(find("components"), items, component);
  const since = workers.length ? Date.parse(workers[0].health.since) : NaN;
  write(find("health-since"), Number.isNaN(since) || workers.length > 1 ? "" : `${workers[0].health.status} since ${clock(since)}`);
}

function component({ name, status, details }) {
  const texts = [...details].map(([detail, numbers]) => {
    const which = details.size > 1 ? [make("span", { textContent: `${numbers.join(", ")}: ` })] : [];
    return make("p", {}, ...which, detail);
  });
  const title = make("b", { textContent: NAMES[name] ?? name.replaceAll("_", " ") });
  return make("li", {}, chip(status), title, make("div", { className: "details" }, ...texts));
}

/** One mark for each check, and the last times that something was wrong. */
function showHistory(workers) {
  const blocks = workers.map((worker) => {
    const { checks } = worker.health;
    const marks = checks.map((check) =>
      make("i", { "data-tone": TONES[check.status], title: `${clock(Date.parse(check.at))}: ${check.status}` }));
    const bad = checks.filter((each) => each.status !== "healthy").length;
    const span = checks.length > 1 ? duration(Date.parse(checks.at(-1).at) - Date.parse(checks[0].at)) : "";
    const which = named(worker, checks.length === 1 ? "The first check" : `The last ${checks.length} checks`);
    const text = which + (span ? `, ${span}` : "") + (bad ? `: ${bad} not healthy` : ": all healthy");
    const last = checks.findLast((each) => each.reasons?.length);
    return make("div", {},
      make("div", { className: "marks", role: "img", "aria-label": text }, ...marks),
      make("p", { className: "hint", textContent: text }),
      ...(last ? [make("p", { className: "last", textContent: `${clock(Date.parse(last.at))} ${last.reasons.join("; ")}` })] : []));
  });
  fill(find("history"), blocks, (each) => each);
}

function showWorkers(workers, silent) {
  const total = (metrics, start) =>
    Object.entries(metrics).filter(([name]) => name.startsWith(start)).reduce((sum, [, each]) => sum + each, 0);
  fill(find("worker-rows"), workers, ({ worker, health, metrics }) => {
    const leads = metrics.market_data_leader === 1;
    const bus = "market_data_bus_connected" in metrics;
    const state = leads ? (bus ? "leads" : "makes its own") : "follows";
    return make("tr", {},
      make("th", { scope: "row", textContent: worker === null ? "This server" : `Worker ${worker}` }),
      make("td", {}, chip(health.status)),
      make("td", { className: "bus", textContent: bus ? `${state}, epoch ${metrics.market_data_bus_epoch}` : state }),
      cell(count(total(metrics, "market_data_connections{"))),
      cell(count(metrics.market_data_subscriptions)),
      cell(size(metrics.market_data_bytes_sent_total)),
      cell(seconds(metrics.market_data_event_loop_lag_seconds)),
      cell(size(metrics.process_resident_memory_bytes)));
  });
  write(find("workers-hint"), workers.length > 1 ? `${workers.length} on this machine` : "");
  find("workers-silent").hidden = !silent.length;
  write(find("workers-silent"), `Worker ${silent.join(", ")} gives no answer. The supervisor replaces a worker that stays silent.`);
}

function cell(text) {
  return make("td", { className: "n", textContent: text });
}

function showSources(workers) {
  const sources = workers.flatMap((worker) => Object.entries(worker.health.publishing?.sources ?? {}));
  const takes = workers.some((each) => each.health.publishing);
  find("sources-scroll").hidden = !sources.length;
  find("sources-empty").hidden = sources.length > 0;
  write(find("sources-empty"), takes
    ? "No source has sent prices yet. A publisher sends them to /prices or /ws/prices."
    : "This server makes or replays its prices. With FEED=push, publishers send them.");
  const held = workers.reduce((sum, each) => sum + (each.health.publishing?.held ?? 0), 0);
  write(find("sources-hint"), takes ? `${count(held)} trades held` : "");
  fill(find("source-rows"), sources, ([name, { lag, rate, silence }]) =>
    make("tr", {},
      make("th", { scope: "row", textContent: name }),
      cell(seconds(lag)), cell(FORMATS["1/s"](rate)),
      cell(typeof silence === "number" ? duration(silence * 1000) : NOTHING)));
}

/** Replace the children of `box`, unless they would look the same: a screen reader keeps its place. */
function fill(box, items, build) {
  const children = items.map(build);
  const same = children.length === box.children.length
    && children.every((each, i) => each.isEqualNode(box.children[i]));
  if (!same) box.replaceChildren(...children);
}
