/** Which rows of a long list are in the document: those in view, and some around them. */

/** Rows of a list that is always whole. Most lists are, so that a browser's own search finds each row. */
const WHOLE = 60;

/** Rows kept above and below the view, so that quick scrolling shows no gap. */
const AROUND = 6;

/**
 * Return what scrolls the rows of `body`: the table's panel on a wide screen, else the page. Between
 * `top` and `bottom` a row is in view, below what stays in its place.
 */
export function scrollerOf(body) {
  const panel = body.closest(".quotes");
  if (panel.scrollHeight > panel.clientHeight + 1) {
    const { top, bottom } = panel.getBoundingClientRect();
    return { view: panel, top: top + body.previousElementSibling.offsetHeight, bottom };
  }
  const top = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
  return { view: document.scrollingElement, top, bottom: innerHeight };
}

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

  /** Bring a row into view. */
  reveal(index) {
    const { view, top, bottom } = scrollerOf(this.#body);
    const place = this.#body.getBoundingClientRect().top + index * this.rowHeight;
    if (place < top) view.scrollTop -= top - place;
    else if (place + this.rowHeight > bottom) view.scrollTop += place + this.rowHeight - bottom;
  }

  get rowHeight() {
    return parseFloat(getComputedStyle(this.#body).getPropertyValue("--height")) || 32;
  }
}
