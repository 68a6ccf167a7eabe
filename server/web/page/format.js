/** Numbers and times as people read them. */

const MINUS = "−";
export const NOTHING = "–";

/** Price formats by their decimals. Making one takes far longer than using it. */
const formats = new Map();

function format(decimals) {
  let found = formats.get(decimals);
  if (!found) {
    const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    found = new Intl.NumberFormat("en-US", digits);
    formats.set(decimals, found);
  }
  return found;
}

/** Return a number with this many decimals: 1,234.50, −37.63. */
export function number(value, decimals) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NOTHING;
  const text = format(decimals).format(Math.abs(value));
  return value < 0 && /[1-9]/.test(text) ? MINUS + text : text;
}

/** Return a move with an arrow and without a sign: ▲ 0.42. No move has no arrow. */
export function move(value, decimals, unit = "") {
  if (typeof value !== "number" || !Number.isFinite(value)) return NOTHING;
  return `${arrow(value)}${format(decimals).format(Math.abs(value))}${unit}`;
}

function arrow(value) {
  return value > 0 ? "▲\u00a0" : value < 0 ? "▼\u00a0" : "";
}

/** Return the class of a move: up, down or none. */
export function tone(value) {
  return value > 0 ? "up" : value < 0 ? "down" : "";
}

const short = new Intl.NumberFormat("en-US", { notation: "compact", minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** Return a volume in few characters: 12.35M. */
export function volume(value) {
  if (typeof value !== "number") return NOTHING;
  return Math.abs(value) < 10_000 ? number(value, Math.min(decimalsOf(value), 4)) : short.format(value);
}

/** Return the number of decimals that a number has: 2 for 175.92, 7 for 1e-7. */
export function decimalsOf(value) {
  if (typeof value !== "number") return 0;
  const [digits, power = "0"] = String(value).split("e");
  const own = digits.split(".")[1]?.length ?? 0;
  return Math.min(12, Math.max(0, own - Number(power)));
}

/** Return the length of a time in few characters: 0.4 s, 12 s, 3 m, 5 h, 2 d. */
export function duration(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** Return a number of bytes in few characters: 812 B, 1.2 kB, 3.4 MB. */
export function bytes(count) {
  if (count < 1000) return `${Math.round(count)} B`;
  if (count < 999_500) return `${(count / 1000).toFixed(count < 9950 ? 1 : 0)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

/** Return a rate: 0.4, 12, 3,400. */
export function rate(perSecond) {
  return number(perSecond, perSecond > 0 && perSecond < 9.95 ? 1 : 0);
}

/** Return a text with its times in UTC as those of this place: Fri, Nov 27, 15:30. */
export function inLocalTime(text) {
  const time = { weekday: "short", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return text.replace(/\b\d{4}-\d\d-\d\dT[\d:.]+Z/g, (utc) => new Date(utc).toLocaleString([], time));
}

/** Return a time of day of this place. */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}
