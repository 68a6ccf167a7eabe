/**
 * How the pages' requests wait when the server asks for time, with a clock and a server of the test's own.
 * It prints the error of each scenario by its name, null if it went well.
 */

import assert from "node:assert/strict";
import { advance } from "./clock.mjs";
import { Refusal, ask, fetchConfig } from "../../server/web/page/api.js";

const SECOND = 1000;
const HOUR = 3600 * SECOND;

const scenarios = new Map();

/** The requests that left the page, as path and token, and the answer to the next ones. */
const sent = [];
let answer;

function scenario(name, play) {
  scenarios.set(name, play);
}

globalThis.fetch = async (url, { headers }) => {
  sent.push([url, headers.Authorization?.replace("Bearer ", "") ?? null]);
  const [status, body, more] = answer;
  return new Response(body, { status, headers: more });
};

function answerWith(status, body, seconds) {
  answer = [status, JSON.stringify(body), seconds === undefined ? {} : { "Retry-After": String(seconds) }];
}

function refuse(status, seconds) {
  answerWith(status, { error: { code: "rate_limited", message: "Too many requests." } }, seconds);
}

/** Ask, and return the refusal. */
async function refused(path, token) {
  return ask(path, {}, token).then(() => assert.fail("the request was answered"), (error) => error);
}

scenario("a_wait_concerns_its_token_only", async () => {
  refuse(429, 5);
  assert.equal((await refused("bars", "spent")).status, 429);
  answerWith(200, []);
  await assert.rejects(ask("trades", {}, "spent"), { message: "Too many requests." });
  await ask("bars", {}, "other");
  await ask("trades", {}, "other");
  assert.deepEqual(sent, [["bars", "spent"], ["bars", "other"], ["trades", "other"]]);
  advance(6 * SECOND);
  await ask("trades", {}, "spent");
  assert.equal(sent.length, 4);
});

scenario("a_busy_path_holds_up_its_own_token_only", async () => {
  refuse(503, 5);
  await refused("bars", "one");
  answerWith(200, []);
  await ask("bars", {}, "other");
  await ask("trades", {}, "one");
  assert.deepEqual(sent, [["bars", "one"], ["bars", "other"], ["trades", "one"]]);
});

scenario("a_wait_without_a_token_concerns_the_address", async () => {
  refuse(429, 5);
  await assert.rejects(fetchConfig());
  answerWith(200, {});
  await assert.rejects(ask("bars", {}, "token"), Refusal);
  assert.deepEqual(sent, [["web/config.json", null]]);
});

for (const body of [{ error: null }, null, 5, "busy", [], {}, { error: {} }, { error: "busy" }]) {
  scenario(`a_refusal_may_have_the_body_${JSON.stringify(body)}`, async () => {
    answerWith(503, body, 5);
    const error = await refused("bars", "token");
    assert.ok(error instanceof Refusal, String(error));
    assert.deepEqual([error.status, error.code, error.message], [503, "", "Status 503."]);
    assert.ok(error.retryAfter > 4 * SECOND && error.retryAfter < 6 * SECOND, `${error.retryAfter} ms`);
    assert.equal(sent.length, 1);
    advance(6 * SECOND);
    answerWith(200, []);
    await ask("bars", {}, "token");
  });
}

const outcomes = {};
for (const [name, play] of scenarios) {
  sent.length = 0;
  try {
    await play();
    outcomes[name] = null;
  } catch (error) {
    outcomes[name] = error.stack;
  }
  // No wait is left for the next scenario.
  advance(HOUR);
}
console.log(JSON.stringify(outcomes));
