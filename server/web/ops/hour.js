/** The last hour of each series. The server sends only points that are new. */

const POINTS = 360;

export class Hour {
  #series = new Map();
  /** The number of the newest point, and the seconds between two points. */
  last = 0;
  interval = 10;

  /** Take an overview. The hour begins anew if the server's clock was set. */
  take({ last, interval, series }) {
    // A server that just started has no point yet.
    if (!last) return;
    if (last < this.last || last - this.last > POINTS) this.#series.clear();
    this.interval = interval;
    const came = new Map(series.map((each) => [each.name, each]));
    for (const [name, { unit, points }] of this.#series) {
      const next = came.get(name)?.points ?? [];
      // A server that started anew has no points of the time between.
      const missing = Array(Math.max(0, last - this.last - next.length)).fill(null);
      this.#series.set(name, { unit, points: [...points, ...missing, ...next].slice(-POINTS) });
    }
    for (const { name, unit, points } of series) {
      if (!this.#series.has(name)) this.#series.set(name, { unit, points });
    }
    this.last = last;
  }

  /** Return the points of a series, the newest last, and its unit. */
  get(name) {
    return this.#series.get(name) ?? { unit: "", points: [] };
  }

  /** Return the names of the series that begin so. */
  named(start) {
    return [...this.#series.keys()].filter((name) => name.startsWith(start));
  }

  /** The number of points that the longest series has. */
  get length() {
    return Math.max(0, ...[...this.#series.values()].map((each) => each.points.length));
  }

  /** Return the time of a point, `back` points before the newest. */
  time(back) {
    return (this.last - back) * this.interval * 1000;
  }
}
