/** What a visitor does to the table's rows, with the mouse, a finger, or the keyboard. */

import { find } from "./dom.js";
import { bindDrag } from "./drag.js";

/** Rows that Page Up and Page Down pass. */
const PAGE = 10;

/** Let a visitor choose, remove and move rows. `tell` says to screen readers where a row is now. */
export function bindHands(table, selection, tell) {
  const { body } = table;
  const symbolAt = (target) => target.closest("[data-symbol]")?.dataset.symbol;

  body.addEventListener("click", ({ target }) => {
    const symbol = symbolAt(target);
    if (!symbol) return;
    if (target.closest(".remove")) selection.remove(symbol);
    else if (target.closest(".pick") && !table.entry(symbol).refusal) selection.look({ chart: symbol });
  });
  body.addEventListener("focusin", ({ target }) => {
    const symbol = symbolAt(target);
    if (symbol && symbol !== table.current) table.enterAt(symbol);
  });

  /** Make the order of the rows that of the list, with one row moved. */
  function arrange(symbols) {
    table.order.clear();
    selection.arrange(symbols);
    table.arrange();
  }

  function shift(symbol, by) {
    const symbols = table.symbols;
    const at = symbols.indexOf(symbol);
    const to = at + by;
    if (to < 0 || to >= symbols.length) return;
    symbols.splice(to, 0, ...symbols.splice(at, 1));
    arrange(symbols);
    table.focus(symbol);
    tell(`${symbol} is now row ${to + 1} of ${symbols.length}.`);
  }

  function go(symbol, to) {
    const symbols = table.symbols;
    const at = symbols.indexOf(symbol);
    const place = Math.max(0, Math.min(symbols.length - 1, to(at, symbols.length)));
    table.focus(symbols[place]);
  }

  const ways = {
    ArrowUp: (at) => at - 1,
    ArrowDown: (at) => at + 1,
    PageUp: (at) => at - PAGE,
    PageDown: (at) => at + PAGE,
    Home: () => 0,
    End: (_, count) => count - 1,
  };

  find("quotes").addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (target.closest(".head") || event.ctrlKey || event.metaKey) return;
    const symbol = symbolAt(target) ?? table.current;
    if (!symbol) return;
    if (key === "Delete" || key === "Backspace") selection.remove(symbol);
    else if (event.altKey && key === "ArrowUp") shift(symbol, -1);
    else if (event.altKey && key === "ArrowDown") shift(symbol, 1);
    else if (key in ways && !event.altKey) go(symbol, ways[key]);
    else return;
    event.preventDefault();
  });

  bindDrag(body, (symbol, before) => {
    const symbols = table.symbols.filter((each) => each !== symbol);
    const at = before === null ? symbols.length : symbols.indexOf(before);
    arrange([...symbols.slice(0, at), symbol, ...symbols.slice(at)]);
    tell(`${symbol} is now row ${at + 1} of ${symbols.length + 1}.`);
  });
}
