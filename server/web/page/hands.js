/** Choosing, moving and removing rows, with the mouse, a finger, or the keyboard. */

import { announce, find } from "./dom.js";
import { bindDrag } from "./drag.js";

/** Rows that Page Up and Page Down pass. */
const PAGE = 10;

/** Let a visitor choose, remove and move rows. */
export function bindHands(table, selection) {
  const { body } = table;
  const symbolAt = (target) => target.closest("[data-symbol]")?.dataset.symbol;

  body.addEventListener("click", ({ target }) => {
    const symbol = symbolAt(target);
    if (!symbol) return;
    if (target.closest(".remove")) remove(symbol);
    else if (target.closest(".pick") && !table.entry(symbol).refusal) selection.look({ chart: symbol });
  });
  body.addEventListener("focusin", ({ target }) => {
    const symbol = symbolAt(target);
    if (symbol && symbol !== table.current) table.enterAt(symbol);
  });

  function remove(symbol) {
    selection.remove(symbol);
    announce(`${symbol} was removed.`);
    if (selection.symbols.length === 0) find("defaults").focus();
  }

  /** Make the order of the rows that of the list, with one row moved. */
  function arrange(symbols) {
    table.order.clear();
    selection.arrange(symbols);
    table.arrange();
  }

  function tellPlace(symbol) {
    const { symbols } = selection;
    announce(`${symbol} is now row ${symbols.indexOf(symbol) + 1} of ${symbols.length}.`);
  }

  function shift(symbol, by) {
    const { symbols } = table;
    const at = symbols.indexOf(symbol);
    if (!symbols[at + by]) return;
    symbols.splice(at + by, 0, ...symbols.splice(at, 1));
    arrange(symbols);
    table.focus(symbol);
    tellPlace(symbol);
  }

  function go(symbol, to) {
    const { symbols } = table;
    const place = Math.max(0, Math.min(symbols.length - 1, to(symbols.indexOf(symbol), symbols.length)));
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
    if (key === "Delete" || key === "Backspace") remove(symbol);
    else if (event.altKey && key === "ArrowUp") shift(symbol, -1);
    else if (event.altKey && key === "ArrowDown") shift(symbol, 1);
    else if (key in ways && !event.altKey) go(symbol, ways[key]);
    else return;
    event.preventDefault();
  });

  bindDrag(body, (symbol, other, isBelow) => {
    // The list may have changed meanwhile.
    if (!selection.has(symbol) || !selection.has(other)) return;
    const symbols = table.symbols.filter((each) => each !== symbol);
    symbols.splice(symbols.indexOf(other) + (isBelow ? 1 : 0), 0, symbol);
    if (String(symbols) === String(table.symbols)) return;
    arrange(symbols);
    tellPlace(symbol);
  });
}
