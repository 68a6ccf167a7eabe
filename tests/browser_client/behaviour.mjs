/**
 * How quotes.js behaves over time, with a clock and sockets of the test's own. It prints the error of
 * each scenario by its name, null if it went well.
 */

import assert from "node:assert/strict";
import { advance, clock, jump, settle } from "./clock.mjs";
import { connect } from "../../server/web/quotes.js";
import { FakeSocket, openTab } from "./fakes.mjs";

const URL_ = "wss://quotes.example/ws/quotes";
const SECOND = 1000;
const HOUR = 3600 * SECOND;
const NOW_US = 1_764_012_345_678_000;

const scenarios = new Map();
let open = [];

function scenario(name, play) {
  scenarios.set(name, play);
}

// ---------------------------------------------------------------- Helpers

function start(options = {}) {
  const quotes = connect({
    url: URL_,
    getToken: () => "token",
    symbols: ["A"],
    format: "json",
    WebSocket: FakeSocket,
    ...options,
  });
  open.push(quotes);
  return quotes;
}

function socket() {
  return FakeSocket.opened.at(-1);
}

/** Wait until another socket was opened, at most for `limit` milliseconds. Return the time it took. */
async function reconnected(limit = HOUR) {
  const before = FakeSocket.opened.length;
  const from = clock();
  for (let waited = 0; waited < limit; waited += 50) {
    await settle();
    if (FakeSocket.opened.length > before) return clock() - from;
    advance(50);
  }
  throw new Error("the client did not come back");
}

/** Let the newest socket be accepted. */
async function accept() {
  await settle();
  socket().open();
  socket().answer();
}

/** Start, and be accepted. */
async function accepted(options) {
  const quotes = start(options);
  await accept();
  return quotes;
}

/** Pass time in which the server answers each ping. */
async function live(milliseconds) {
  for (let passed = 0; passed < milliseconds; passed += SECOND) {
    advance(SECOND);
    socket().answer();
  }
  await settle();
}

function full(symbol, version, fields = {}, epoch = "7.a") {
  const value = { symbol, current_price: version, ...fields };
  const path = `/quotes/${symbol.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  const versions = Object.fromEntries([[symbol, version]]);
  return { type: "quotes_patch", ts: NOW_US, versions, operations: [{ op: "add", path, value }], epoch };
}

function change(symbol, version, more = {}) {
  const path = `/quotes/${symbol}/current_price`;
  const operations = [{ op: "replace", path, value: version }];
  return { type: "quotes_patch", ts: NOW_US, versions: { [symbol]: version }, operations, ...more };
}

function heard(quotes, type) {
  const details = [];
  quotes.addEventListener(type, ({ detail }) => details.push(detail));
  return details;
}

// ---------------------------------------------------------------- Coming back

scenario("back_off_has_full_jitter", async () => {
  const quotes = start();
  const waits = [];
  for (let attempt = 0; attempt < 60; attempt += 1) {
    await settle();
    socket().end(1006);
    assert.equal(quotes.state, "waiting");
    assert.equal(quotes.reason.code, "unreachable");
    const wait = quotes.retryAt - clock();
    assert.ok(wait <= Math.min(30 * SECOND, 500 * 2 ** attempt));
    waits.push(wait);
    await reconnected();
  }
  assert.ok(Math.min(...waits.slice(6)) < 8 * SECOND);
  assert.ok(Math.max(...waits.slice(6)) > 22 * SECOND);
});

scenario("back_off_starts_over_after_a_lasting_connection_only", async () => {
  const quotes = await accepted();
  const longest = Math.random;
  Math.random = () => 0.999;
  try {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      socket().end(1006);
      await reconnected();
      await accept();
    }
    socket().end(1006);
    assert.ok(quotes.retryAt - clock() > 15 * SECOND);
    await reconnected();
    await accept();
    await live(11 * SECOND);
    socket().end(1006);
    assert.ok(quotes.retryAt - clock() < 500);
    assert.equal(quotes.reason.code, "connection_lost");
  } finally {
    Math.random = longest;
  }
});

scenario("reconnect_is_honoured", async () => {
  const quotes = await accepted();
  socket().say({ type: "reconnect", after_ms: 4321 });
  socket().end(1001, "the server is going away, reconnect");
  assert.equal(quotes.retryAt - clock(), 4321);
  assert.equal(quotes.reason.code, "going_away");
  await reconnected();
  await accept();
  socket().say({ type: "reconnect", after_ms: 1e12 });
  socket().end(1001);
  assert.equal(quotes.retryAt - clock(), HOUR);
});

scenario("busy_servers_are_left_for_seconds", async () => {
  const quotes = start();
  const refusals = { 4503: "at_capacity", 4409: "too_many_connections", 4429: "rate_limited" };
  for (const [code, name] of Object.entries(refusals)) {
    await settle();
    socket().open();
    socket().end(Number(code), `${name}: come back later`);
    assert.equal(quotes.state, "waiting");
    assert.deepEqual(quotes.reason, { code: name, message: "come back later" });
    assert.ok(quotes.retryAt - clock() >= SECOND);
    assert.ok(quotes.retryAt - clock() <= 5 * SECOND);
    await reconnected();
  }
});

scenario("a_wait_in_the_reason_is_honoured", async () => {
  const quotes = start();
  const refusals = { 4503: "store_unavailable", 4409: "too_many_connections", 4429: "rate_limited" };
  for (const [code, name] of Object.entries(refusals)) {
    await settle();
    socket().open();
    socket().end(Number(code), `${name}: slow down; retry after 17 s`);
    assert.deepEqual(quotes.reason, { code: name, message: "slow down" });
    const wait = quotes.retryAt - clock();
    assert.ok(wait >= 17 * SECOND && wait <= 18 * SECOND, String(wait));
    assert.equal(quotes.askedUntil, quotes.retryAt);
    await reconnected();
    assert.equal(quotes.askedUntil, null);
  }
  socket().end(4429, "rate_limited: slow down; retry after 99999999999999999999 s");
  assert.equal(quotes.retryAt - clock(), HOUR);
});

scenario("no_way_back_is_shorter_than_the_wait_that_was_asked_for", async () => {
  const ways = {
    resume: (quotes) => {
      quotes.pause();
      quotes.resume();
    },
    reconnect: (quotes) => quotes.reconnect({ symbols: ["B"] }),
    awake: () => jump(-2 * HOUR),
  };
  for (const [way, go] of Object.entries(ways)) {
    for (const end of [
      () => socket().end(4429, "rate_limited: slow down; retry after 60 s"),
      () => socket().say({ type: "reconnect", after_ms: 60_000 }) ?? socket().end(1001),
      () => socket().say({ type: "reconnect", after_ms: 60_000 }),
    ]) {
      const quotes = await accepted();
      end();
      const from = clock();
      if (quotes.state === "live" && way === "awake") quotes.reconnect();
      go(quotes);
      assert.equal(quotes.state, "waiting", way);
      assert.ok(["rate_limited", "going_away"].includes(quotes.reason.code), quotes.reason.code);
      const back = way === "awake" ? from - 2 * HOUR : from;
      await reconnected();
      const wait = clock() - back;
      assert.ok(wait >= 60 * SECOND && wait < 62 * SECOND, `${way}: ${wait}`);
      quotes.close();
    }
  }
});

scenario("a_wait_does_not_tell_the_reason_of_an_earlier_failure", async () => {
  const quotes = start();
  await settle();
  socket().end(1006);
  assert.equal(quotes.reason.code, "unreachable");
  await reconnected();
  await accept();
  socket().say({ type: "reconnect", after_ms: 5000 });
  quotes.pause();
  quotes.resume();
  assert.deepEqual([quotes.state, quotes.reason.code], ["waiting", "going_away"]);
});

scenario("another_server_has_not_asked_for_a_wait", async () => {
  const quotes = await accepted();
  socket().end(4429, "rate_limited: slow down; retry after 60 s");
  quotes.reconnect({ url: "wss://other.example/ws/quotes" });
  assert.equal(quotes.state, "connecting");
  await accept();
  assert.equal(socket().url.host, "other.example");
});

scenario("a_token_may_come_later", async () => {
  let asked = 0;
  const refusal = Object.assign(new Error("too many requests"), { retryAfter: 9000 });
  const quotes = start({ getToken: () => (asked++ ? "token" : Promise.reject(refusal)) });
  await settle();
  assert.deepEqual([quotes.state, quotes.reason.code], ["waiting", "no_token"]);
  assert.equal(quotes.retryAt - clock(), 9000);
  quotes.pause();
  quotes.resume();
  assert.equal(quotes.retryAt - clock(), 9000);
  assert.ok((await reconnected()) >= 9000);
});

scenario("the_wait_for_a_token_counts_from_its_refusal", async () => {
  const refusal = Object.assign(new Error("too many requests"), { retryAfter: 9000 });
  let [asked, refuse] = [0, null];
  const getToken = () => (asked++ ? "token" : new Promise((_, reject) => (refuse = reject)));
  const quotes = start({ getToken });
  await settle();
  quotes.pause();
  refuse(refusal);
  await settle();
  advance(5000);
  quotes.resume();
  assert.deepEqual([quotes.state, quotes.reason.code], ["waiting", "no_token"]);
  assert.equal(quotes.retryAt - clock(), 4000);
  await reconnected();
  assert.equal(asked, 2);
});

scenario("an_early_request_for_a_token_waits_as_well", async () => {
  const refusal = Object.assign(new Error("too many requests"), { retryAfter: 9000 });
  let asked = 0;
  const quotes = await accepted({ getToken: () => (++asked === 2 ? Promise.reject(refusal) : "token") });
  socket().end(4401, "the token expired");
  await settle();
  assert.equal(quotes.retryAt - clock(), 9000);
  assert.ok((await reconnected()) >= 9000);
  assert.equal(asked, 3);
});

scenario("final_refusals_stop", async () => {
  const refusals = [
    [4400, "bad_request"],
    [4400, "no_valid_symbols"],
    [4400, "too_many_symbols"],
    [4400, "too_many_views"],
    [4403, "origin_not_allowed"],
    [4403, "not_entitled"],
    [4403, "forbidden"],
  ];
  for (const [code, name] of refusals) {
    const quotes = start();
    const command = quotes.throttle(1000);
    await settle();
    socket().open();
    const { length } = FakeSocket.opened;
    socket().end(code, `${name}: no`);
    assert.equal(quotes.state, "closed");
    assert.deepEqual(quotes.reason, { code: name, message: "no" });
    advance(HOUR);
    await settle();
    assert.equal(FakeSocket.opened.length, length);
    await assert.rejects(command, { code: name });
    await assert.rejects(quotes.subscribe(["B"]), { code: "closed" });
    quotes.reconnect();
    await accept();
    assert.equal(quotes.state, "live");
    quotes.close();
  }
});

scenario("one_bad_handshake_does_not_repeat_resume_for_ever", async () => {
  await accepted();
  socket().say(full("A", 5));
  const resumes = [];
  for (let attempt = 0; attempt < 16; attempt += 1) {
    socket().end(1006);
    await reconnected();
    resumes.push(socket().url.searchParams.get("resume"));
  }
  assert.equal(resumes.filter((resume) => resume === null).length, 2);
  assert.equal(resumes[0], "7.a:A=5");
  for (let attempt = 0; attempt < 7; attempt += 1) {
    socket().end(1006);
    await reconnected();
  }
  await accept();
  socket().end(1006);
  await reconnected();
  assert.equal(socket().url.searchParams.get("resume"), "7.a:A=5");
});

scenario("another_source_of_tokens_is_asked", async () => {
  let asked = 0;
  const quotes = await accepted({ getToken: () => `one${(asked += 1)}` });
  quotes.reconnect({ format: "compact" });
  await settle();
  assert.ok(socket().protocols.includes("bearer.one1"));
  assert.equal(asked, 1);
  quotes.reconnect({ getToken: () => "two" });
  await settle();
  assert.ok(socket().protocols.includes("bearer.two"));
});

// ---------------------------------------------------------------- Tokens

scenario("no_url_holds_the_token", async () => {
  start({ getToken: async () => "e.y.J" });
  await settle();
  assert.deepEqual(socket().protocols, ["quotestream.v1.json", "bearer.e.y.J"]);
  assert.ok(!socket().url.href.includes("e.y.J"));
  assert.equal(socket().url.searchParams.get("refuse"), "close");
});

scenario("a_token_is_renewed_once", async () => {
  let asked = 0;
  const quotes = start({ getToken: () => `t${(asked += 1)}` });
  await settle();
  socket().end(4401, "unauthorized: expired");
  assert.equal(quotes.state, "waiting");
  await reconnected();
  assert.ok(socket().protocols.includes("bearer.t2"));
  await accept();
  socket().end(4401, "the token expired");
  await reconnected();
  socket().open();
  socket().end(4401, "unauthorized: still expired");
  assert.equal(asked, 3);
  assert.equal(quotes.state, "closed");
  assert.deepEqual(quotes.reason, { code: "unauthorized", message: "still expired" });
  quotes.reconnect();
  await settle();
  socket().end(4401, "unauthorized: expired");
  assert.equal(quotes.state, "waiting");
  assert.equal(asked, 4);
});

scenario("without_get_token_a_refused_one_is_final", async () => {
  const quotes = start({ getToken: undefined });
  await settle();
  assert.deepEqual(socket().protocols, ["quotestream.v1.json"]);
  socket().end(4401, "unauthorized: no token");
  assert.equal(quotes.state, "closed");
});

scenario("a_token_that_cannot_be_had_is_asked_for_again", async () => {
  let asked = 0;
  const quotes = start({
    getToken: () => {
      asked += 1;
      if (asked < 3) throw new Error("the network is away");
      return "t";
    },
  });
  await settle();
  assert.equal(quotes.state, "waiting");
  assert.equal(quotes.reason.code, "no_token");
  await reconnected();
  assert.equal(asked, 3);
});

scenario("no_error_repeats_a_token", async () => {
  class Refusing {
    constructor(_, protocols) {
      throw new SyntaxError(`the subprotocol ${protocols.at(-1)} is invalid`);
    }
  }
  const quotes = start({ getToken: () => "se cret", WebSocket: Refusing });
  await settle();
  assert.equal(quotes.state, "closed");
  assert.equal(quotes.reason.code, "bad_options");
  assert.ok(!quotes.reason.message.includes("se cret"));
});

scenario("a_slow_token_is_waited_for", async () => {
  let give = null;
  const quotes = start({ getToken: () => new Promise((resolve) => (give = resolve)) });
  await settle();
  advance(HOUR);
  await settle();
  assert.equal(quotes.state, "connecting");
  assert.equal(FakeSocket.opened.length, 0);
  give("late");
  await settle();
  assert.ok(socket().protocols.includes("bearer.late"));
});

// ---------------------------------------------------------------- The heartbeat

scenario("a_dead_connection_is_noticed", async () => {
  const quotes = await accepted();
  await live(60 * SECOND);
  assert.equal(quotes.state, "live");
  advance(10 * SECOND);
  assert.equal(socket().pings, 1);
  advance(3 * SECOND);
  assert.equal(quotes.state, "stale");
  assert.equal(quotes.reason.code, "no_answer");
  const dead = socket();
  const away = await reconnected();
  assert.ok(away <= 8 * SECOND);
  assert.ok(dead.closed);
  assert.equal(quotes.reason.code, "no_answer");
});

scenario("a_late_answer_ends_the_doubt", async () => {
  const quotes = await accepted();
  advance(15 * SECOND);
  assert.equal(quotes.state, "stale");
  socket().say(full("A", 1));
  assert.equal(quotes.state, "live");
  advance(5 * SECOND);
  assert.equal(quotes.state, "live");
});

scenario("prices_need_no_pings", async () => {
  await accepted();
  for (let version = 1; version < 60; version += 1) {
    socket().say(full("A", version));
    advance(SECOND);
  }
  assert.equal(socket().pings, 0);
});

scenario("a_jump_of_the_clock_is_looked_into", async () => {
  const quotes = await accepted();
  jump(HOUR);
  advance(SECOND);
  assert.equal(quotes.state, "stale");
  socket().answer();
  assert.equal(quotes.state, "live");
  jump(-HOUR);
  advance(SECOND);
  socket().answer();
  assert.equal(quotes.state, "live");
  jump(HOUR);
  const away = await reconnected();
  assert.ok(away <= 10 * SECOND);
});

scenario("a_handshake_that_hangs_is_given_up", async () => {
  const quotes = start();
  await settle();
  advance(10 * SECOND);
  assert.equal(quotes.state, "waiting");
  await reconnected();
  socket().open();
  advance(10 * SECOND);
  assert.equal(quotes.state, "waiting");
});

// ---------------------------------------------------------------- Sleep

scenario("a_hidden_tab_sleeps_and_resumes", async () => {
  const tab = openTab();
  const quotes = await accepted();
  socket().say(full("A", 5));
  tab.show("hidden");
  await live(20 * SECOND);
  tab.show("visible");
  await live(40 * SECOND);
  assert.equal(quotes.state, "live");
  tab.show("hidden");
  await live(31 * SECOND);
  assert.equal(quotes.state, "sleeping");
  assert.equal(quotes.reason.code, "hidden");
  assert.equal(socket().closed, true);
  const { length } = FakeSocket.opened;
  advance(24 * HOUR);
  await settle();
  assert.equal(FakeSocket.opened.length, length);
  tab.show("visible");
  await settle();
  assert.equal(FakeSocket.opened.length, length + 1);
  assert.equal(socket().url.searchParams.get("resume"), "7.a:A=5");
  assert.equal(quotes.quotes.get("A").current_price, 5);
  tab.close();
});

scenario("commands_do_not_pile_up_in_an_absence", async () => {
  const quotes = await accepted();
  quotes.pause();
  const answers = [];
  for (let number = 0; number < 1000; number += 1) {
    answers.push(quotes.throttle(number), quotes.bars(["A"], "1m"), quotes.unbars(["A"], "1m"));
  }
  answers.push(quotes.bars(["A"], "1m"));
  quotes.resume();
  await accept();
  const commands = socket().sent.filter(({ action }) => action !== "ping");
  assert.deepEqual(commands.map(({ action, interval, bars }) => [action, interval ?? bars]), [
    ["throttle", "999ms"],
    ["unsubscribe", ["A"]],
    ["subscribe", ["A"]],
  ]);
  for (const { id, action } of commands) {
    const detail = action === "throttle" ? { interval: 0.999 } : { symbols: ["A"], timeframe: "1m" };
    socket().say({ type: "ack", id, action, ...detail });
  }
  await Promise.all(answers);
});

scenario("a_frozen_tab_sleeps_at_once", async () => {
  const tab = openTab();
  const quotes = await accepted();
  for (const [falls, wakes] of [["freeze", "resume"], ["pagehide", "pageshow"]]) {
    tab.send(falls);
    assert.equal(quotes.state, "sleeping");
    tab.send(wakes);
    await accept();
    assert.equal(quotes.state, "live");
  }
  document.visibilityState = "hidden";
  tab.send("freeze");
  tab.send("resume");
  assert.equal(quotes.state, "sleeping");
  tab.close();
});

scenario("a_tab_without_network_sleeps", async () => {
  const tab = openTab();
  const quotes = await accepted();
  tab.send("offline");
  assert.equal(quotes.state, "sleeping");
  assert.equal(quotes.reason.code, "offline");
  quotes.pause();
  tab.send("online");
  assert.equal(quotes.reason.code, "paused");
  quotes.resume();
  await accept();
  assert.equal(quotes.state, "live");
  quotes.close();
  tab.send("offline");
  assert.equal(quotes.state, "closed");
  const near = await accepted({ url: "ws://127.0.0.1:8080/ws/quotes" });
  tab.send("offline");
  assert.equal(near.state, "live");
  tab.close();
});

scenario("a_paused_client_does_not_come_back", async () => {
  const quotes = await accepted();
  socket().end(1006);
  quotes.pause();
  const { length } = FakeSocket.opened;
  advance(HOUR);
  await settle();
  assert.equal(FakeSocket.opened.length, length);
  assert.equal(quotes.state, "sleeping");
  quotes.reconnect({ symbols: ["B"] });
  advance(HOUR);
  await settle();
  assert.equal(FakeSocket.opened.length, length);
  quotes.resume();
  await settle();
  assert.equal(socket().url.searchParams.get("symbols"), "B");
  quotes.pause();
  quotes.close();
  quotes.reconnect({ url: "http://other.example/ws/quotes?a=b#c" });
  await settle();
  assert.match(socket().url.href, /^ws:\/\/other\.example\/ws\/quotes\?a=b&refuse=close&[^#]*$/);
});

// ---------------------------------------------------------------- Completeness

scenario("a_gap_is_counted_and_repaired", async () => {
  const quotes = await accepted();
  const told = heard(quotes, "missed");
  socket().say(full("A", 5), change("A", 6));
  assert.equal(quotes.missed, 0);
  assert.equal(told.length, 0);
  socket().say(change("A", 9));
  assert.equal(quotes.missed, 2);
  assert.deepEqual(quotes.gaps, [{ symbol: "A", from: 7, to: 8, count: 2 }]);
  assert.deepEqual(quotes.behind, ["A"]);
  assert.deepEqual(socket().sent, [{ action: "resync", symbols: ["A"], id: "resync" }]);
  await live(9 * SECOND);
  assert.equal(socket().sent.length, 1);
  await live(2 * SECOND);
  assert.equal(socket().sent.length, 2);
  socket().say({ type: "ack", action: "resync", symbols: ["A"], id: "resync" });
  assert.deepEqual(quotes.symbols, ["A"]);
  assert.equal(quotes.missed, 2);
  socket().say(full("A", 9));
  assert.equal(quotes.missed, 0);
  assert.deepEqual(quotes.behind, []);
  assert.equal(told.length, 2);
  assert.equal(quotes.stats.resyncs, 2);
});

scenario("of_chosen_fields_one_update_is_certain", async () => {
  const quotes = await accepted({ fields: ["current_price"] });
  socket().say(full("A", 5), change("A", 60, { since: { A: 50 } }));
  assert.deepEqual(quotes.gaps, [{ symbol: "A", from: 50, to: 50, count: 1 }]);
});

scenario("many_gaps_are_repaired_in_turn", async () => {
  const symbols = Array.from({ length: 2000 }, (_, number) => `S${number}`);
  const quotes = await accepted({ symbols: ["*"] });
  for (const symbol of symbols) socket().say(full(symbol, 1));
  for (const symbol of symbols) socket().say(change(symbol, 3));
  const asked = socket().sent;
  assert.equal(asked.length, 20);
  await live(5 * SECOND);
  assert.ok(asked.length <= 120);
  assert.deepEqual(new Set(asked.flatMap((each) => each.symbols)), new Set(symbols));
  for (const symbol of symbols) socket().say(full(symbol, 4));
  assert.equal(quotes.missed, 0);
});

scenario("quotes_of_the_last_connection_are_behind", async () => {
  const quotes = await accepted({ symbols: ["A", "B", "C"] });
  socket().say(full("A", 5), full("B", 6), full("C", 7), change("C", 9));
  socket().end(1006);
  await reconnected();
  await accept();
  assert.equal(socket().url.searchParams.get("resume"), "7.a:A=5,B=6");
  assert.deepEqual(new Set(quotes.behind), new Set(["A", "B", "C"]));
  const removed = heard(quotes, "removed");
  const recovered = { A: "current", C: "quote" };
  socket().say({ type: "ack", action: "resume", symbols: ["A", "C"], recovered });
  assert.deepEqual(removed, [{ symbol: "B", renamedTo: null }]);
  assert.deepEqual(quotes.behind, ["C"]);
  assert.equal(quotes.stats.resumed, 1);
  assert.equal(quotes.stats.connects, 2);
  assert.deepEqual(socket().sent, []);
  socket().say(full("C", 10));
  assert.deepEqual(quotes.behind, []);
  assert.equal(quotes.missed, 0);
});

scenario("other_fields_resume_nothing", async () => {
  const quotes = await accepted();
  socket().say(full("A", 5));
  quotes.reconnect({ format: "compact" });
  await settle();
  assert.equal(socket().url.searchParams.get("resume"), "7.a:A=5");
  quotes.reconnect({ fields: ["volume"] });
  await settle();
  assert.equal(socket().url.searchParams.get("resume"), null);
  assert.equal(socket().url.searchParams.get("fields"), "volume");
});

scenario("no_symbol_pollutes_a_prototype", async () => {
  const before = JSON.stringify(Object.getOwnPropertyNames(Object.prototype));
  const symbols = ["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf"];
  const quotes = await accepted({ symbols: ["*"] });
  for (const symbol of symbols) {
    socket().say(JSON.parse(JSON.stringify(full(symbol, 1)).replaceAll("SYMBOL", symbol)));
    const versions = `{"${symbol}":2}`;
    const path = `/quotes/${symbol}/current_price`;
    const operations = JSON.stringify([{ op: "replace", path, value: 7 }]);
    socket().onmessage({
      data: `{"type":"quotes_patch","ts":1,"versions":${versions},"operations":${operations}}`,
    });
    assert.equal(quotes.quotes.get(symbol).current_price, 7);
    assert.equal(quotes.versions.get(symbol), 2);
  }
  const value = 666;
  for (const path of ["/quotes/A/__proto__/polluted", "/quotes/A/constructor/prototype/polluted", "/__proto__/x"]) {
    socket().say(full("A", 1), { ...change("A", 2), operations: [{ op: "add", path, value }] });
  }
  socket().say({ ...change("A", 3), operations: [{ op: "add", path: "/quotes/A/__proto__", value: { x: 1 } }] });
  assert.equal({}.polluted, undefined);
  assert.equal({}.x, undefined);
  assert.equal(Object.getPrototypeOf(quotes.quotes.get("A")), Object.prototype);
  assert.equal(JSON.stringify(Object.getOwnPropertyNames(Object.prototype)), before);
  assert.equal(quotes.missed, 0);
});

scenario("a_change_too_small_to_show_is_zero", async () => {
  const quotes = await accepted({ format: "compact" });
  const fields = ["current_price", "base_price"];
  socket().say({ type: "schema", fields, derived: ["change", "change_percent"] });
  socket().say(["s", "7.a", NOW_US, [["A", 1, 3, 99999.99, 100000]]]);
  assert.ok(Object.is(quotes.quotes.get("A").change_percent, 0));
  assert.equal(quotes.quotes.get("A").change, -0.01);
});

scenario("each_operation_of_a_patch_is_applied", async () => {
  const quotes = await accepted({ symbols: ["A", "B"] });
  socket().say(full("A", 1, { bid: 3, ask: 4 }), full("B", 5, { bid: 6 }));
  const operations = [
    { op: "test", path: "/quotes/A/bid", value: 3 },
    { op: "copy", from: "/quotes/B/bid", path: "/quotes/A/ask" },
    { op: "move", from: "/quotes/A/bid", path: "/quotes/A/bid_size" },
    { op: "remove", path: "/quotes/A/current_price" },
    { op: "add", path: "/quotes/A/open", value: 8 },
  ];
  socket().say({ ...change("A", 2), operations });
  assert.deepEqual({ ...quotes.quotes.get("A") }, { symbol: "A", ask: 6, bid_size: 3, open: 8 });
  assert.equal(quotes.versions.get("A"), 2);
  assert.equal(quotes.versions.get("B"), 5);
  assert.equal(quotes.missed, 0);
  const untrue = [{ op: "test", path: "/quotes/A/open", value: 9 }];
  socket().say({ ...change("A", 3), operations: untrue });
  assert.equal(quotes.missed, 1);
  assert.deepEqual(socket().sent.at(-1).symbols, ["A"]);
  socket().say({ ...full("C", 7), operations: [{ op: "move", from: "/quotes/B", path: "/quotes/C" }] });
  assert.deepEqual([...quotes.quotes.keys()], ["A", "C"]);
});

scenario("the_words_of_a_close_are_told", async () => {
  const quotes = await accepted();
  socket().end(1008, "too many bad commands in a row");
  assert.deepEqual(quotes.reason, {
    code: "connection_lost",
    message: "too many bad commands in a row",
  });
  assert.equal(quotes.state, "waiting");
});

scenario("nonsense_ends_the_connection", async () => {
  const nonsense = [
    "{", "null", "7", "[]", "{}", '{"type":5}', '{"type":"reconnect"}', '{"type":"reconnect","after_ms":"x"}',
    '{"type":"quotes_patch","versions":{"A":1.5},"operations":[]}', '["s","e",1,[["A",1,1,1]]]',
  ];
  const quotes = await accepted();
  for (const data of nonsense) {
    socket().onmessage({ data });
    assert.equal(quotes.state, "waiting", data);
    assert.equal(quotes.reason.code, "bad_message", data);
    await reconnected();
    await accept();
    assert.equal(quotes.state, "live");
  }
});

scenario("a_listener_may_end_the_connection", async () => {
  const quotes = await accepted({ symbols: ["A", "B"] });
  quotes.addEventListener("change", () => quotes.pause(), { once: true });
  const broken = { ...full("A", 1), versions: { A: 1, B: "?" } };
  broken.operations.push(full("B", 1).operations[0]);
  socket().say(broken);
  assert.equal(quotes.state, "sleeping");
  quotes.resume();
  await accept();
  quotes.addEventListener("change", () => quotes.close(), { once: true });
  socket().say(full("A", 1), full("A", 2));
  assert.equal(quotes.state, "closed");
  assert.equal(quotes.versions.get("A"), 1);
});

// ---------------------------------------------------------------- Requests and commands

scenario("a_request_is_bounded", async () => {
  const symbols = Array.from({ length: 5000 }, (_, number) => `SYMBOL/${number}`);
  const quotes = await accepted({ symbols });
  const { url, sent } = socket();
  assert.ok(url.href.length <= 8000);
  const named = url.searchParams.get("symbols").split(",");
  const asked = sent.flatMap((command) => command.symbols);
  assert.deepEqual(new Set([...named, ...asked]), new Set(symbols));
  for (const command of sent) assert.ok(JSON.stringify(command).length < 16_384);
  quotes.reconnect({ symbols: ["*"] });
  await accept();
  for (const symbol of symbols) socket().say(full(symbol, 1e9));
  socket().end(1006);
  await reconnected();
  const resume = socket().url.searchParams.get("resume").split(",");
  assert.ok(socket().url.href.length <= 8000);
  assert.ok(resume.length > 200 && resume.length < symbols.length);
  assert.match(resume.at(-1), /^SYMBOL\/\d+=1000000000$/);
});

scenario("commands_are_answered", async () => {
  const quotes = await accepted();
  const errors = heard(quotes, "error");
  const subscribed = quotes.subscribe([" msft ", "MSFT", "nope"]);
  const [command] = socket().sent;
  assert.deepEqual(command, { action: "subscribe", symbols: ["MSFT", "NOPE"], id: 1 });
  socket().say({ type: "ack", action: "subscribe", symbols: ["MSFT"], id: 1 });
  socket().say({ type: "error", code: "unknown_symbol", message: "no", id: 1, symbols: ["NOPE"] });
  assert.deepEqual(errors, [{ code: "unknown_symbol", message: "no", id: 1, symbols: ["NOPE"] }]);
  await assert.rejects(subscribed, { code: "unknown_symbol", message: "no", symbols: ["NOPE"] });
  const refused = quotes.subscribe(["X"]);
  socket().say({ type: "error", code: "unknown_symbol", message: "no", id: 2, symbols: ["X"] });
  await assert.rejects(refused, { code: "unknown_symbol", message: "no", symbols: ["X"] });
  assert.deepEqual(quotes.symbols, ["A", "MSFT"]);
  assert.deepEqual(await quotes.subscribe([]), { action: "subscribe", symbols: [] });
});

scenario("a_refusal_names_all_symbols_that_were_refused", async () => {
  const quotes = await accepted({ symbols: [] });
  const refuse = (code, id, symbols) => socket().say({ type: "error", code, message: code, id, symbols });
  const subscribed = quotes.subscribe(["A", "NOPE", "AWAY"]);
  let settled = false;
  subscribed.catch(() => (settled = true));
  refuse("unknown_symbol", 1, ["NOPE"]);
  socket().say({ type: "ack", action: "subscribe", symbols: ["A"], id: 1 });
  await settle();
  assert.equal(settled, false);
  refuse("store_unavailable", 1, ["AWAY"]);
  await assert.rejects(subscribed, { code: "unknown_symbol", symbols: ["NOPE", "AWAY"] });
  assert.deepEqual(quotes.symbols, ["A"]);

  const many = Array.from({ length: 120 }, (_, number) => `S${number}`);
  const inParts = quotes.subscribe(many);
  const [first, second, third] = socket().sent.slice(1).map(({ symbols }) => symbols);
  refuse("too_many_symbols", 2);
  socket().say({ type: "ack", action: "subscribe", symbols: second, id: 3 });
  socket().say({ type: "ack", action: "subscribe", symbols: third.slice(1), id: 4 });
  refuse("unknown_symbol", 4, [third[0]]);
  await assert.rejects(inParts, { code: "too_many_symbols", symbols: [...first, third[0]] });

  const bars = quotes.bars(["A", "NOPE"]);
  socket().say({ type: "ack", action: "subscribe", symbols: ["A"], timeframe: "1m", id: 5 });
  refuse("unknown_symbol", 5, ["NOPE"]);
  await assert.rejects(bars, { code: "unknown_symbol", symbols: ["NOPE"] });
});

scenario("a_symbol_that_has_another_name_is_not_waited_for", async () => {
  const quotes = await accepted();
  const subscribed = quotes.subscribe(["OLD"]);
  socket().say({ type: "ack", action: "subscribe", symbols: ["NEW"], id: 1 });
  await live(SECOND);
  assert.deepEqual(await subscribed, { action: "subscribe", symbols: ["NEW"] });
  const lost = quotes.subscribe(["B", "C"]);
  socket().say({ type: "ack", action: "subscribe", symbols: ["B"], id: 2 });
  socket().end(1006);
  await reconnected();
  assert.equal(socket().url.searchParams.get("symbols"), "A,NEW,B,C");
  await accept();
  assert.deepEqual(await lost, { action: "subscribe", symbols: ["B", "C"] });
});

scenario("commands_while_away_are_answered_by_the_next_connection", async () => {
  const quotes = start({ symbols: [] });
  const subscribed = quotes.subscribe(["B", "NOPE"]);
  const refused = quotes.subscribe(["NOPE"]);
  await settle();
  assert.equal(socket().url.searchParams.get("symbols"), "B,NOPE");
  socket().open();
  socket().say({ type: "error", code: "unknown_symbol", message: "no", symbols: ["NOPE"] });
  socket().answer();
  await assert.rejects(subscribed, { code: "unknown_symbol", symbols: ["NOPE"] });
  await assert.rejects(refused, { code: "unknown_symbol" });
  assert.deepEqual(quotes.symbols, ["B"]);
  const lost = quotes.subscribe(["C"]);
  socket().end(1006);
  await reconnected();
  assert.equal(socket().url.searchParams.get("symbols"), "B,C");
  await accept();
  assert.deepEqual((await lost).symbols, ["C"]);
});

scenario("symbols_behind_a_long_url_stay", async () => {
  const symbols = Array.from({ length: 2000 }, (_, number) => `SYMBOL/${number}`);
  const quotes = await accepted({ symbols });
  for (const symbol of symbols) socket().say(full(symbol, 1));
  socket().end(1006);
  await reconnected();
  await accept();
  const removed = heard(quotes, "removed");
  const named = socket().url.searchParams.get("symbols").split(",");
  assert.ok(named.length < symbols.length);
  const recovered = Object.fromEntries(named.map((symbol) => [symbol, "current"]));
  socket().say({ type: "ack", action: "resume", symbols: named, recovered });
  assert.deepEqual(removed, []);
  assert.equal(quotes.symbols.length, symbols.length);
  assert.equal(quotes.behind.length, symbols.length - named.length);
});

scenario("options_may_be_undefined_and_a_bad_address_changes_nothing", async () => {
  const quotes = await accepted({ format: undefined, fields: undefined, interval: undefined });
  assert.deepEqual(socket().protocols.slice(0, 2), ["quotestream.v1.compact", "quotestream.v1.json"]);
  assert.throws(() => quotes.reconnect({ url: "http://:bad", format: "json" }));
  quotes.reconnect();
  await settle();
  assert.equal(socket().protocols[0], "quotestream.v1.compact");
});

scenario("symbols_are_asked_for_again_when_the_store_is_back", async () => {
  const quotes = await accepted({ symbols: ["A", "B"] });
  const error = { type: "error", code: "store_unavailable", message: "wait", symbols: ["B"] };
  socket().say(error);
  advance(5 * SECOND);
  assert.deepEqual(socket().sent, [{ action: "subscribe", symbols: ["B"], id: 1 }]);
  socket().say({ ...error, id: 1 });
  advance(5 * SECOND);
  assert.equal(socket().sent.length, 2);
  assert.deepEqual(quotes.symbols, ["A", "B"]);
});

scenario("a_bad_interval_is_not_repeated", async () => {
  const quotes = await accepted({ interval: 500 });
  assert.equal(socket().url.searchParams.get("interval"), "500ms");
  const refused = quotes.throttle("often");
  socket().say({ type: "error", code: "bad_command", message: "not a duration", id: 1 });
  await assert.rejects(refused, { code: "bad_command" });
  socket().say({ type: "ack", action: "throttle", symbols: [], interval: 0.5 });
  socket().end(1006);
  await reconnected();
  assert.equal(socket().url.searchParams.get("interval"), "500ms");
});

scenario("bars_go_on_after_a_reconnection", async () => {
  const quotes = await accepted();
  const missed = heard(quotes, "bars_missed");
  quotes.bars(["A", "B"], "5m");
  socket().say({ type: "ack", action: "subscribe", symbols: ["A", "B"], timeframe: "5m", id: 1 });
  quotes.unbars(["B"], "5m");
  socket().say({ type: "ack", action: "unsubscribe", symbols: ["B"], timeframe: "5m", id: 2 });
  socket().end(1006);
  await reconnected();
  await accept();
  const [command] = socket().sent;
  assert.deepEqual(command, { action: "subscribe", timeframe: "5m", bars: ["A"], id: 3 });
  assert.deepEqual(missed, [{ symbol: "A", timeframe: "5m" }]);
  const { operations } = full("A", 1);
  const removed = { op: "remove", path: "/quotes/A" };
  socket().say(full("A", 1));
  const moved = full("Z", 2);
  socket().say({ ...moved, operations: [removed, ...moved.operations], versions: { A: 2, Z: 2 }, renamed: { A: "Z" } });
  assert.equal(operations.length, 1);
  assert.deepEqual(quotes.symbols, ["Z"]);
  socket().end(1006);
  await reconnected();
  await accept();
  assert.deepEqual(socket().sent[0].bars, ["Z"]);
});

// ---------------------------------------------------------------- What a page is told

scenario("states_are_told_with_reasons", async () => {
  const quotes = start();
  const states = heard(quotes, "state");
  await accept();
  const say = (status, reason, more = {}) => socket().say({ type: "status", status, reason, ...more });
  say("stale", "feed_quiet");
  say("stale", "feed_quiet");
  say("stale", "leader_lost");
  say("live", "feed_resumed");
  say("closed", "session_closed", { next_open: "2026-11-27T14:30:00Z" });
  assert.match(quotes.reason.message, /2026-11-27/);
  say("live", "session_opened");
  say("stale", "feed_ended");
  assert.deepEqual(
    states.map(({ state, reason }) => [state, reason?.code ?? null]),
    [
      ["live", null],
      ["stale", "feed_quiet"],
      ["stale", "leader_lost"],
      ["live", null],
      ["stale", "session_closed"],
      ["live", null],
      ["stale", "feed_ended"],
    ],
  );
  say("halted", "LUDP", { symbols: ["A"] });
  assert.equal(quotes.statuses.get("A").reason, "LUDP");
  say("stale", "quiet", { symbols: ["A"] });
  assert.equal(quotes.statuses.get("A").reason, "LUDP");
  say("open", "resumed", { symbols: ["A"] });
  assert.equal(quotes.statuses.size, 0);
  say("halted", "LUDP", { symbols: ["A"] });
  const gone = { ...full("A", 1), operations: [{ op: "remove", path: "/quotes/A" }] };
  socket().say(full("A", 1), gone);
  assert.equal(quotes.statuses.size, 0);
  assert.deepEqual(quotes.symbols, []);
  say("live", "feed_resumed", { interval: 2 });
  assert.equal(quotes.overload, 2);
  socket().end(1006);
  assert.equal(quotes.overload, 0);
  assert.equal(quotes.status, null);
});

scenario("lag_uses_the_server_s_clock", async () => {
  const quotes = start();
  await settle();
  socket().pong = JSON.stringify({ type: "pong", ts: (clock() + HOUR) * 1000 });
  socket().open();
  socket().say({ ...full("A", 1), ts: 1 });
  assert.equal(quotes.lag, null);
  socket().answer();
  socket().say({ ...change("A", 2), ts: (clock() + HOUR - 40) * 1000 });
  assert.equal(quotes.lag, 40);
  socket().say({ type: "reconnect", after_ms: 5 }, { ...full("B", 1), ts: 1 });
  assert.equal(quotes.lag, 40);
  socket().say({ ...change("A", 3), ts: (clock() + HOUR - 50) * 1000 });
  assert.equal(quotes.lag, 50);
  socket().say({ ...full("A", 9), ts: (clock() + HOUR - 60) * 1000 });
  assert.equal(quotes.lag, 60);
});

scenario("only_updates_have_a_lag_in_each_form", async () => {
  const quotes = await accepted({ format: "compact", symbols: ["*"] });
  const row = (version) => ["s", "7.a", 1, [["A", version, 1, 5]]];
  socket().say({ type: "schema", fields: ["current_price"] }, row(1), row(1));
  assert.equal(quotes.lag, null);
  socket().say(row(2));
  assert.ok(quotes.lag > 0);
});

scenario("a_symbol_that_came_by_a_rename_is_asked_for_next", async () => {
  const quotes = await accepted({ symbols: ["A", "B"] });
  socket().say(full("A", 1), full("B", 1), full("C", 1));
  assert.deepEqual(quotes.symbols, ["A", "B", "C"]);
  socket().end(1006);
  await reconnected();
  assert.equal(socket().url.searchParams.get("symbols"), "A,B,C");
});

scenario("reconnect_begins_anew", async () => {
  const quotes = start();
  for (let attempt = 0; attempt < 7; attempt += 1) {
    await settle();
    socket().end(1006);
    await reconnected();
  }
  const { length } = FakeSocket.opened;
  const original = Math.random;
  Math.random = () => 0.999;
  try {
    quotes.reconnect();
    await settle();
    assert.equal(FakeSocket.opened.length, length + 1);
    assert.ok(FakeSocket.opened.at(-2).closed);
    socket().end(1006);
    assert.ok(quotes.retryAt - clock() < 500);
  } finally {
    Math.random = original;
  }
});

scenario("changes_name_the_fields", async () => {
  const quotes = await accepted();
  const changes = heard(quotes, "change");
  socket().say(full("A", 5, { volume: 1 }), change("A", 6));
  assert.deepEqual(changes[0].changed, ["symbol", "current_price", "volume"]);
  assert.deepEqual(changes[1].changed, ["current_price"]);
  assert.equal(changes[1].version, 6);
  assert.equal(changes[1].quote, quotes.quotes.get("A"));
  assert.ok(Object.isFrozen(changes[1].quote));
  assert.equal(changes[0].quote.current_price, 5);
});

scenario("an_iterator_keeps_the_newest_change_of_each_symbol", async () => {
  const quotes = await accepted({ symbols: ["*"] });
  const iterator = quotes[Symbol.asyncIterator]();
  const first = iterator.next();
  socket().say(full("A", 1));
  assert.equal((await first).value.version, 1);
  for (let version = 2; version < 1000; version += 1) socket().say(change("A", version));
  socket().say(full("B", 1));
  const second = await iterator.next();
  assert.equal(second.value.version, 999);
  assert.deepEqual(second.value.changed, ["current_price"]);
  assert.equal((await iterator.next()).value.symbol, "B");
  const last = iterator.next();
  await settle();
  quotes.close();
  assert.equal((await last).done, true);
  const refused = start();
  const failing = refused[Symbol.asyncIterator]().next();
  await settle();
  socket().end(4403, "origin_not_allowed: no");
  await assert.rejects(failing, { code: "origin_not_allowed" });
});

scenario("memory_does_not_grow", async () => {
  const quotes = await accepted({ symbols: ["*"] });
  const symbols = Array.from({ length: 50 }, (_, number) => `S${number}`);
  let version = 0;
  const rounds = async (count) => {
    for (let round = 0; round < count; round += 1) {
      for (const symbol of symbols) socket().say(round ? change(symbol, version + 1) : full(symbol, version + 1));
      version += 1;
      advance(SECOND);
      socket().answer();
      if (round % 100 === 99) {
        socket().end(1006);
        await reconnected();
        await accept();
        FakeSocket.opened.splice(0, FakeSocket.opened.length - 1);
        for (const symbol of symbols) socket().say(full(symbol, version));
        quotes.bars(["S1"]);
        quotes.throttle(250);
        socket().sent.length = 0;
        socket().say({ type: "ack", action: "subscribe", symbols: ["S1"], timeframe: "1m", id: 0 });
      }
    }
    globalThis.gc();
    return process.memoryUsage().heapUsed;
  };
  await rounds(200);
  const before = await rounds(200);
  const after = await rounds(1000);
  assert.ok(after - before < 1e6, `${after - before} bytes more`);
  assert.equal(quotes.missed, 0);
});

const outcomes = {};
for (const [name, play] of scenarios) {
  FakeSocket.opened = [];
  open = [];
  try {
    await play();
    outcomes[name] = null;
  } catch (error) {
    outcomes[name] = error.stack;
  }
  for (const quotes of open) quotes.close();
}
console.log(JSON.stringify(outcomes));
