/**
 * A clock that stands until a test moves it. It takes the place of timers and `Date.now` for all modules.
 */

let now = 1_764_012_345_678;
let last = 0;
const timers = new Map();
const immediate = globalThis.setImmediate;

globalThis.setTimeout = (action, wait = 0) => add(action, wait, null);
globalThis.setInterval = (action, wait) => add(action, wait, wait);
globalThis.clearTimeout = globalThis.clearInterval = (id) => void timers.delete(id);
Date.now = () => now;

function add(action, wait, every) {
  timers.set(++last, { at: now + wait, action, every });
  return last;
}

export function clock() {
  return now;
}

/** Set the clock without running timers, as for a machine that slept. */
export function jump(milliseconds) {
  now += milliseconds;
  for (const timer of timers.values()) timer.at += milliseconds;
}

/** Go to the next timer and run it. Return whether there was one, due within `limit` if it is given. */
export function nextTimer(limit = Infinity) {
  const [next] = [...timers].sort(([, one], [, other]) => one.at - other.at);
  if (!next || next[1].at > limit) return false;
  const [id, timer] = next;
  now = Math.max(now, timer.at);
  if (timer.every === null) timers.delete(id);
  else timer.at += timer.every;
  timer.action();
  return true;
}

/** Run all timers of the next milliseconds. */
export function advance(milliseconds) {
  const end = now + milliseconds;
  while (nextTimer(end));
  now = end;
}

/** Let everything run that waits for no timer. */
export async function settle() {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => immediate(resolve));
}
