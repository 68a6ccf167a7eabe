/** A WebSocket without a network, and a tab without a browser. */

import { unpack } from "../../server/web/quotes.js";

export class FakeSocket {
  static opened = [];
  readyState = 0;
  sent = [];
  pings = 0;
  /** What answers a ping. */
  pong = JSON.stringify({ type: "pong", ts: 1_764_012_345_678_000 });

  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols, protocol: protocols[0] });
    FakeSocket.opened.push(this);
  }

  send(data) {
    const isText = typeof data === "string";
    if (isText === this.protocol.endsWith("msgpack")) throw new Error("a command of another form");
    const command = isText ? JSON.parse(data) : unpack(data.buffer);
    if (command.action === "ping") this.pings += 1;
    else this.sent.push(command);
  }

  close() {
    this.readyState = 3;
    this.closed = true;
  }

  // The server's part.

  open() {
    this.readyState = 1;
    this.onopen?.();
  }

  /** Answer all pings, as a server does that has accepted the client. */
  answer() {
    const { pings } = this;
    this.pings = 0;
    for (let each = 0; each < pings; each += 1) this.onmessage?.({ data: this.pong });
  }

  say(...messages) {
    for (const each of messages) this.onmessage?.({ data: JSON.stringify(each) });
  }

  end(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** Make the globals of a visible tab, and return a function that sends it events. */
export function openTab() {
  const page = new EventTarget();
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible", listeners: 0 });
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  return {
    show(visibilityState) {
      document.visibilityState = visibilityState;
      document.dispatchEvent(new Event("visibilitychange"));
    },
    send(type) {
      const target = ["freeze", "resume"].includes(type) ? document : page;
      target.dispatchEvent(new Event(type));
    },
    close() {
      delete globalThis.document;
    },
  };
}
