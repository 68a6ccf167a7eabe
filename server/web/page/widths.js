/** Widths of the columns with prices: as wide as their longest text, so that no number covers another. */

import { find } from "./dom.js";

const COLUMNS = ["price", "change", "book"];

/** Follows the longest text of each column. Columns only grow, until the list is another one. */
export class Widths {
  #longest = new Map();

  /** Take in the lengths of a row's texts, in characters. */
  take(lengths) {
    for (const column of COLUMNS) {
      if (lengths[column] > (this.#longest.get(column) ?? 0)) this.#set(column, lengths[column]);
    }
  }

  /** Begin anew with these rows' lengths. */
  reset(all) {
    for (const column of COLUMNS) {
      const longest = Math.max(0, ...all.map((lengths) => lengths[column]));
      if (longest !== (this.#longest.get(column) ?? 0)) this.#set(column, longest);
    }
  }

  #set(column, length) {
    this.#longest.set(column, length);
    find("quotes").style.setProperty(`--${column}-length`, length);
  }
}
