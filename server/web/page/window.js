/** Which rows of a long list are in the document: those in view, and some around them. */

/** Rows of a list that is always whole. Most lists are, so that a browser's own search finds each row. */
const WHOLE = 60;

/** Rows kept above and below the view, so that quick scrolling shows no gap. */
const AROUND = 6;

/** Follows the place of `body` in the view. `moved` hears when other rows may have come into view. */
export class Window {
  #body;

  constructor(body, moved) {
    this.#body = body;
    // The table scrolls in itself on a wide screen, and with the page on a phone.
    document.addEventListener("scroll", moved, { capture: true, passive: true });
    addEventListener("resize", moved, { passive: true });
  }

  /** Return the first row and the one behind the last, of `count` rows. */
  range(count) {
    if (count <= WHOLE) return [0, count];
    const { top } = this.#body.getBoundingClientRect();
    const height = this.rowHeight;
    const first = Math.floor(Math.max(0, -top) / height) - AROUND;
    const last = Math.ceil(Math.max(0, innerHeight - top) / height) + AROUND;
    const from = Math.max(0, Math.min(first, count - 1));
    return [from, Math.min(count, Math.max(last, from + 1))];
  }

  /** Reserve the room of rows that are not in the document. */
  reserve(from, to, count) {
    const height = this.rowHeight;
    this.#body.style.paddingTop = `${from * height}px`;
    this.#body.style.paddingBottom = `${(count - to) * height}px`;
  }

  /** Bring a row into view, below the table's head. */
  reveal(index) {
    const scroller = this.#body.closest(".quotes");
    const place = this.#body.getBoundingClientRect().top + index * this.rowHeight;
    const view = scroller.scrollHeight > scroller.clientHeight + 1 ? scroller : document.scrollingElement;
    const box = view === scroller ? scroller.getBoundingClientRect() : { top: 0, bottom: innerHeight };
    const upper = box.top + this.#body.previousElementSibling.offsetHeight;
    if (place < upper) view.scrollTop -= upper - place;
    else if (place + this.rowHeight > box.bottom) view.scrollTop += place + this.rowHeight - box.bottom;
  }

  get rowHeight() {
    return parseFloat(getComputedStyle(this.#body).getPropertyValue("--height")) || 32;
  }
}
