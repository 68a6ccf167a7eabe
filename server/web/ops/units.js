/** Numbers of the overview as people read them. */

import { NOTHING, bytes, duration, number, rate } from "../page/format.js";

/** Return a count: 12, 3,400, 1.20M. */
export function count(value) {
  if (typeof value !== "number") return NOTHING;
  return value < 1e6 ? number(value, 0) : `${number(value / 1e6, 2)}M`;
}

/** Return seconds with the unit that fits: 0.3 ms, 12 ms, 1.5 s. */
export function seconds(value) {
  if (typeof value !== "number") return NOTHING;
  if (value === 0) return "0 ms";
  if (value < 0.00005) return "<0.1 ms";
  if (value < 0.00995) return `${number(value * 1000, 1)} ms`;
  if (value < 0.9995) return `${number(value * 1000, 0)} ms`;
  return duration(value * 1000);
}

/** Return a size of memory or an amount of traffic. */
export function size(value) {
  if (typeof value !== "number") return NOTHING;
  return value < 999.5e6 ? bytes(value) : `${number(value / 1e9, 1)} GB`;
}

export function share(value) {
  return typeof value === "number" ? `${number(value * 100, value > 0 && value < 0.1 ? 1 : 0)} %` : NOTHING;
}

function perSecond(value) {
  return typeof value === "number" ? `${value < 1e6 ? rate(value) : count(value)}/s` : NOTHING;
}

/** The states of health, the best first. */
export const GRADES = ["healthy", "degraded", "unhealthy", "critical"];

/** The formats by the unit of a series. */
export const FORMATS = {
  "": count,
  "1/s": perSecond,
  "B/s": (value) => (typeof value === "number" ? `${size(value)}/s` : NOTHING),
  B: size,
  s: seconds,
  share,
  cores: (value) => (typeof value === "number" ? number(value, 2) : NOTHING),
  grade: (value) => GRADES[value] ?? NOTHING,
};

/** The smallest top of an axis by unit, so that noise does not look like a mountain. */
const LOWEST_TOP = { "": 4, "1/s": 1, "B/s": 1000, B: 1e6, s: 0.001, share: 1, cores: 0.1, grade: 3 };

/** Return the end of an axis: the next of 1, 2 or 5 times a power of ten, for bytes too. */
export function top(value, unit) {
  const least = LOWEST_TOP[unit];
  if (unit === "share" || unit === "grade" || !(value > least)) return least;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value * 0.999);
}
