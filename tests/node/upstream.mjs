// An OpenAI-compatible server in place of a model: it answers at once unless a test has other answers for it, and remembers what
// it was asked.

import { once } from "node:events";
import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";

const CHUNK = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "upstream" };

export const CHAT = {
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: "upstream",
  choices: [{ index: 0, message: { role: "assistant", content: "Light." }, finish_reason: "stop", logprobs: null }],
  usage: { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 },
};
export const COMPLETION = {
  ...CHAT,
  object: "text_completion",
  choices: [{ index: 0, text: " light", finish_reason: "stop", logprobs: null }],
};
export const VECTOR = [0.25, -0.5, 0.0625];

export const chunk = (delta, finish_reason = null) => ({ ...CHUNK, choices: [{ index: 0, delta, finish_reason }] });

export const usage = { ...CHUNK, choices: [], usage: CHAT.usage };

/** What is answered unless a test has something else: a status, a body or events, and headers. */
function answered({ path, request }) {
  if (path.endsWith("/embeddings")) {
    const bytes = Buffer.from(new Float32Array(VECTOR).buffer);
    const embedding = request.encoding_format === "base64" ? bytes.toString("base64") : VECTOR;
    const data = [request.input].flat().map((_, index) => ({ object: "embedding", index, embedding }));
    return { body: { object: "list", model: "upstream", data, usage: { prompt_tokens: 4, total_tokens: 4 } } };
  }
  const isChat = path.endsWith("/chat/completions");
  if (!request?.stream) return { body: isChat ? CHAT : COMPLETION };
  if (!isChat) return { events: [COMPLETION, "[DONE]"] };
  return { events: [chunk({ role: "assistant", content: "Light." }), chunk({}, "stop"), usage, "[DONE]"] };
}

async function answer(response, { status = 200, body, events, headers = {} }) {
  if (!events) {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(body));
    return;
  }
  response.writeHead(status, { "content-type": "text/event-stream", ...headers });
  for await (const event of events) {
    if (response.destroyed) return;
    response.write(`data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`);
  }
  response.end();
}

export async function startUpstream() {
  const upstream = { asked: [], answer: answered };
  upstream.forget = () => Object.assign(upstream, { asked: [], answer: answered });
  const server = createServer(async (request, response) => {
    const body = (await buffer(request)).toString();
    const asked = { path: request.url, body, request: body ? JSON.parse(body) : undefined };
    asked.hungUp = once(response, "close").then(() => !response.writableFinished);
    if (/\/(completions|embeddings)$/.test(asked.path)) upstream.asked.push(asked);
    await answer(response, upstream.answer(asked));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  upstream.url = `http://127.0.0.1:${server.address().port}/v1`;
  upstream.stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return upstream;
}
