/** Moving a row with the mouse or a finger. */

/** Pixels at a scrolled table's edge in which a drag scrolls, and pixels of one step. */
const EDGE = 40;
const STEP = 8;

/**
 * Let `grip` buttons below `body` move their rows. A line shows where the row goes. `dropped(symbol,
 * before)` hears where it went: before another row, or `null` for behind the last.
 */
export function bindDrag(body, dropped) {
  body.addEventListener("pointerdown", (event) => {
    const grip = event.target.closest(".grip");
    if (!grip || event.button !== 0) return;
    event.preventDefault();
    drag(body, grip.closest(".row"), event, dropped);
  });
}

function drag(body, row, { pointerId, clientY }, dropped) {
  const { symbol } = row.dataset;
  const scroller = body.closest(".quotes");
  let [last, marked, isBelow] = [clientY, null, false];
  body.setPointerCapture(pointerId);
  row.classList.add("dragged");

  function mark() {
    const rows = [...body.children];
    const target = rows.find((each) => last < each.getBoundingClientRect().bottom) ?? rows.at(-1);
    const { top, height } = target.getBoundingClientRect();
    marked?.classList.remove("drop-above", "drop-below");
    [marked, isBelow] = [target, last > top + height / 2];
    marked.classList.add(isBelow ? "drop-below" : "drop-above");
  }

  const scrolling = setInterval(() => {
    const { top, bottom } = scroller.getBoundingClientRect();
    if (last < top + 2 * EDGE) scroller.scrollTop -= STEP;
    else if (last > bottom - EDGE) scroller.scrollTop += STEP;
  }, 16);

  function follow(event) {
    last = event.clientY;
    mark();
  }

  function end(event) {
    clearInterval(scrolling);
    for (const [name, listener] of listeners) body.removeEventListener(name, listener);
    row.classList.remove("dragged");
    marked?.classList.remove("drop-above", "drop-below");
    if (event.type !== "pointerup" || !marked) return;
    const before = isBelow ? marked.nextSibling : marked;
    if (before?.dataset.symbol !== symbol) dropped(symbol, before?.dataset.symbol ?? null);
  }

  const listeners = [["pointermove", follow], ["pointerup", end], ["pointercancel", end]];
  for (const [name, listener] of listeners) body.addEventListener(name, listener);
}
