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

let shownAt = 0;
let problem = "";
let isPaused = false;
let needsToken = false;

/** Asks again and again, one request at a time, while the page is seen and not paused. */
class Repeated {
  #timer = 0;
  #isAsking = false;
  #isWanted = false;

  constructor(action, every) {
    this.action = action;
    this.every = every;
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
      await attempt(this.action);
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
  overview: new Repeated(refreshOverview, OVERVIEW_EVERY),
  clients: new Repeated(() => clients.refresh(), CLIENTS_EVERY),
};

async function refreshOverview() {
  const { body } = await server.get("overview", { since: hour.last });
  hour.take(body);
  charts.draw();
  showHealth(body);
  reference.allowPrices(body.takes_prices);
  shownAt = Date.now();
}

async function attempt(action) {
  try {
    await action().catch((error) => renewed(error, action));
    problem = "";
    needsToken = false;
  } catch (error) {
    explain(error);
  }
  tell();
}

/** Do it again with a new token, if a development server gives one. Errors: `error`, the action's. */
async function renewed(error, action) {
  if (!concernsToken(error) || error.code === "forbidden" || !(await token.refused())) throw error;
  await action();
}

function explain(error) {
  problem = reason(error);
  if (!concernsToken(error)) return;
  const isForbidden = error.code === "forbidden";
  const wasAsked = needsToken;
  needsToken = true;
  problem = isForbidden
    ? "The token is valid, but not an administrator’s: it needs the role “admin”."
    : `A token of an administrator is needed: ${error.message}.`;
  if (!wasAsked) askForToken(isForbidden ? problem : "");
}

/** Say how old the numbers are, and what is wrong. */
function tell() {
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
  write(find("age"), freshness(age));
}

function freshness(age) {
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
