// OpenAI's client for Node, unmodified, in front of the real model and of a deployment over HTTP.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import OpenAI from "openai";

import { startServer } from "./server.mjs";
import { CHAT as ANSWER, VECTOR, chunk, startUpstream, usage } from "./upstream.mjs";

const messages = [{ role: "user", content: "Why is the sky blue?" }];
const REAL = { model: "smollm2-135m", messages, max_tokens: 24, temperature: 0 };
const CHAT = { model: "deployed", messages, max_tokens: 8 };

let server;
let upstream;

before(async () => {
  upstream = await startUpstream();
  server = await startServer(upstream.url);
});

after(async () => {
  await server?.stop();
  upstream?.stop();
});

beforeEach(() => upstream.forget());

/** A client, which notes the status of each answer in `statuses`. */
function client({ key = "free", maxRetries = 0, version = "v1", statuses = [], ...more } = {}) {
  const noting = async (...request) => {
    const response = await fetch(...request);
    statuses.push(response.status);
    return response;
  };
  const baseURL = `${server.address}/${version}`;
  return new OpenAI({ baseURL, apiKey: key, maxRetries, timeout: 60_000, fetch: noting, ...more });
}

const direct = () => new OpenAI({ baseURL: upstream.url, apiKey: "free", maxRetries: 0 });

async function collect(stream) {
  const all = [];
  for await (const event of stream) all.push(event);
  return all;
}

/** Of two equal requests the deployment got the same text, directly and through the server, but for the model's name. */
function checkArrivedAsSent() {
  const [sent, arrived] = upstream.asked;
  assert.equal(arrived.path, sent.path);
  assert.equal(arrived.body, sent.body.replace('"model":"deployed"', '"model":"upstream"'));
}

const underThePublicName = (answer) => ({ ...answer, model: "deployed" });

async function raised(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

describe("the real model", () => {
  test("answers a chat, whole and as a stream with usage", async () => {
    const whole = await client().chat.completions.create(REAL);
    assert.equal(whole.object, "chat.completion");
    assert.ok(["stop", "length"].includes(whole.choices[0].finish_reason));
    const { prompt_tokens, completion_tokens, total_tokens } = whole.usage;
    assert.ok(prompt_tokens > 0 && completion_tokens > 0 && completion_tokens <= REAL.max_tokens);
    assert.equal(total_tokens, prompt_tokens + completion_tokens);

    const streamed = { ...REAL, stream: true, stream_options: { include_usage: true } };
    const events = await collect(await client().chat.completions.create(streamed));
    const last = events.pop();
    assert.deepEqual([last.choices, last.usage], [[], whole.usage]);
    const text = events.map((event) => event.choices[0].delta.content ?? "").join("");
    assert.equal(text, whole.choices[0].message.content);
    assert.ok(events.every((event) => !event.usage));
  });

  test("answers a completion, and is put together by the client's helper", async () => {
    const asked = { model: "smollm2-135m", prompt: "The sky is", max_tokens: 12, temperature: 0 };
    const whole = await client().completions.create(asked);
    const events = await collect(await client().completions.create({ ...asked, stream: true }));
    assert.equal(events.map((event) => event.choices[0].text).join(""), whole.choices[0].text);
    const runner = client().chat.completions.stream(REAL);
    assert.ok(await runner.finalContent());
  });

  test("is listed and found", async () => {
    const names = (await collect(client().models.list())).map((model) => model.id);
    assert.deepEqual(names.sort(), ["cooling", "deployed", "org/model", "smollm2-135m"]);
    for (const name of names) assert.equal((await client().models.retrieve(name)).id, name);
    const error = await raised(OpenAI.NotFoundError, () => client().models.retrieve("no/such"));
    assert.equal(error.code, "model_not_found");
  });
});

describe("a deployment", () => {
  const image = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } };
  const called = { id: "call-1", type: "function", function: { name: "weather", arguments: '{"town":"Kraków"}' } };
  // All that is not of our business, and some that is.
  const everything = {
    model: "deployed",
    messages: [
      { role: "developer", content: "Be brief." },
      { role: "user", content: [{ type: "text", text: "What is this? ☂" }, image] },
      { role: "assistant", content: null, tool_calls: [called] },
      { role: "tool", tool_call_id: "call-1", content: "rain" },
    ],
    max_completion_tokens: 32,
    temperature: 0.25,
    n: 2,
    seed: 7,
    logprobs: true,
    top_logprobs: 5,
    tools: [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }],
    tool_choice: "auto",
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } },
    metadata: { run: "1" },
    nobody_knows: { this: [1, 2.5, null, true, "ä"], small: 1e-7 },
  };

  test("gets a chat as it was asked, and its answer comes back as it was given", async () => {
    const choice = { index: 0, finish_reason: "tool_calls", message: { role: "assistant", content: null, tool_calls: [called] } };
    upstream.answer = () => ({ body: { ...ANSWER, choices: [choice], extra: { é: [1.5] } } });
    const expected = await direct().chat.completions.create(everything);
    const received = await client().chat.completions.create(everything);
    checkArrivedAsSent();
    assert.deepEqual(received, underThePublicName(expected));
  });

  test("streams tool calls and usage as they are", async () => {
    const part = (more) => chunk({ tool_calls: [{ index: 0, ...more }] });
    const events = [
      chunk({ role: "assistant", content: "" }),
      part({ id: "call-1", type: "function", function: { name: "weather", arguments: "" } }),
      part({ function: { arguments: '{"town":"Kraków"}' } }),
      chunk({}, "tool_calls"),
      usage,
      "[DONE]",
    ];
    upstream.answer = () => ({ events });
    const asked = { ...everything, stream: true, stream_options: { include_usage: true } };
    const expected = await collect(await direct().chat.completions.create(asked));
    const received = await collect(await client().chat.completions.create(asked));
    checkArrivedAsSent();
    assert.deepEqual(received, expected.map(underThePublicName));
    const { stream, ...whole } = asked;
    const message = await client().chat.completions.stream(whole).finalMessage();
    assert.equal(message.tool_calls[0].function.arguments, called.function.arguments);
  });

  for (const form of [{}, { encoding_format: "float" }, { encoding_format: "base64" }]) {
    test(`makes embeddings (${form.encoding_format ?? "as the client asks by default"})`, async () => {
      const asked = { model: "deployed", input: ["The sky", "is blue"], dimensions: 3, ...form };
      const expected = await direct().embeddings.create(asked);
      const received = await client().embeddings.create(asked);
      checkArrivedAsSent();
      assert.deepEqual(received, underThePublicName(expected));
      if (form.encoding_format !== "base64") assert.deepEqual(Array.from(received.data[1].embedding), VECTOR);
    });
  }

  test("gives headers that can be seen", async () => {
    const { data, response, request_id } = await client().chat.completions.create(CHAT).withResponse();
    assert.equal(data.choices[0].message.content, "Light.");
    assert.equal(response.headers.get("x-request-id"), request_id);
    assert.equal(data._request_id, request_id);
  });

  /** A stream that goes on until the reader has gone. */
  async function* endless() {
    for (let number = 0; ; number += 1) {
      yield chunk({ content: `${number} ` });
      await sleep(10);
    }
  }

  test("is told of a stream that is aborted, or left, in its midst", async () => {
    upstream.answer = () => ({ events: endless() });
    const aborted = await client().chat.completions.create({ ...CHAT, stream: true });
    for await (const event of aborted) {
      assert.equal(event.choices[0].delta.content, "0 ");
      aborted.controller.abort();
    }
    const left = await client().chat.completions.create({ ...CHAT, stream: true });
    for await (const _ of left) break;
    assert.equal(upstream.asked.length, 2);
    for (const asked of upstream.asked) assert.equal(await asked.hungUp, true);
  });

  test("is told of a call that is given up by its signal or its time", async () => {
    upstream.answer = () => ({ events: (async function* () { await sleep(500); yield* endless(); })() });
    const signal = AbortSignal.timeout(100);
    await raised(OpenAI.APIUserAbortError, () => client().chat.completions.create(CHAT, { signal }));
    await raised(OpenAI.APIConnectionTimeoutError, () => client().chat.completions.create(CHAT, { timeout: 100 }));
    assert.equal(upstream.asked.length, 2);
    for (const asked of upstream.asked) assert.equal(await asked.hungUp, true);
  });
});

describe("what goes wrong", () => {
  for (const [key, asked, kind, code] of [
    ["free", { temperature: 3 }, OpenAI.BadRequestError, "invalid_request"],
    ["free", { model: "no-such-model" }, OpenAI.NotFoundError, "model_not_found"],
    ["nobody", {}, OpenAI.AuthenticationError, "invalid_api_key"],
  ]) {
    test(`${kind.name} is not retried`, async () => {
      const statuses = [];
      const it = client({ key, maxRetries: 2, statuses });
      const error = await raised(kind, () => it.chat.completions.create({ ...CHAT, ...asked }));
      assert.equal(error.code, code);
      assert.ok(error.requestID);
      assert.equal(statuses.length, 1);
    });
  }

  test("what can't be processed is told apart", async () => {
    const statuses = [];
    const it = client({ maxRetries: 2, statuses });
    const headers = { "Idempotency-Key": "judge-1" };
    const first = await it.chat.completions.create(CHAT, { headers });
    assert.deepEqual(await it.chat.completions.create(CHAT, { headers }), first);
    const other = () => it.chat.completions.create({ ...CHAT, seed: 1 }, { headers });
    const error = await raised(OpenAI.UnprocessableEntityError, other);
    assert.equal(error.code, "idempotency_key_reused");
    const v2 = client({ version: "v2" });
    const invalid = await raised(OpenAI.UnprocessableEntityError, () =>
      v2.chat.completions.create({ ...CHAT, temperature: 3 }),
    );
    assert.equal(invalid.param, "temperature");
    assert.deepEqual(statuses, [200, 200, 422]);
    assert.equal(upstream.asked.length, 1);
  });

  test("a refusal is retried when it says", async () => {
    const statuses = [];
    const it = client({ key: "limited", maxRetries: 2, statuses });
    const begun = Date.now();
    for (let seed = 0; seed < 3; seed += 1) await it.chat.completions.create({ ...CHAT, seed });
    assert.deepEqual(statuses, [200, 429, 200, 429, 200]);
    assert.ok(Date.now() - begun > 1900 && Date.now() - begun < 6000);
  });

  test("a spent budget is not retried", async () => {
    const statuses = [];
    const it = client({ key: "spent", maxRetries: 2, statuses });
    await it.chat.completions.create(CHAT);
    const error = await raised(OpenAI.RateLimitError, () => it.chat.completions.create(CHAT));
    assert.deepEqual([error.code, error.type], ["insufficient_quota", "insufficient_quota"]);
    assert.deepEqual(statuses, [200, 429]);
  });

  test("a failure of the deployment is retried", async () => {
    const statuses = [];
    upstream.answer = () => ({ status: 500, body: { error: { message: "out of memory" } } });
    const it = client({ maxRetries: 1, statuses });
    const error = await raised(OpenAI.InternalServerError, () => it.chat.completions.create(CHAT));
    assert.equal(error.code, "upstream_failed");
    assert.deepEqual(statuses, [502, 502]);
  });

  test("a limit of the deployment is passed on with its hint", async () => {
    upstream.answer = () => ({ status: 429, headers: { "retry-after": "7" }, body: { error: { message: "slow down" } } });
    const limited = { ...CHAT, model: "cooling" };
    const error = await raised(OpenAI.RateLimitError, () => client().chat.completions.create(limited));
    assert.equal(error.code, "upstream_limited");
    const seconds = Number(error.headers.get("retry-after"));
    assert.ok(seconds > 0 && seconds <= 7);
  });

  test("an error in mid-stream is raised", async () => {
    upstream.answer = () => ({ events: [chunk({ content: "a" }), { error: { message: "out of memory" } }] });
    const stream = await client().chat.completions.create({ ...CHAT, stream: true });
    const error = await raised(OpenAI.APIError, () => collect(stream));
    assert.match(error.message, /out of memory/);
  });
});
