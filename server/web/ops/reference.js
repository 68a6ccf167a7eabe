/** Reference data: search and delist, import a file, publish a test price. */

import { reason } from "../page/api.js";
import { announce, find, make, write } from "../page/dom.js";
import { NOTHING, number } from "../page/format.js";
import { confirm } from "./confirm.js";
import { count } from "./units.js";

const SHOWN = 8;
const TYPING = 250;

/** The largest file that the server takes, in bytes. */
const MAX_FILE = 4 * 1024 * 1024;

/** A price whose comma may stand before decimals, or between thousands. */
const THOUSANDS = /^-?[1-9]\d{0,2},\d{3}$/;

export class Reference {
  #server;
  #typing = 0;
  #asked = 0;
  #file = null;

  constructor(server) {
    this.#server = server;
    find("instrument-search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    find("instrument-query").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.search(), TYPING);
    });
    find("import-form").addEventListener("submit", (event) => event.preventDefault());
    find("import-file").addEventListener("change", () => this.#tryFile());
    find("price-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#publish();
    });
  }

  /** Say whether a test price can be published. */
  allowPrices(allowed) {
    for (const each of find("price-form").elements) each.disabled = !allowed;
    if (!allowed) write(find("price-told"), "Only with FEED=push: this server makes or replays its prices.");
    else if (find("price-told").textContent.startsWith("Only with")) write(find("price-told"), "");
  }

  async search() {
    const query = find("instrument-query").value.trim();
    const mine = (this.#asked += 1);
    const [list, hint] = [find("instruments"), find("instruments-hint")];
    if (!query) {
      list.replaceChildren();
      write(hint, `Up to ${SHOWN} matches are shown.`);
      return;
    }
    try {
      const { body } = await this.#server.get("instruments", { query, limit: SHOWN });
      if (mine !== this.#asked) return;
      list.replaceChildren(...body.map((each) => this.#item(each)));
      write(hint, body.length ? "" : `No instrument matches “${query}”.`);
    } catch (error) {
      if (mine === this.#asked) write(hint, reason(error));
    }
  }

  #item(instrument) {
    const { symbol, name, type, currency, last_quote: last, price_decimals: decimals } = instrument;
    const button = make("button", { type: "button", className: "small", textContent: "Delist" });
    button.setAttribute("aria-label", `Delist ${symbol}`);
    const price = last === null ? "no price yet" : `${number(last, decimals)} ${currency}`;
    button.addEventListener("click", () => confirm({
      title: `Delist ${symbol}?`,
      text: "Subscribers on every instance lose the symbol. Its last price is kept: an import lists it again.",
      facts: { Name: name, Type: type, "Last price": price },
      label: "Delist",
      next: find("instrument-query"),
      action: async () => {
        await this.#server.delete(`instruments/${encodeURIComponent(symbol)}`);
        announce(`${symbol} is delisted.`);
        await this.search();
      },
    }));
    return make("li", {},
      make("b", { textContent: symbol }),
      make("span", { className: "name", textContent: name }),
      make("span", { className: "price", textContent: price }), button);
  }

  /** Show what an import of the chosen file would do. */
  async #tryFile() {
    const [file] = find("import-file").files;
    if (!file) return;
    this.#file = file;
    // The same file can be chosen again after a change.
    find("import-file").value = "";
    write(find("import-name"), file.name);
    if (file.size > MAX_FILE) {
      this.#tell("This file is larger than 4 MiB. The command quotestream import takes it.", "bad");
      return;
    }
    this.#tell("Reading the file…");
    try {
      const report = await this.#server.post("import", { dry_run: true }, file);
      if (file === this.#file) this.#showTrial(file, report);
    } catch (error) {
      if (file === this.#file) this.#tell(reason(error), "bad");
    }
  }

  #showTrial(file, report) {
    const { listed, without_price: waiting, bad_rows: bad, assumed } = report;
    const parts = [make("p", { className: "lead" },
      make("b", { textContent: `${count(listed)} ${listed === 1 ? "instrument" : "instruments"} would be listed` }),
      waiting ? `, ${count(waiting)} without a price until the first trade` : "")];
    if (bad) parts.push(badRows(report));
    if (assumed.length) {
      parts.push(make("ul", { className: "assumed" }, ...assumed.map((each) => make("li", { textContent: each }))));
    }
    if (listed) {
      parts.push(sample(report));
      const label = bad ? `List the ${count(listed)} good rows` : `List ${count(listed)}`;
      const button = make("button", { type: "button", className: "button primary", textContent: `${label}…` });
      button.addEventListener("click", () => this.#confirmImport(file, report, label));
      parts.push(button);
    }
    find("report").replaceChildren(...parts);
  }

  #confirmImport(file, { listed, bad_rows: bad }, label) {
    confirm({
      title: `List ${count(listed)} instruments?`,
      text: "They are listed on every instance, all or none. Those that are listed already get the file's "
        + "reference data and keep their last prices.",
      facts: { File: file.name, "Bad rows": bad ? `${count(bad)}, which are skipped` : "none" },
      label,
      isHarmless: true,
      next: find("import-file"),
      action: async () => {
        const report = await this.#server.post("import", { skip_bad: bad > 0 }, file);
        const text = `${count(report.listed)} instruments are listed.`;
        announce(text);
        if (file === this.#file) this.#tell(text, "good");
        write(find("import-name"), "Choose a CSV file of instruments");
        await this.search();
      },
    });
  }

  #tell(text, tone = "idle") {
    find("report").replaceChildren(make("p", { className: "told", "data-tone": tone, textContent: text }));
  }

  async #publish() {
    const told = find("price-told");
    const text = find("price-value").value.trim();
    const price = Number(text.replace(",", "."));
    const symbol = find("price-symbol").value.trim();
    if (THOUSANDS.test(text)) {
      write(told, `${text} may have three decimals, or be above a thousand. Write it without a comma.`);
      return;
    }
    if (!Number.isFinite(price) || !text) {
      write(told, "The price is not a number.");
      return;
    }
    try {
      const answer = await this.#server.post("prices", { symbol, price });
      const [refused] = answer.rejected;
      if (refused) write(told, whyRefused(refused));
      else write(told, answer.held ? "The price is held back, as PRICE_BAND says." : `${symbol.toUpperCase()} is at ${price} now.`);
    } catch (error) {
      write(told, reason(error));
    }
  }
}

function whyRefused({ code, message }) {
  const hint = code === "unknown_symbol" ? " Import a file that lists it first." : "";
  return `${message[0].toUpperCase()}${message.slice(1)}.${hint}`;
}

function badRows({ bad_rows: bad, problems }) {
  const rows = problems.map(({ line, problem }) =>
    make("li", {}, make("b", { textContent: `Line ${line}` }), ` ${problem}`));
  const more = bad > problems.length ? [make("li", { textContent: `and ${count(bad - problems.length)} more` })] : [];
  return make("details", { className: "bad-rows" },
    make("summary", { textContent: `${count(bad)} bad ${bad === 1 ? "row" : "rows"}` }),
    make("ul", {}, ...rows, ...more));
}

function sample({ sample: rows }) {
  return make("table", {}, make("tbody", {}, ...rows.slice(0, 5).map(({ symbol, name, price }) =>
    make("tr", {},
      make("th", { scope: "row", textContent: symbol }),
      make("td", { textContent: name }),
      make("td", { className: "n", textContent: price === null ? NOTHING : String(price) })))));
}
