// The console in a browser, against a scheduler in local mode: what a person does on it, and what it must never do.
//
// node console.mjs SCHEDULER SCREENSHOTS: the folder of playwright-core is in NODE_PATH, the browser in CHROMIUM.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_PATH, "x.js"));
const { chromium } = require("playwright-core");
const [scheduler, screenshots] = process.argv.slice(2);
const PATIENCE = 30_000;

/** Ports that were free a moment ago. */
async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = [];
  for (const server of servers) {
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    ports.push(server.address().port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

const config = (ports) => `metadata: {name: shop}
spec:
  environments: [{name: dev}]
  jobs:
    - name: compute
      schedulerPort: ${ports[0]}
      payload: {path: /compute/args}
      ports: [{name: http, port: ${ports[2]}}]
      command: [sh, -c]
      args: ['echo "got: $(cat "$JOB_PAYLOAD_FILE")"; echo done']
      variables: {LOG_LEVEL: info, REGION: north}
      secrets: [DB_PASSWORD]
      resources: {requests: {cpu: 100m, memory: 32Mi}}
      runAsUser: 1000
      node: {gpu: nvidia-v100, gpuCount: 2}
      runtime: {architecture: amd64}
      volumeMounts: [{name: scratch, path: /scratch, emptyDir: {sizeLimit: 1Gi}}]
      failurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42, 43]}}]}
    - name: train
      schedulerPort: ${ports[1]}
      command: [sh, -c, 'true']
`;

const PLANTED = "planted-secret-value";
const scratch = await mkdtemp(join(tmpdir(), "job-scheduler-console-"));
const ports = await freePorts(3);
const base = `http://localhost:${ports[0]}`;
await mkdir(screenshots, { recursive: true });
await writeFile(join(scratch, "radixconfig.yaml"), config(ports));
const server = spawn(
  scheduler,
  ["local", join(scratch, "radixconfig.yaml"), "--data-dir", join(scratch, "data"), "--cpus", "1"],
  { stdio: ["ignore", "ignore", "inherit"], env: { ...process.env, DB_PASSWORD: PLANTED } },
);
const ended = new Promise((resolve) => server.on("exit", resolve));
let browser;

async function until(what, look) {
  const deadline = Date.now() + PATIENCE;
  let last;
  while (Date.now() < deadline) {
    try {
      last = await look();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not within ${PATIENCE} ms: ${what}: ${last}`);
}

async function api(method, path, body) {
  const response = await fetch(base + path, { method, body: body && JSON.stringify(body) });
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${response.ok ? "" : await response.clone().text()}`);
  return response.json();
}
const submit = async (body) => (await api("POST", "/api/v1/jobs", body)).name;

const violations = [];
const outside = [];
const errors = [];

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.exposeFunction("reportViolation", (text) => violations.push(text));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
  });
  context.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(base + "/") && !url.startsWith("data:")) outside.push(url);
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // What the scheduler refuses, the browser also notes by itself.
    const refusal = message.text().includes("status of 422");
    if (message.type() === "error" && !refusal) errors.push(message.text());
  });
  page.on("dialog", (dialog) => {
    errors.push(`a script of a job's ran: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(base + "/");
  await page.getByText("live", { exact: true }).waitFor();
  return page;
}

const row = (page, name) => page.locator("tbody tr").filter({ has: page.getByRole("button", { name, exact: true }) });
const detail = (page) => page.locator("#detail");
const log = (page) => page.locator("#log");

/** Has the page believe that it is in a tab behind another. */
const hide = (page, hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}, hidden);

async function shot(page, name) {
  await page.waitForTimeout(200);
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
}

/** Opens the form, fills fields by their ids, starts, and gives the job's name. */
async function start(page, fields) {
  await page.getByRole("button", { name: "Start a job" }).click();
  await page.locator("#more").evaluate((more) => (more.open = true));
  for (const [id, value] of Object.entries(fields)) await page.locator("#" + id).fill(value);
  await page.locator("#submit").click();
  await page.locator("#starter").waitFor({ state: "hidden" });
  await detail(page).waitFor();
  return page.locator("#job-name").textContent();
}

const tests = {
  async "an empty console says so"() {
    const page = await open();
    await page.getByText("No jobs yet").waitFor();
    await shot(page, "empty-light");
    await page.context().close();
  },

  async "a job is started with a payload, succeeds, and its log is there"() {
    const name = await start(page, { payload: '{"x": 10}', jobId: "night 97" });
    await detail(page).getByText("Succeeded").first().waitFor();
    await until("the log", async () => (await log(page).textContent()).includes('got: {"x": 10}\ndone\n'));
    await page.getByText("end of the log").waitFor();
    await row(page, name).getByText("night 97").waitFor();
    assert.equal(await row(page, name).locator("td").nth(4).textContent(), "0");
  },

  async "a payload comes from a file, and one that is too large is refused before it is sent"() {
    await page.getByRole("button", { name: "Start a job" }).click();
    const file = (size) => ({ name: "big.txt", mimeType: "text/plain", buffer: Buffer.alloc(size, "x") });
    await page.locator("#file").setInputFiles(file(1048577));
    await page.getByText("big.txt has 1048577 bytes").waitFor();
    await page.locator("#file").setInputFiles({ name: "a.bin", mimeType: "", buffer: Buffer.from([0xff, 0xfe, 0x80]) });
    await page.getByText("a.bin is not text in UTF-8").waitFor();
    await page.locator("#file").setInputFiles(file(1048576));
    await page.getByText("1048576 bytes", { exact: true }).waitFor();
    await page.locator("#args").evaluate((field) => (field.closest("details").open = true));
    await page.locator("#args").fill('wc -c < "$JOB_PAYLOAD_FILE"');
    await page.locator("#submit").click();
    await until("the size in the log", async () => (await log(page).textContent()).trim() === "1048576");
  },

  async "a failure's reason is seen at a glance"() {
    const name = await start(page, { args: "echo the table is missing >&2; exit 3", variables: "A=1\nB=x=y" });
    await row(page, name).getByText("exit code 3").waitFor();
    await detail(page).locator("#job-message", { hasText: "exit code 3" }).waitFor();
    await until("the log", async () => (await log(page).textContent()).includes("the table is missing"));
    assert.equal(await row(page, name).locator("td").nth(4).textContent(), "3");
    await page.getByRole("button", { name: /^Failed 1$/ }).click();
    assert.equal(await page.locator("tbody tr").count(), 1);
    await page.getByRole("button", { name: /^All / }).click();
    await shot(page, "failure-light");
  },

  async "what the scheduler refuses is said in the form"() {
    await page.getByRole("button", { name: "Start a job" }).click();
    await page.locator("#more").evaluate((more) => (more.open = true));
    await page.locator("#requests-cpu").fill("plenty");
    await page.locator("#submit").click();
    await page.locator("#form-error", { hasText: "resources.requests.cpu" }).waitFor();
    await shot(page, "form-refused");
    await page.locator("#requests-cpu").fill("");
    await page.locator("#cancel").click();
  },

  async "a log is followed, and its job stopped, restarted and stopped again"() {
    const go = join(scratch, "go");
    const name = await start(page, { args: `echo one; while ! test -e ${go}; do sleep 0.1; done; echo two; exec sleep 1000` });
    await until("the first line", async () => (await log(page).textContent()) === "one\n");
    await page.getByText("following").waitFor();
    await writeFile(go, "");
    await until("the second line", async () => (await log(page).textContent()) === "one\ntwo\n");
    const link = detail(page).getByRole("link", { name: `http://127.0.0.1:${ports[2]}`, exact: true });
    assert.equal(await link.getAttribute("href"), `http://127.0.0.1:${ports[2]}`);
    assert.ok(await page.locator("#restart").isDisabled());
    await page.locator("#stop").click();
    await row(page, name).getByText("Stopped", { exact: true }).waitFor();
    await page.getByText("end of the log").waitFor();
    assert.equal(await link.count(), 0);
    await page.locator("#restart").click();
    await row(page, name).getByText("Running", { exact: true }).waitFor();
    await page.locator("#stop").click();
    await row(page, name).getByText("Stopped", { exact: true }).waitFor();
  },

  async "a log is left alone while nobody looks, and its colours are left out"() {
    const name = await start(page, { args: "printf '\\033[1;31mred\\033[0m\\r\\n'; exec sleep 1000" });
    await until("the log", async () => (await log(page).textContent()) === "red\n");
    const broken = page.waitForEvent("requestfailed", (request) => request.url().includes("/logs"));
    await hide(page, true);
    await broken;
    const again = page.waitForRequest((request) => request.url().includes("/logs"));
    await hide(page, false);
    await again;
    await until("the log again", async () => (await log(page).textContent()) === "red\n");
    await api("DELETE", `/api/v1/jobs/${name}`);
    await row(page, name).waitFor({ state: "detached" });
    await page.locator("#close").click();
  },

  async "a job's end is waited for, and told of in the title while one looks elsewhere"() {
    const go = join(scratch, "end");
    const name = await start(page, { jobId: "waited for", args: `while ! test -e ${go}; do sleep 0.1; done; exit 4` });
    await page.getByRole("button", { name: "Wait for its end" }).click();
    await page.getByRole("button", { name: "Waiting…" }).waitFor();
    await hide(page, true);
    await writeFile(go, "");
    await page.locator("#toast", { hasText: "waited for: Failed, exit code 4" }).waitFor();
    assert.equal(await page.title(), "waited for: Failed, exit code 4");
    await hide(page, false);
    assert.equal(await page.title(), "compute · job-scheduler");
    assert.ok(await page.locator("#wait").isHidden());
    await api("DELETE", `/api/v1/jobs/${name}`);
    await page.locator("#close").click();
  },

  async "every setting of a request can be given"() {
    const [request] = await Promise.all([
      page.waitForRequest((request) => request.method() === "POST"),
      start(page, {
        priority: "5", timeLimitSeconds: "60", backoffLimit: "0", runAsUser: "1000", image: "a:b", imageTagName: "c",
        args: "true", "requests-cpu": "10m", "limits-memory": "64Mi", other: '{"safeToRestart": true}',
      }),
    ]);
    assert.deepEqual(request.postDataJSON(), {
      priority: 5, timeLimitSeconds: 60, backoffLimit: 0, runAsUser: 1000, image: "a:b", imageTagName: "c", args: ["true"],
      resources: { requests: { cpu: "10m" }, limits: { memory: "64Mi" } }, safeToRestart: true,
    });
    assert.match(request.headers()["idempotency-key"], /^[0-9a-f]{32}$/);
    await page.locator("#close").click();
  },

  async "a job is deleted only once that is confirmed"() {
    const name = await submit({ args: ["true"] });
    await row(page, name).click();
    await page.locator("#delete").click();
    await page.getByText(`Delete ${name} with its log?`).waitFor();
    await page.getByRole("button", { name: "Keep it" }).click();
    await api("GET", `/api/v1/jobs/${name}`);
    await page.locator("#delete").click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await row(page, name).waitFor({ state: "detached" });
    const gone = await fetch(`${base}/api/v1/jobs/${name}`);
    assert.equal(gone.status, 404);
  },

  async "the queue is shown, with what each job waits for"() {
    const all = { resources: { requests: { cpu: "1" } } };
    const running = await submit({ args: ["exec sleep 1000"], ...all });
    const waiting = [await submit(all), await submit(all)];
    await page.getByText("2 in the queue, 1 running").waitFor();
    await row(page, waiting[1]).getByText("Waiting", { exact: true }).waitFor();
    await row(page, waiting[1]).locator(".why", { hasText: "2" }).waitFor();
    await page.getByRole("button", { name: /^Queue 2$/ }).click();
    assert.deepEqual(await page.locator("tbody .name").allTextContents(), waiting);
    await shot(page, "queue-light");
    await page.getByRole("button", { name: /^All / }).click();
    for (const name of [...waiting, running]) await api("DELETE", `/api/v1/jobs/${name}`);
  },

  async "what a job says is never markup"() {
    const evil = "<script>alert(1)</script><img src=x onerror=alert(2)>";
    const name = await submit({ command: [evil], args: [], jobId: evil });
    await row(page, name).getByText("Failed", { exact: true }).waitFor();
    await row(page, name).click();
    await detail(page).getByText(evil).first().waitFor();
    const shouts = await submit({ args: [`echo '${evil}'; exit 1`] });
    await row(page, shouts).click();
    await until("the log", async () => (await log(page).textContent()).includes(evil));
    assert.equal(await page.locator("script").count(), 1);
    assert.equal(await page.locator("img").count(), 0);
  },

  async "a job is started by keyboard alone"() {
    const page = await open();
    const reach = async (id) => {
      for (let presses = 0; presses < 40; presses += 1) {
        if ((await page.evaluate(() => document.activeElement.id)) === id) return;
        await page.keyboard.press("Tab");
      }
      throw new Error(`no way to #${id} by Tab`);
    };
    await reach("new");
    await page.keyboard.press("Enter");
    await page.keyboard.type("by keyboard");
    await reach("submit");
    await page.keyboard.press("Enter");
    await until("the log", async () => (await log(page).textContent()).includes("got: by keyboard"));
    const name = await page.locator("#job-name").textContent();
    await page.keyboard.press("Escape");
    await detail(page).waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement.textContent), name);
    await page.context().close();
  },

  async "the configuration is shown, without the value of a secret"() {
    await page.getByText("What this component is configured to").click();
    const shown = await page.locator("#configuration").textContent();
    for (const text of [
      "LOG_LEVEL=info", "DB_PASSWORD", "cpu=100m", "/compute/args/payload", "Run as user1000", "gpu=nvidia-v100\ngpuCount=2",
      "architecture=amd64", "/scratch (1Gi at most)", "exit code 42, 43: fails at once",
    ]) {
      assert.ok(shown.includes(text), `${text} in ${shown}`);
    }
    await page.locator("#configured").scrollIntoViewIfNeeded();
    await shot(page, "configuration");
    assert.ok(!JSON.stringify(await api("GET", "/api/v1/component")).includes(PLANTED));
    assert.equal(await page.getByRole("link", { name: "train" }).getAttribute("href"), `http://127.0.0.1:${ports[1]}/`);
    await page.getByText("Expose it only where the API itself may be reached").waitFor();
  },

  async "it fits a phone and the dark"() {
    for (const [name, options] of [
      ["dark", { colorScheme: "dark" }],
      ["light", { colorScheme: "light" }],
      ["phone", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }],
      ["phone-dark", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: "dark" }],
    ]) {
      const page = await open(options);
      await page.locator("tbody tr").first().waitFor();
      await shot(page, `list-${name}`);
      await page.locator("tr.Failed").last().click();
      await until("the log", async () => (await page.locator("#log-state").textContent()) === "end of the log");
      await shot(page, `job-${name}`);
      const [needed, given] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(needed <= given, `${name}: ${needed} > ${given}`);
      await page.evaluate(() => scrollTo(0, 0));
      await page.getByRole("button", { name: "Start a job" }).click();
      await shot(page, `form-${name}`);
      await page.context().close();
    }
  },

  async "its headers let it do nothing else, and be framed nowhere"() {
    const response = await fetch(base + "/");
    const header = (name) => response.headers.get(name);
    assert.match(header("content-security-policy"), /default-src 'none'.*frame-ancestors 'none'/);
    assert.ok(!header("content-security-policy").includes("unsafe"));
    assert.equal(header("x-content-type-options"), "nosniff");
    assert.equal(header("referrer-policy"), "no-referrer");
    const bytes = (await response.arrayBuffer()).byteLength;
    assert.ok(bytes <= 60_000, `${bytes} bytes`);
    console.log(`   the page has ${bytes} bytes`);
  },

  async "no policy was violated, nothing outside asked for, and no error made"() {
    assert.deepEqual([violations, outside, errors], [[], [], []]);
  },

  async "a scheduler that is gone is said to be"() {
    server.kill("SIGTERM");
    await page.getByText("the scheduler does not answer").waitFor();
  },
};

let page;
let failed = 0;
try {
  await until("the scheduler answers", async () => (await fetch(base + "/health/ready")).ok);
  const asRoot = process.getuid() === 0 ? ["--no-sandbox"] : [];
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: [
      ...asRoot, "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
  page = await open();
  for (const [name, test] of Object.entries(tests)) {
    const began = Date.now();
    try {
      await test();
      console.log(`ok: ${name} (${Date.now() - began} ms)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED: ${name}\n${error.stack}`);
      await shot(page, `failed-${failed}`).catch(() => {});
      await page.context().close();
      page = await open().catch(() => null);
      if (!page) break;
    }
  }
} finally {
  await browser?.close();
  server.kill("SIGTERM");
  await ended;
  await rm(scratch, { recursive: true, force: true });
}
process.exitCode = failed ? 1 : 0;
