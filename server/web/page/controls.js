/** The sliders and the pause button: how often prices come, and in which format. */

import { announce, find, write } from "./dom.js";
import { FORMATS, FORMAT_NAMES } from "./meter.js";
import { settings } from "./settings.js";

/** Times between two updates of a symbol that servers offer, in milliseconds. */
const INTERVALS = [0, 250, 500, 1000, 2000, 5000];
const named = (ms) => (ms === 0 ? "as it comes" : ms < 1000 ? `${ms} ms` : `${ms / 1000} s`);

/** Milliseconds without a move of the slider after which the server is told. */
const SETTLED = 150;

/** Return the visitor's kept choices, as options of `connect`. */
export function keptOptions() {
  const format = settings.get("format");
  const interval = Number(settings.get("interval"));
  return {
    format: FORMATS.includes(format) ? format : "compact",
    interval: INTERVALS.includes(interval) ? interval : 0,
  };
}

/** Let the controls act on a connection. */
export function bindControls(stream, { format, interval }) {
  slider("throttle", INTERVALS, interval, named, (chosen) => {
    settings.set("interval", chosen);
    stream.throttle(chosen).catch(({ message }) => {
      write(find("throttle-value"), "not set");
      announce(`How often prices come was not set: ${message}`);
    });
  });
  slider("format", FORMATS, format, (each) => FORMAT_NAMES[each], (chosen) => {
    settings.set("format", chosen);
    stream.reconnect({ format: chosen });
  });
  find("pause").addEventListener("click", () => togglePause(stream));
}

/** Pause prices, or go on. */
export function togglePause(stream) {
  if (stream.state === "sleeping" && stream.reason?.code === "paused") stream.resume();
  else stream.pause();
}

function slider(id, values, first, name, chosen) {
  const input = find(id);
  let timer = 0;
  const tell = () => {
    const text = name(values[input.value]);
    write(find(`${id}-value`), text);
    input.setAttribute("aria-valuetext", text);
  };
  input.max = values.length - 1;
  input.value = values.indexOf(first);
  tell();
  input.addEventListener("input", () => {
    tell();
    clearTimeout(timer);
    timer = setTimeout(() => chosen(values[input.value]), SETTLED);
  });
}
