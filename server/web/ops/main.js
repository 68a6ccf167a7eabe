/** The operators' page: asks for the overview and the clients while it is seen, and shows them. */

import { reason } from "../page/api.js";
import { announce, find, write } from "../page/dom.js";
import { duration } from "../page/format.js";
import { bindTheme } from "../page/theme.js";
import { askForToken } from "../page/token-dialog.js";
import { Charts } from "./charts.js";
import { Clients } from "./clients.js";
import { bindConfirm } from "./confirm.js";
import { showHealth } from "./health.js";
import { Hour } from "./hour.js";
import { Reference } from "./reference.js";
import { Server, concernsToken } from "./server.js";
import { Token } from "./token.js";

/** Milliseconds between two requests. */
const OVERVIEW_EVERY = 5000;
const CLIENTS_EVERY = 3000;

/** Milliseconds up to which numbers count as new, and after which as old. */
const FRESH = 6500;
const OLD = 15_000;

const token = new Token();
const server = new Server(token);
const hour = new Hour();
const charts = new Charts(hour);
const clients = new Clients(server, () => asked.clients.now());
const reference = new Reference(server);

let isPaused = false;
let needsToken = false;

/**
 * Asks again and again, one request at a time, while the page is seen and not paused. `shownAt` is the time
 * at which the page showed the last answer. `problem` says why no newer one came.
 */
class Repeated {
  problem = "";
  #timer = 0;
  #isAsking = false;
  #isWanted = false;

  constructor(action, every, shownAt) {
    Object.assign(this, { action, every, shownAt });
  }

  async now() {
    clearTimeout(this.#timer);
    if (this.#isAsking) {
      this.#isWanted = true;
      return;
    }
    this.#isAsking = true;
    do {
      this.#isWanted = false;
      await attempt(this);
    } while (this.#isWanted);
    this.#isAsking = false;
    clearTimeout(this.#timer);
    if (!document.hidden && !isPaused && !needsToken) this.#timer = setTimeout(() => this.now(), this.every);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

const asked = {
  overview: new Repeated(refreshOverview, OVERVIEW_EVERY, 0),
  // The clients follow the first overview.
  clients: new Repeated(() => clients.refresh(), CLIENTS_EVERY, Infinity),
};

async function refreshOverview() {
  const { body } = await server.get("overview", { since: hour.last });
  hour.take(body);
  charts.draw();
  showHealth(body);
  reference.allowPrices(body.takes_prices);
}

async function attempt(repeated) {
  const { action } = repeated;
  try {
    await action().catch((error) => renewed(error, action));
    Object.assign(repeated, { problem: "", shownAt: Date.now() });
    needsToken = false;
  } catch (error) {
    repeated.problem = explain(error);
    repeated.shownAt = Math.min(repeated.shownAt, Date.now());
  }
  tell();
}

/** Do it again with a new token, if a development server gives one. Errors: `error`, the action's. */
async function renewed(error, action) {
  if (!concernsToken(error) || error.code === "forbidden" || !(await token.refused())) throw error;
  await action();
}

/** Return why a request failed. If another token could help, ask for one. */
function explain(error) {
  if (!concernsToken(error)) return reason(error);
  const isForbidden = error.code === "forbidden";
  const wasAsked = needsToken;
  needsToken = true;
  const problem = isForbidden
    ? "The token is valid, but not an administrator’s: it needs the role “admin”."
    : `A token of an administrator is needed: ${error.message}.`;
  if (!wasAsked) askForToken(isForbidden ? problem : "");
  return problem;
}

/** Say how old the numbers are, and what is wrong. */
function tell() {
  // The page is as old as its oldest part.
  const { shownAt } = Object.values(asked).toSorted((one, other) => one.shownAt - other.shownAt)[0];
  const problem = asked.overview.problem || asked.clients.problem;
  const age = shownAt ? Date.now() - shownAt : Infinity;
  const banner = find("banner");
  const isOld = !isPaused && shownAt > 0 && age > OLD;
  const wasHidden = banner.hidden;
  banner.hidden = !(problem && (needsToken || isOld || !shownAt));
  banner.dataset.tone = needsToken ? "warn" : "bad";
  find("banner-action").hidden = !needsToken;
  const news = shownAt ? `These numbers are ${duration(age)} old.` : "There are no numbers yet.";
  write(find("banner-title"), needsToken ? "No access." : news);
  write(find("banner-text"), problem);
  if (wasHidden && !banner.hidden) announce(banner.textContent.trim());
  document.body.classList.toggle("old", isOld || needsToken);
  write(find("age"), freshness(age, shownAt));
}

function freshness(age, shownAt) {
  if (isPaused) return "Paused";
  if (needsToken) return "No access";
  if (!shownAt) return "Connecting";
  return age < FRESH ? "Up to date" : `${duration(age)} old`;
}

function resume() {
  asked.overview.now();
  asked.clients.now();
}

function halt() {
  asked.overview.stop();
  asked.clients.stop();
}

find("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  find("pause").setAttribute("aria-pressed", String(isPaused));
  find("pause").title = isPaused ? "Go on" : "Pause";
  if (isPaused) halt();
  else resume();
  tell();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) halt();
  else if (!isPaused && !needsToken) resume();
});
token.addEventListener("given", () => {
  needsToken = false;
  resume();
});
find("banner-action").addEventListener("click", () => askForToken());
bindConfirm();
bindTheme(() => {});
setInterval(tell, 1000);
await token.begin().catch(() => {});
await asked.overview.now();
if (!needsToken) asked.clients.now();
