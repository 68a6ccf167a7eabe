/** Tells the state of the connection, in the head, in the banner, in the panel, and to screen readers. */

import { announce, find, write } from "./dom.js";
import { duration } from "./format.js";
import { describe, proof } from "./states.js";

/** Milliseconds for which a new connection may take before the page speaks of it. */
const QUIET = 400;

const ACTIONS = { retry: "Try now", resume: "Resume", token: "Enter a token" };

export class Status {
  #stream;
  #tokens;
  #still;
  #said = "";
  #pausedAt = 0;
  #since = Date.now();
  #state = "";
  #messages = 0;
  #heardAt = Date.now();

  /** `still` hears whether prices stand. `actions`: what the banner's button does, by its name. */
  constructor(stream, tokens, still, actions) {
    this.#stream = stream;
    this.#tokens = tokens;
    this.#still = still;
    const button = find("banner-action");
    button.addEventListener("click", () => actions[button.dataset.action]());
    for (const name of ["state", "status", "missed"]) stream.addEventListener(name, () => this.show());
    for (const name of ["wanted", "given"]) tokens.addEventListener(name, () => this.show());
    setInterval(() => this.show(), 500);
    this.show();
  }

  /** Write the present state. */
  show() {
    const [stream, now] = [this.#stream, Date.now()];
    if (stream.state !== this.#state) {
      [this.#state, this.#since] = [stream.state, now];
      if (stream.state === "sleeping") this.#pausedAt = now;
    }
    const isTokenWanted = this.#tokens.isWanted && stream.state !== "sleeping";
    if (stream.state === "connecting" && !isTokenWanted && now - this.#since < QUIET) return;
    const { lag, state, reason, retryAt, askedUntil } = stream;
    const newest = state === "stale" ? this.#newest(now) : "";
    const seen = describe({ state, reason, retryAt, askedUntil, lag, isTokenWanted, pausedAt: this.#pausedAt, newest }, now);
    this.#write(seen);
    this.#prove();
    this.#announce(seen, reason);
    this.#still(state !== "live");
  }

  #write({ tone, title, pill, text, action }) {
    write(find("pill-text"), pill);
    find("pill").dataset.tone = tone;
    write(find("state"), title);
    find("state").dataset.tone = tone;
    write(find("state-text"), text);
    write(find("reconnects"), String(Math.max(0, this.#stream.stats.connects - 1)));
    const banner = find("banner");
    banner.hidden = tone === "good";
    banner.dataset.tone = tone;
    write(find("banner-title"), title);
    write(find("banner-text"), text);
    const button = find("banner-action");
    button.hidden = action === null;
    button.dataset.action = action ?? "";
    write(button, ACTIONS[action] ?? "");
    const isPaused = this.#stream.state === "sleeping" && this.#stream.reason?.code === "paused";
    find("pause").setAttribute("aria-pressed", String(isPaused));
    find("pause").querySelector("use").setAttribute("href", isPaused ? "#icon-play" : "#icon-pause");
  }

  #prove() {
    const { messages } = this.#stream.stats;
    if (messages !== this.#messages) [this.#messages, this.#heardAt] = [messages, Date.now()];
    const { tone, text } = proof(this.#stream, this.#heardAt);
    find("proof").dataset.tone = tone;
    write(find("proof-text"), text);
    find("proof-icon").setAttribute("href", tone === "good" ? "#icon-check" : "#icon-gap");
  }

  /** Announce a state once. Its countdown and its lag are not news. */
  #announce({ title, text }, reason) {
    const kind = `${this.#state} ${reason?.code ?? ""} ${this.#tokens.isWanted}`;
    if (kind === this.#said) return;
    this.#said = kind;
    const name = title.replace(/ in \d+ s$/, "");
    announce(this.#state === "live" ? "Live." : `${name}. ${text}`);
  }

  /** Return a sentence with the age of the newest price. */
  #newest(now) {
    let newest = 0;
    for (const quote of this.#stream.quotes.values()) newest = Math.max(newest, Date.parse(quote.last_updated) || 0);
    return newest ? `The newest price is ${duration(now - newest)} old.` : "";
  }
}
