/** Moving a row with the mouse or a finger. */

/** Pixels at a scrolled table's edge in which a drag scrolls. */
const EDGE = 40;

/** Let `grip` buttons below `body` move their rows. `moved` hears when a drag ends. */
export function bindDrag(body, moved) {
  body.addEventListener("pointerdown", (event) => {
    const grip = event.target.closest(".grip");
    if (!grip || event.button !== 0) return;
    event.preventDefault();
    drag(body, grip, event.pointerId, moved);
  });
}

function drag(body, grip, pointer, moved) {
  const row = grip.closest(".row");
  const before = row.nextSibling;
  let last = null;
  grip.setPointerCapture(pointer);
  row.classList.add("dragged");

  function follow({ clientY }) {
    last = clientY;
    const { height } = row.getBoundingClientRect();
    const top = body.getBoundingClientRect().top;
    const place = Math.floor((clientY - top) / height);
    const at = Math.max(0, Math.min(body.children.length - 1, place));
    const target = body.children[at];
    if (target === row) return;
    const isBelow = row.compareDocumentPosition(target) & Node.DOCUMENT_POSITION_FOLLOWING;
    body.insertBefore(row, isBelow ? target.nextSibling : target);
    // A moved element loses its capture.
    grip.setPointerCapture(pointer);
  }

  const scroller = body.closest(".quotes");
  const scrolling = setInterval(() => {
    if (last === null) return;
    const { top, bottom } = scroller.getBoundingClientRect();
    if (last < top + 2 * EDGE) scroller.scrollTop -= 8;
    else if (last > bottom - EDGE) scroller.scrollTop += 8;
  }, 16);

  function end(event) {
    clearInterval(scrolling);
    row.classList.remove("dragged");
    for (const [name, listener] of listeners) grip.removeEventListener(name, listener);
    if (event.type === "pointercancel") body.insertBefore(row, before);
    else moved();
  }

  const listeners = [["pointermove", follow], ["pointerup", end], ["pointercancel", end]];
  for (const [name, listener] of listeners) grip.addEventListener(name, listener);
}
