// Node's clients with their defaults, 20 at once.
import assert from "node:assert";
import http from "node:http";

const jobs = `${process.argv[2]}/api/v1/jobs`;
const text = JSON.stringify({ payload: "0" });

async function run(name, call) {
  const timed = async () => {
    const began = performance.now();
    await call();
    return performance.now() - began;
  };
  const took = await Promise.all(Array.from({ length: 20 }, timed));
  console.log(`${Math.max(...took).toFixed(0)} ms  ${name}`);
}

async function post(options) {
  const response = await fetch(jobs, { method: "POST", ...options() });
  assert.ok(response.status === 200 && (await response.json()).name, response.status);
}

function stream() {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode(text.slice(0, 5)));
      setTimeout(() => {
        controller.enqueue(new TextEncoder().encode(text.slice(5)));
        controller.close();
      }, 20);
    },
  });
  return { body, duplex: "half" };
}

// Without an end that is told: so it goes in chunks.
function request(agent) {
  return new Promise((resolve, reject) => {
    const request = http.request(jobs, { method: "POST", agent }, (response) => {
      let body = "";
      response.on("data", (piece) => (body += piece));
      response.on("end", () => (response.statusCode === 200 && JSON.parse(body).name ? resolve() : reject(body)));
    });
    request.on("error", reject);
    request.write(text.slice(0, 5));
    request.end(text.slice(5));
  });
}

await (await fetch(jobs)).text();
await run("fetch, POST", () => post(() => ({ body: text })));
await run("fetch, POST of a stream", () => post(stream));
await run("fetch, GET", async () => assert.ok((await fetch(jobs)).ok));
await run("node:http, POST", () => request());
await run("node:http, POST on kept connections", () => request(new http.Agent({ keepAlive: true })));
process.exit();
