/** Moving a row with the mouse or a finger. */

import { scrollerOf } from "./window.js";

/** Pixels at the edge of the view in which a drag scrolls, and pixels of one step. */
const EDGE = 40;
const STEP = 8;

/**
 * Let `grip` buttons below `body` move their rows. A line shows where the row goes. `dropped(symbol,
 * other, isBelow)` hears where it went: above or below another row.
 */
export function bindDrag(body, dropped) {
  let isDragging = false;
  body.addEventListener("pointerdown", (event) => {
    const grip = event.target.closest(".grip");
    if (!grip || event.button !== 0 || isDragging) return;
    event.preventDefault();
    isDragging = true;
    drag(body, grip.closest(".row"), event, (...place) => {
      isDragging = false;
      if (place.length) dropped(...place);
    });
  });
}

/** Follow a pointer until it is lifted. `ended` hears where the row goes, or nothing if it stays. */
function drag(body, row, { pointerId, clientY }, ended) {
  const { symbol } = row.dataset;
  let [last, marked, isBelow] = [clientY, null, false];
  body.setPointerCapture(pointerId);
  row.classList.add("dragged");

  function mark() {
    const rows = [...body.children];
    // Of a long list the document has rows outside the view as well. None of them is the goal.
    const { top: first, bottom } = scrollerOf(body);
    const at = Math.max(first, Math.min(last, bottom - 1));
    const target = rows.find((each) => at < each.getBoundingClientRect().bottom) ?? rows.at(-1);
    const { top, height } = target.getBoundingClientRect();
    marked?.classList.remove("drop-above", "drop-below");
    [marked, isBelow] = [target, at > top + height / 2];
    marked.classList.add(isBelow ? "drop-below" : "drop-above");
  }

  const scrolling = setInterval(() => {
    const { view, top, bottom } = scrollerOf(body);
    const step = last < top + EDGE ? -STEP : last > bottom - EDGE ? STEP : 0;
    if (!step || !marked) return;
    view.scrollTop += step;
    mark();
  }, 16);

  function follow(event) {
    if (event.pointerId !== pointerId) return;
    last = event.clientY;
    mark();
  }

  function end(event) {
    if (event.pointerId !== pointerId) return;
    clearInterval(scrolling);
    for (const [name, listener] of listeners) body.removeEventListener(name, listener);
    row.classList.remove("dragged");
    marked?.classList.remove("drop-above", "drop-below");
    const other = marked?.dataset.symbol ?? symbol;
    if (event.type === "pointerup" && other !== symbol) ended(symbol, other, isBelow);
    else ended();
  }

  const listeners = [["pointermove", follow], ["pointerup", end], ["pointercancel", end]];
  for (const [name, listener] of listeners) body.addEventListener(name, listener);
}
