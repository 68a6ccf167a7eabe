/** The words for each state of the connection: pure, without the document. */

import { clock, inLocalTime } from "./format.js";

/** Advice by the code of a reason. */
const ADVICE = {
  unreachable: "The page comes back by itself as soon as the server does.",
  no_token: "The page tries again by itself.",
  connection_lost: "The page comes back by itself. What you missed is fetched then.",
  going_away: "The server restarts or moves. The page comes back by itself.",
  too_slow: "Choose “How often” at 1 s or more, or a shorter list.",
  too_many_connections: "Close other tabs of this page.",
  at_capacity: "The server is full. The page tries again by itself.",
  feed_quiet: "The market may rest. Prices go on by themselves.",
  feed_ended: "The last prices stay here.",
  bus_lost: "Operators see more on their page.",
  leader_lost: "Another server takes over within seconds.",
  origin_not_allowed: "Open the page at the address that your operator gave you.",
  not_entitled: "Your token does not include these symbols. Remove them, or ask for another token.",
  too_many_symbols: "Remove some symbols.",
};

/**
 * Return `{tone, title, pill, text, action}` of a connection.
 *
 * `newest`: how old the newest price is. tone: good, warn, bad or idle. action: null, "retry", "resume"
 * or "token".
 */
export function describe({ state, reason, retryAt, askedUntil, lag, isTokenWanted, pausedAt, newest }, now) {
  const advice = ADVICE[reason?.code] ?? "";
  // The message of a failed fetch is the browser's.
  const message = reason?.code === "no_token" ? "The server gives no token." : reason?.message;
  const because = inLocalTime([message, advice].filter(Boolean).join(" "));
  const show = (tone, title, text, action = null, pill = title) => ({ tone, title, pill, text, action });
  if (isTokenWanted) {
    return show("idle", "A token is needed", "Prices come as soon as you give one.", "token", "No token");
  }
  switch (state) {
    case "live":
      return show("good", "Live", behind(lag));
    case "stale":
      return show("warn", "Stale", [because, newest].filter(Boolean).join(" "));
    case "waiting": {
      const seconds = Math.max(0, Math.ceil((retryAt - now) / 1000));
      // Until the server's own time, "Try now" would try nothing.
      const action = askedUntil ? null : "retry";
      const title = seconds ? `Reconnecting in ${seconds} s` : "Reconnecting";
      // A phone's head has no room for more.
      return show("bad", title, because, action, seconds ? `Retry in ${seconds} s` : "Retrying");
    }
    case "sleeping": {
      const { code } = reason;
      if (code === "paused") return show("idle", "Paused", `Prices stand still since ${clock(pausedAt)}.`, "resume");
      return show("warn", code === "offline" ? "Offline" : "Asleep", `${because} Prices go on by themselves.`);
    }
    case "closed":
      return show("bad", "Not connected", because || "The connection was closed.", "retry");
    default:
      return show("idle", "Connecting", because || "Prices come in a moment.");
  }
}

/** Return how far this page is behind the server. */
export function behind(lag) {
  if (lag === null || lag === undefined) return "Prices come as they are made.";
  return `This page is ${Math.max(1, Math.round(lag))} ms behind the server.`;
}

/**
 * Return whether the versions prove that nothing is missing, and the sentence for it.
 *
 * `heardAt` is when the server's last message came: without a connection, they prove nothing later.
 */
export function proof({ state, reason, missed, versions, stats }, heardAt) {
  if (versions.size === 0) return { tone: "idle", text: "No price has come yet." };
  if (missed > 0) {
    const updates = missed === 1 ? "1 update is" : `${missed} updates are`;
    return { tone: "warn", text: `${updates} missing. The page fetches the newest state.` };
  }
  const repaired = stats.resyncs ? ` ${stats.resyncs} ${stats.resyncs === 1 ? "gap was" : "gaps were"} repaired.` : "";
  const isOpen = state === "live" || (state === "stale" && reason?.code !== "no_answer");
  if (!isOpen) return { tone: "idle", text: `Nothing missed until ${clock(heardAt)}.${repaired}` };
  return { tone: "good", text: `Nothing missed: the versions prove it.${repaired}` };
}
