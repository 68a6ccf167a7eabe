/** The table of clients, those that are most behind first. */

import { announce, find, make, write } from "../page/dom.js";
import { NOTHING, duration } from "../page/format.js";
import { confirm } from "./confirm.js";
import { count, seconds, size } from "./units.js";

/** Clients of one page of the table. */
const PAGE = 20;
const NARROW_PAGE = 8;

/** Milliseconds after the last key until the search begins. */
const TYPING = 250;

const IS_NARROW = matchMedia("(max-width: 560px)");

const CELLS = ["user", "address", "why", "owed", "unread", "symbols", "form", "trip", "received", "age", "worker"];
const NUMBERS = new Set(["owed", "unread", "trip", "received", "age", "worker"]);

export class Clients {
  #server;
  #changed;
  #rows = new Map();
  #pages = ["0"];
  #next = null;
  #query = "";
  #typing = 0;

  /** `changed` asks for the clients anew. */
  constructor(server, changed) {
    this.#server = server;
    this.#changed = changed;
    find("client-search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
    find("client-query").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#search(), TYPING);
    });
    find("client-next").addEventListener("click", () => this.#turn(this.#next));
    find("client-before").addEventListener("click", () => this.#turn(null));
  }

  /** Ask for the page of clients and show it. Errors: those of Server. */
  async refresh() {
    const query = this.#query;
    const page = this.#pages.at(-1);
    const limit = IS_NARROW.matches ? NARROW_PAGE : PAGE;
    const { body, next } = await this.#server.get("clients", { query, limit, page_token: page });
    // The operator may have typed or turned the page meanwhile.
    if (query !== this.#query || page !== this.#pages.at(-1)) return;
    if (body.clients.length === 0 && this.#pages.length > 1) {
      // The clients of this page have left.
      this.#turn(null);
      return;
    }
    this.#next = next;
    this.#show(body);
  }

  #search() {
    this.#query = find("client-query").value.trim();
    this.#pages = ["0"];
    this.#changed();
  }

  #turn(page) {
    if (page) this.#pages.push(page);
    else if (this.#pages.length > 1) this.#pages.pop();
    this.#changed();
  }

  #show({ clients, matching, silent }) {
    const body = find("client-rows");
    const rows = clients.map((client) => this.#row(client));
    const same = rows.length === body.children.length && rows.every((row, i) => row === body.children[i]);
    // Moved rows would lose the focus of their buttons.
    if (!same) {
      const focused = document.activeElement;
      const hadFocus = body.contains(focused);
      body.replaceChildren(...rows);
      if (hadFocus) (body.contains(focused) ? focused : find("client-query")).focus();
    }
    const shown = new Set(clients.map((each) => each.id));
    for (const id of this.#rows.keys()) if (!shown.has(id)) this.#rows.delete(id);
    this.#tellCount(clients, matching);
    const several = new Set(clients.map((each) => each.worker)).size > 1 || clients.some((each) => each.worker);
    find("clients-scroll").classList.toggle("one-server", !several);
    find("clients-silent").hidden = !silent.length;
    write(find("clients-silent"), `The clients of worker ${silent.join(", ")} are missing: it gives no answer.`);
  }

  #tellCount(clients, matching) {
    const first = Number(this.#pages.at(-1));
    const [empty, pages] = [find("clients-empty"), find("client-pages")];
    find("clients-scroll").hidden = !clients.length;
    empty.hidden = clients.length > 0;
    write(empty, this.#query
      ? `No client has “${this.#query}” in its user or address.`
      : "No client is connected. A client connects to /ws/quotes, for instance the page of live quotes.");
    const behind = clients.filter((each) => each.state === "blocked").length;
    write(find("clients-count"), `${count(matching)} ${matching === 1 ? "client" : "clients"}, the most behind first`
      + (first === 0 && behind === 0 && matching ? "; none has a full socket" : ""));
    pages.hidden = !this.#next && this.#pages.length === 1;
    find("client-next").disabled = !this.#next;
    find("client-before").disabled = this.#pages.length === 1;
    write(find("client-page"), `${first + 1} to ${first + clients.length} of ${count(matching)}`);
  }

  #row(client) {
    if (!this.#rows.has(client.id)) this.#make(client);
    const { row, cells } = this.#rows.get(client.id);
    this.#rows.get(client.id).client = client;
    const why = explain(client);
    row.dataset.tone = why.tone;
    const symbols = client.everything ? `all ${count(client.symbols)}` : count(client.symbols);
    const texts = {
      user: client.user,
      address: client.address || NOTHING,
      owed: count(client.owed),
      unread: size(client.unread),
      form: client.fields ? `${client.format}, ${client.fields.length} fields` : client.format,
      trip: seconds(client.round_trip),
      received: size(client.bytes_received),
      age: duration(client.age * 1000),
      worker: client.worker === null ? NOTHING : String(client.worker),
    };
    for (const [name, text] of Object.entries(texts)) write(cells[name], text);
    // A column may be too narrow for these.
    for (const name of ["user", "address"]) cells[name].title = texts[name];
    write(cells.symbolCount, symbols);
    write(cells.symbolNames, client.everything ? "" : names(client));
    write(cells.state, why.state);
    write(cells.because, why.text);
    cells.why.title = why.text;
    return row;
  }

  #make(client) {
    const cells = {};
    const row = make("tr");
    for (const name of CELLS) {
      cells[name] = make(name === "user" ? "th" : "td", { className: `${name}${NUMBERS.has(name) ? " n" : ""}` });
      row.append(cells[name]);
    }
    cells.user.scope = "row";
    cells.state = make("span", { className: "chip" });
    cells.because = make("span", { className: "because" });
    cells.why.append(cells.state, " ", cells.because);
    cells.symbolCount = make("span");
    cells.symbolNames = make("small");
    cells.symbols.append(cells.symbolCount, " ", cells.symbolNames);
    const buttons = make("td", { className: "actions" });
    for (const [action, label] of [["drain", "Drain"], ["disconnect", "Disconnect"]]) {
      const button = make("button", { type: "button", className: "small", textContent: label });
      button.setAttribute("aria-label", `${label} ${client.user} at ${client.address}`);
      button.addEventListener("click", () => this.#ask(action, this.#rows.get(client.id).client));
      buttons.append(button);
    }
    row.append(buttons);
    this.#rows.set(client.id, { row, cells, client });
  }

  #ask(action, client) {
    const drain = action === "drain";
    confirm({
      title: drain ? `Drain ${client.user}?` : `Disconnect ${client.user}?`,
      text: drain
        ? "The client is told to come back within a second, perhaps to another instance. "
          + "It misses nothing if it resumes."
        : "The connection is closed with the code 1008. The client is not told to come back.",
      facts: {
        Address: client.address || NOTHING,
        State: explain(client).text,
        Symbols: client.everything ? `all ${count(client.symbols)}` : count(client.symbols),
        "Connected for": duration(client.age * 1000),
      },
      label: drain ? "Drain" : "Disconnect",
      isHarmless: drain,
      next: find("client-query"),
      action: async () => {
        await this.#server.post(`clients/${encodeURIComponent(client.id)}/${action}`);
        announce(drain ? `${client.user} was told to come back.` : `${client.user} was disconnected.`);
        this.#changed();
      },
    });
  }
}

/** Return the state of a client in a word, the reason in a sentence, and how serious it is. */
function explain(client) {
  const breaker = { open: "breaker open", half_open: "breaker tries again", given_up: "breaker gave up" };
  if (client.state === "closing") return { state: "closing", tone: "idle", text: "The close frame waits for it" };
  if (client.state === "blocked") {
    const since = client.blocked_for === null ? "" : ` ${duration(client.blocked_for * 1000)}`;
    const more = breaker[client.breaker];
    return {
      state: "blocked",
      tone: client.breaker === "closed" ? "warn" : "bad",
      text: more ? `Socket full${since}; ${more}` : `Reads too slowly, socket full${since}`,
    };
  }
  if (client.state === "throttled") {
    return { state: "throttled", tone: "idle", text: `Update every ${client.interval} s, as asked` };
  }
  return { state: "live", tone: "good", text: "Nothing waits" };
}

function names(client) {
  const rest = client.symbols - client.first_symbols.length;
  return client.first_symbols.slice(0, 3).join(", ") + (client.symbols > 3 || rest > 0 ? ", …" : "");
}
