// One line of JSON in, one line out: a call of an official SDK, and everything that a program gets to see of it.
//
// Asked: {sdk, api, stream, helper, url, headers, body, reply, tells}. With `reply` ({status, headers, chunks}: base64) no
// network is used: the SDK reads these bytes as the response. `tells`: an expression over `last`, `final` and `error`.
// Told: {events, final, error, told}.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "package.json"));
const { OpenAI } = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

function client(asked) {
  const options = { apiKey: "sk-the-callers", baseURL: asked.url, logger: quiet, defaultHeaders: asked.headers ?? {} };
  if (asked.reply || asked.tells) options.maxRetries = 0;
  if (asked.reply) {
    options.fetch = async () => replied(asked.reply);
  }
  return asked.sdk === "openai" ? new OpenAI(options) : new Anthropic(options);
}

function replied({ status, headers, chunks }) {
  const body = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new Uint8Array(Buffer.from(chunk, "base64")));
      controller.close();
    },
  });
  return new Response(body, { status, headers });
}

const APIS = {
  chat: (sdk) => sdk.chat.completions,
  completions: (sdk) => sdk.completions,
  responses: (sdk) => sdk.responses,
  messages: (sdk) => sdk.messages,
};
const FINAL = { chat: "finalChatCompletion", responses: "finalResponse", messages: "finalMessage" };

async function call(asked) {
  const api = APIS[asked.api](client(asked));
  const told = { events: [], final: null, error: null, told: null };
  let raised = null;
  try {
    if (asked.helper) {
      const stream = api.stream(asked.body);
      for await (const event of stream) told.events.push(event);
      told.final = await stream[FINAL[asked.api]]();
    } else if (asked.stream) {
      for await (const event of await api.create({ ...asked.body, stream: true })) told.events.push(event);
    } else {
      told.final = await api.create(asked.body);
    }
  } catch (error) {
    raised = error;
    told.error = seen(error);
  }
  if (asked.tells) {
    const tell = new Function("last", "final", "error", `return ${asked.tells}`);
    try {
      told.told = String(tell(told.events.at(-1), told.final, raised));
    } catch (error) {
      told.told = `${error.name}: ${error.message} ${raised}`;
    }
  }
  return told;
}

function seen(error) {
  const headers = error.headers ? Object.fromEntries(new Headers(error.headers)) : {};
  return {
    name: error.constructor.name,
    message: String(error.message),
    status: error.status ?? null,
    code: error.code ?? null,
    body: error.error ?? null,
    headers,
    cause: error.cause ? String(error.cause.message) : "",
  };
}

// Anthropic's helper parses the input of a tool call where it is first looked at: what cannot be parsed fails here.
function written(told) {
  try {
    return JSON.stringify(told);
  } catch (error) {
    return JSON.stringify({ events: [], final: null, error: seen(error), told: null });
  }
}

process.on("unhandledRejection", () => {}); // a helper's second promise: the first one has told its error
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(written(await call(JSON.parse(line))) + "\n");
}
