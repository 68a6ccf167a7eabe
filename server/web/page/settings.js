/** The visitor's choices, which the browser keeps. If it refuses, the page keeps them until it is closed. */

const PREFIX = "quotestream.";

function storage(kind) {
  const kept = new Map();
  const attempt = (use, otherwise) => {
    try {
      return use(globalThis[kind]);
    } catch {
      return otherwise();
    }
  };
  return {
    get: (name) => attempt((store) => store.getItem(PREFIX + name), () => kept.get(name) ?? null),
    set(name, value) {
      kept.set(name, value);
      attempt((store) => store.setItem(PREFIX + name, value), () => {});
    },
    remove(name) {
      kept.delete(name);
      attempt((store) => store.removeItem(PREFIX + name), () => {});
    },
  };
}

/** Kept until the visitor clears it. */
export const settings = storage("localStorage");

/** Kept until the tab is closed. */
export const tabOnly = storage("sessionStorage");
