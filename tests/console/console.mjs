// The console in a browser, against a scheduler in local mode: what a person does on it, and what it must never do.
//
// node console.mjs SCHEDULER SCREENSHOTS [PATTERN]: the folder of playwright-core is in NODE_PATH, the browser in CHROMIUM.
// With a pattern, only tests whose names match it are run.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_PATH, "x.js"));
const { chromium } = require("playwright-core");
const [scheduler, screenshots, pattern] = process.argv.slice(2);
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
let server;
let ended;
function startScheduler() {
  server = spawn(
    scheduler,
    ["local", join(scratch, "radixconfig.yaml"), "--data-dir", join(scratch, "data"), "--cpus", "1"],
    { stdio: ["ignore", "ignore", "inherit"], env: { ...process.env, DB_PASSWORD: PLANTED } },
  );
  ended = new Promise((resolve) => server.on("exit", resolve));
}
startScheduler();
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
/** All of the machine: the next such job waits. */
const WHOLE = { resources: { requests: { cpu: "1" } } };
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
    // What the scheduler refuses, the browser also notes by itself, as it does a log that is gone.
    const isLog = message.location().url.includes("/logs");
    const refusal = message.text().includes("status of 422") || (isLog && message.text().includes("status of 404"));
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

const row = (page, name) => page.locator("tr.job").filter({ has: page.getByRole("button", { name, exact: true }) });
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
    assert.equal(await row(page, name).locator("td").nth(5).textContent(), "0");
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
    assert.equal(await row(page, name).locator("td").nth(5).textContent(), "3");
    await page.getByRole("button", { name: /^Failed 1$/ }).click();
    assert.equal(await page.locator("tr.job").count(), 1);
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
    await page.locator("#news", { hasText: "waited for: Failed, exit code 4" }).waitFor();
    assert.equal(await page.title(), "waited for: Failed, exit code 4");
    await hide(page, false);
    assert.equal(await page.title(), "compute · job-scheduler");
    assert.ok(await page.locator("#wait").isDisabled());
    await page.getByRole("button", { name: "Close this message" }).last().click();
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
    const running = await submit({ args: ["exec sleep 1000"], ...WHOLE });
    const waiting = [await submit(WHOLE), await submit(WHOLE)];
    await page.getByText("2 in the queue, 1 running").waitFor();
    await row(page, waiting[1]).getByText("Waiting", { exact: true }).waitFor();
    await row(page, waiting[1]).locator(".why", { hasText: "2" }).waitFor();
    await page.getByRole("button", { name: /^Queue 2$/ }).click();
    assert.deepEqual(await page.locator("tbody .name").allTextContents(), waiting);
    await shot(page, "queue-light");
    await page.getByRole("button", { name: /^All / }).click();
    for (const name of [...waiting, running]) await api("DELETE", `/api/v1/jobs/${name}`);
  },

  async "a batch is one job per line, and unfolds to its jobs"() {
    const page = await open();
    await page.getByRole("button", { name: "Start a batch" }).click();
    await page.locator("#batch-submit").click();
    await page.locator("#batch-form-error", { hasText: "at least one line" }).waitFor();
    await page.locator("#batch-lines").fill("one\n\ntwo\nthree\n");
    await page.locator("#batchId").fill("night");
    const go = join(scratch, "batch-go");
    const args = [`grep -q two $JOB_PAYLOAD_FILE && exit 3; while ! test -e ${go}; do sleep 0.1; done`];
    await page.locator("#batch-all").fill("{");
    await page.locator("#batch-submit").click();
    await page.locator("#batch-form-error", { hasText: "For all jobs:" }).waitFor();
    await page.locator("#batch-all").fill(JSON.stringify({ args }));
    const sent = page.waitForRequest((request) => request.method() === "POST");
    await page.locator("#batch-submit").click();
    assert.deepEqual((await sent).postDataJSON(), {
      batchId: "night",
      defaultRadixJobComponentConfig: { args },
      jobScheduleDescriptions: [{ payload: "one" }, { payload: "two" }, { payload: "three" }],
    });
    await page.locator("#batch-starter").waitFor({ state: "hidden" });
    const batch = page.locator("tr.batch");
    await batch.getByText("1 of 3 finished · 1 failed · 2 running").waitFor();
    await batch.getByText("Active", { exact: true }).waitFor();
    await batch.getByText("night").waitFor();
    const members = page.locator("tr.job.member");
    assert.equal(await members.count(), 3);
    assert.equal(await members.nth(1).locator(".why").textContent(), "exit code 3");
    await page.getByRole("button", { name: /^Running 2$/ }).click();
    assert.equal(await members.count(), 2);
    await page.getByRole("button", { name: /^All / }).click();
    const widths = await batch.locator(".share i").evaluateAll((parts) => parts.map((part) => part.clientWidth));
    assert.ok(widths[1] > 0 && widths[4] > 1.8 * widths[1], String(widths));
    assert.equal(await batch.locator(".share").getAttribute("aria-label"), "1 of 3 finished · 1 failed · 2 running");

    // A job of it is looked at as any other, but not deleted alone; its address is enough.
    await members.nth(1).getByRole("button").click();
    await detail(page).getByText("exit code 3").first().waitFor();
    assert.ok(await page.locator("#delete").isDisabled());
    await shot(page, "batch-light");
    await page.setViewportSize({ width: 390, height: 844 });
    await shot(page, "batch-phone");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.ok(!wide, "it is wider than a phone");
    await page.setViewportSize({ width: 1280, height: 800 });
    await batch.getByRole("button", { name: /^Jobs of/ }).click();
    await until("folded", async () => (await members.count()) === 0);
    await page.reload();
    await detail(page).getByText("exit code 3").first().waitFor();
    await page.locator("#close").click();

    await batch.locator(".name").click();
    await until("unfolded", async () => (await members.count()) === 3);
    await batch.getByRole("button", { name: "Stop" }).click();
    await batch.getByText("3 of 3 finished · 1 failed · 2 stopped").waitFor();
    await batch.getByText("Completed", { exact: true }).waitFor();
    assert.ok(await batch.getByRole("button", { name: "Stop" }).isDisabled());
    await writeFile(go, "");
    await batch.getByRole("button", { name: "Restart what failed" }).click();
    await batch.getByText("3 of 3 finished · 1 failed", { exact: true }).waitFor();
    await until("the jobs", async () => (await members.allTextContents()).filter((text) => text.includes("Succeeded")).length === 2);
    assert.equal(await members.count(), 3);

    await batch.getByRole("button", { name: "Delete…" }).click();
    await page.getByText("with its 3 jobs and their logs?").waitFor();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await batch.waitFor({ state: "detached" });
    assert.equal(await members.count(), 0);
    assert.deepEqual(await api("GET", "/api/v1/batches"), []);
    await page.context().close();
  },

  async "a batch comes from a JSON file, and one that is wrong is refused whole"() {
    const page = await open();
    const file = (body) => ({ name: "batch.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(body)) });
    await page.getByRole("button", { name: "Start a batch" }).click();
    const jobs = [{ jobId: "a", timeLimitSeconds: 0 }, { jobId: "b" }];
    await page.locator("#batch-file").setInputFiles(file({ jobScheduleDescriptions: jobs }));
    await page.locator("#batch-submit").click();
    await page.locator("#batch-form-error", { hasText: "jobScheduleDescriptions[0].timeLimitSeconds" }).waitFor();
    await shot(page, "batch-refused");
    jobs[0].timeLimitSeconds = 60;
    jobs.forEach((job) => (job.args = ["true"]));
    await page.locator("#batch-file").setInputFiles(file({ batchId: "of a file", jobScheduleDescriptions: jobs }));
    await page.locator("#batch-submit").click();
    const batch = page.locator("tr.batch", { hasText: "of a file" });
    await batch.getByText("2 of 2 finished", { exact: true }).waitFor();
    const made = await api("GET", "/api/v1/batches?summary=true");
    const { name } = made.find(({ batchId }) => batchId === "of a file");
    await api("DELETE", `/api/v1/batches/${name}`);
    await batch.waitFor({ state: "detached" });
    await page.context().close();
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
      await page.locator("tr.job").first().waitFor();
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

  async "the list is told of changes, and never asked for again"() {
    const page = await open();
    const asked = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    const name = await submit({ args: ["true"] });
    const began = Date.now();
    await row(page, name).getByText("Succeeded").waitFor({ timeout: 2000 });
    await api("DELETE", `/api/v1/jobs/${name}`);
    await row(page, name).waitFor({ state: "detached", timeout: 2000 });
    await page.waitForTimeout(3000 - (Date.now() - began));
    assert.deepEqual([...new Set(asked)], ["/health/live"]);
    assert.ok(asked.length <= 4, `${asked.length} signs of life asked for in 3 s`);
    await page.context().close();
  },

  async "a hidden page keeps no connection, and is told what it missed"() {
    const page = await open();
    const closed = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/events"));
    await hide(page, true);
    await closed;
    const name = await submit({ args: ["true"] });
    const again = page.waitForRequest((request) => request.url().endsWith("/events"));
    await hide(page, false);
    assert.match((await again).headers()["last-event-id"], /^\w+-\d+$/);
    await row(page, name).waitFor({ timeout: 2000 });
    await page.context().close();
    // One that is opened behind another begins when it is seen.
    const context = await browser.newContext();
    const behind = await context.newPage();
    behind.on("pageerror", (error) => errors.push(String(error)));
    await behind.addInitScript(() => Object.defineProperty(document, "hidden", { configurable: true, get: () => true }));
    await behind.goto(base + "/");
    await behind.waitForTimeout(2000);
    assert.equal(await behind.locator("tr.job").count(), 0);
    const sign = behind.waitForRequest((request) => request.url().endsWith("/health/live"));
    await hide(behind, false);
    await sign;
    await row(behind, name).waitFor({ timeout: 2000 });
    await context.close();
  },

  async "how far a job is moves on the page as the job says it"() {
    const name = await submit({ args: ["exec sleep 1000"], ...WHOLE });
    await row(page, name).click();
    assert.ok(await page.locator("#progress").isHidden());
    for (const [percent, message] of [[42, "epoch 4 of 10"], [80, "<b>epoch 8</b>"]]) {
      await api("PUT", `/api/v1/jobs/${name}/progress`, { percent, message });
      const text = `${percent} % · ${message}`;
      await row(page, name).locator(".far", { hasText: text }).waitFor({ timeout: 2000 });
      await page.locator("#progress-text", { hasText: text }).waitFor();
      assert.equal(await row(page, name).locator("progress").evaluate((bar) => bar.value), percent);
      assert.equal(await page.locator("#progress-bar").evaluate((bar) => bar.value), percent);
    }
    await shot(page, "progress");
    await api("DELETE", `/api/v1/jobs/${name}`);
    await page.locator("#close").click();
  },

  async "a result is shown, and said to be cut where it was"() {
    const result = '{"loss": 0.31, "note": "<i>good</i>"}';
    const name = await submit({ args: [`printf '%s' '${result}' > "$JOB_RESULT_FILE"; exit 3`] });
    await row(page, name).getByText("Failed", { exact: true }).waitFor();
    await row(page, name).click();
    await until("the result", async () => (await page.locator("#result").textContent()) === result);
    assert.ok(await page.locator("#result-cut").isHidden());
    await shot(page, "result");
    const long = await submit({ args: ['seq 1 2000 > "$JOB_RESULT_FILE"'] });
    await row(page, long).getByText("Succeeded").waitFor();
    await row(page, long).click();
    await page.locator("#result-cut").waitFor();
    assert.ok((await page.locator("#result").textContent()).endsWith("1999\n2000\n"));
    const none = await submit({ args: ["true"] });
    await row(page, none).click();
    await page.locator("#result-part").waitFor({ state: "hidden" });
  },

  async "a log that is too long is cut in front, says so, and can be had as a whole"() {
    const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => `${first + i}\n`).join("");
    const fits = await submit({ args: ["seq 1 5000"] });
    await row(page, fits).click();
    await page.getByText("end of the log").waitFor();
    assert.equal(await log(page).textContent(), numbers(1, 5000));
    assert.ok(await page.locator("#log-cut").isHidden());
    // Some of it is there before it is read, and some comes later.
    const go = join(scratch, "more");
    const long = await submit({ args: [`seq 1 5001; while ! test -e ${go}; do sleep 0.1; done; seq 5002 6000`] });
    await row(page, long).click();
    await page.locator("#log-cut").waitFor();
    await until("the end so far", async () => (await log(page).textContent()) === numbers(2, 5001));
    await writeFile(go, "");
    await page.getByText("end of the log").waitFor();
    assert.equal(await log(page).textContent(), numbers(1001, 6000));
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download").click()]);
    assert.equal(download.suggestedFilename(), `${long}.log`);
    assert.equal(await readFile(await download.path(), "utf8"), numbers(1, 6000));
    await row(page, fits).click();
    await page.locator("#log-cut").waitFor({ state: "hidden" });
    await page.locator("#close").click();
  },

  async "a job is started again with changes, from what this page knows of it"() {
    const name = await start(page, { payload: "secret", jobId: "again", args: "exit 0", variables: "A=1\nB=2", priority: "7" });
    await page.locator("#again").click();
    await page.locator("#again-note", { hasText: "but for its payload" }).waitFor();
    await page.locator("#variables").fill("A=1\nB=3");
    const [request] = await Promise.all([
      page.waitForRequest((request) => request.method() === "POST"),
      page.locator("#submit").click(),
    ]);
    assert.deepEqual(request.postDataJSON(), { jobId: "again", args: ["exit 0"], variables: { A: "1", B: "3" }, priority: 7 });
    await until("the new job", async () => (await page.locator("#job-name").textContent()) !== name);
    // What is filled in is not left for the next one.
    await page.getByRole("button", { name: "Start a job" }).click();
    assert.equal(await page.locator("#jobId").inputValue(), "");
    assert.ok(await page.locator("#again-note").isHidden());
    await page.locator("#cancel").click();
  },

  async "a job is started again with what the scheduler tells of it, and the form says that this is not all"() {
    const name = await submit({ jobId: "from elsewhere", args: ["true"] });
    await row(page, name).click();
    await page.locator("#again").click();
    await page.locator("#again-note", { hasText: `The scheduler tells no more of ${name} than its job id` }).waitFor();
    assert.equal(await page.locator("#jobId").inputValue(), "from elsewhere");
    assert.equal(await page.locator("#args").inputValue(), "");
    await page.locator("#cancel").click();
    await page.locator("#close").click();
  },

  async "several jobs are stopped and deleted at once"() {
    const names = [];
    for (let count = 0; count < 4; count += 1) names.push(await submit({ args: ["exec sleep 1000"], ...WHOLE }));
    const kept = names.pop();
    for (const name of names) await row(page, name).getByRole("checkbox").check();
    assert.ok(await detail(page).isHidden());
    await page.getByRole("button", { name: "Stop 3", exact: true }).click();
    for (const name of names) await row(page, name).getByText("Stopped", { exact: true }).waitFor();
    await page.locator("#news", { hasText: "3 jobs stop" }).waitFor();
    assert.ok(await page.locator("#stop-selected").isDisabled());
    await page.getByRole("button", { name: "Delete 3…" }).click();
    await page.getByText("Delete 3 jobs with their logs?").waitFor();
    await page.getByRole("button", { name: "Keep it" }).click();
    assert.equal((await api("GET", `/api/v1/jobs/${names[0]}`)).status, "Stopped");
    await page.getByRole("button", { name: "Delete 3…" }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    for (const name of names) await row(page, name).waitFor({ state: "detached" });
    await page.locator("#news", { hasText: "3 jobs are deleted" }).waitFor();
    // What the list no longer has is no longer selected.
    await row(page, kept).getByRole("checkbox").check();
    await page.getByRole("button", { name: /^Failed / }).click();
    assert.ok(await page.locator("#delete-selected").isDisabled());
    await page.getByRole("button", { name: /^All / }).click();
    await api("DELETE", `/api/v1/jobs/${kept}`);
  },

  async "what runs or failed is above what waits, and no queue pushes it off the list"() {
    const failed = await submit({ args: ["exit 5"] });
    await row(page, failed).getByText("exit code 5").waitFor();
    const running = await submit({ args: ["exec sleep 1000"], ...WHOLE });
    for (let count = 0; count < 600; count += 20) {
      await Promise.all(Array.from({ length: 20 }, () => submit(WHOLE)));
    }
    await page.getByText("600 in the queue, 1 running").waitFor();
    await row(page, running).getByText("Running", { exact: true }).waitFor();
    await row(page, failed).waitFor();
    const headings = (await page.locator("tr.group").allTextContents()).map((text) => text.split(" · ")[0]);
    assert.deepEqual(headings, ["Running", "Failed", "In the queue", "Succeeded or stopped"]);
    assert.equal(await page.locator("tr.Waiting").count(), 150);
    await page.getByText("In the queue · 600: the first 150 are here").waitFor();
    const places = await page.locator("tr.Waiting .why").allTextContents();
    assert.match(places[0], /^position 1 of the queue/);
    assert.match(places[99], /^position 100 of the queue/);
    assert.equal(places[100], "not among the first 100 of the queue");
    // The picture leaves what waits last out first.
    await page.getByText("500 of").waitFor();
    for (const kind of ["waited", "Running", "Failed", "Succeeded", "marks"]) {
      assert.notEqual(await page.locator(`#picture .${kind}`).getAttribute("d"), "", kind);
    }
    await shot(page, "long-queue");
    const narrow = await open({ viewport: { width: 400, height: 860 }, isMobile: true, hasTouch: true });
    await narrow.getByText("In the queue · 600").waitFor();
    const [needed, given] = await narrow.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(needed <= 400 && given <= 400, `${needed} of ${given} pixels`);
    await shot(narrow, "long-queue-phone");
    await narrow.context().close();
    await page.getByRole("button", { name: /^Queue 600$/ }).click();
    assert.equal(await page.locator("tr.Waiting").count(), 500);
    await page.locator("#select-all").check();
    await page.getByRole("button", { name: "Delete 600…" }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.locator("#news", { hasText: "600 jobs are deleted" }).waitFor();
    await page.getByText("No job is like this").waitFor();
    assert.equal((await api("GET", "/api/v1/jobs")).filter((job) => job.status === "Waiting").length, 0);
    await page.getByRole("button", { name: /^All / }).click();
    await api("DELETE", `/api/v1/jobs/${running}`);
  },

  async "the timeline has a line for each job, which leads to it"() {
    const page = await open();
    const jobs = await api("GET", "/api/v1/jobs");
    await page.locator("#timeline-count", { hasText: `${jobs.length} jobs` }).waitFor();
    const picture = page.locator("#picture");
    assert.match(await picture.getAttribute("aria-label"), new RegExp(`^Timeline of ${jobs.length} jobs from `));
    const bars = async (kind) => ((await picture.locator("." + kind).getAttribute("d")).match(/M/g) || []).length;
    for (const status of ["Succeeded", "Failed", "Stopped"]) {
      assert.equal(await bars(status), jobs.filter((job) => job.status === status).length, status);
    }
    assert.equal(await bars("marks"), await bars("Failed"));
    assert.ok((await picture.locator(".tick").count()) > 0);
    const last = jobs.filter((job) => job.created === jobs.at(-1).created).map((job) => job.name);
    const { width, height } = await picture.boundingBox();
    await picture.hover({ position: { x: width / 2, y: height - 3 } });
    await until("the last job", async () => last.includes((await page.locator("#pointed").textContent()).split(" · ")[0]));
    await picture.click({ position: { x: width / 2, y: height - 3 } });
    assert.ok(last.includes(await page.locator("#job-name").textContent()));
    assert.equal(await bars("here"), 1);
    await page.context().close();
  },

  async "an error stays until it is closed, and what is no error goes"() {
    const page = await open();
    const name = await submit({ args: ["exec sleep 1000"], ...WHOLE });
    await row(page, name).click();
    await page.route("**/stop", (route) => route.fulfill({ status: 422, json: { message: "it <b>cannot</b> be stopped" } }));
    await page.locator("#stop").click();
    await page.locator("#stop").click();
    const error = page.locator("#errors .said");
    await error.getByText(`${name}: it <b>cannot</b> be stopped`).waitFor();
    await shot(page, "error");
    await page.unroute("**/stop");
    await page.locator("#stop").click();
    const news = page.locator("#news", { hasText: `${name} stops` });
    await news.waitFor();
    await page.waitForTimeout(5500);
    assert.equal(await page.locator("#news .said").count(), 0);
    assert.equal(await error.count(), 1);
    await error.getByRole("button", { name: "Close this message" }).click();
    assert.equal(await error.count(), 0);
    await api("DELETE", `/api/v1/jobs/${name}`);
    await page.context().close();
  },

  async "the way back leads to the job before, and an address to its job"() {
    const page = await open();
    const [first, second] = [await submit({ args: ["echo first"] }), await submit({ args: ["echo second"] })];
    const isAt = (name, text) => until(`${name} is looked at`, async () =>
      (await page.locator("#job-name").textContent()) === name && (await log(page).textContent()) === text);
    await row(page, first).click();
    await isAt(first, "first\n");
    assert.equal(new URL(page.url()).hash, `#${first}`);
    await row(page, second).click();
    await isAt(second, "second\n");
    await page.goBack();
    await isAt(first, "first\n");
    await page.goBack();
    await detail(page).waitFor({ state: "hidden" });
    await page.goForward();
    await isAt(first, "first\n");
    await page.evaluate((name) => (location.hash = name), second);
    await isAt(second, "second\n");
    await page.reload();
    await isAt(second, "second\n");
    await page.goto(`${base}/#compute-20210407105556-rkwaibwe`);
    await page.getByText("This job is not kept any more").waitFor();
    // The way to the jobs is no job.
    await page.locator("#skip").evaluate((link) => link.click());
    assert.equal(await page.evaluate(() => document.activeElement.id), "jobs");
    await page.getByText("This job is not kept any more").waitFor();
    await page.context().close();
  },

  async "the focus stays where it is, whatever happens to the list"() {
    const page = await open();
    const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") || document.activeElement.textContent);
    const queue = [];
    for (let count = 0; count < 6; count += 1) queue.push(await submit({ args: ["exec sleep 1000"], ...WHOLE }));
    const [running, second, third, fourth, fifth, sixth] = queue;
    await row(page, sixth).waitFor();
    await row(page, fourth).locator(".name").focus();
    // It is not even given back: a screen reader would begin to speak again.
    const moves = await page.evaluateHandle(() => {
      const moves = [];
      for (const kind of ["focusin", "focusout"]) {
        document.addEventListener(kind, (event) => moves.push(`${kind} ${event.target.textContent}`));
      }
      return moves;
    });
    // Rows above it go, and the next job runs: its row goes up.
    await api("DELETE", `/api/v1/jobs/${running}`);
    await row(page, second).getByText("Running", { exact: true }).waitFor();
    await api("DELETE", `/api/v1/jobs/${third}`);
    await row(page, third).waitFor({ state: "detached" });
    const late = await submit({ args: ["true"], priority: 100, ...WHOLE });
    await row(page, late).waitFor();
    // From above it to below it goes one that is stopped.
    await api("POST", `/api/v1/jobs/${second}/stop`);
    await row(page, second).getByText("Stopped", { exact: true }).waitFor();
    assert.deepEqual([await focused(), await moves.jsonValue()], [fourth, []]);
    // Its own row goes from one group to another.
    await row(page, late).getByText("Succeeded", { exact: true }).waitFor();
    await row(page, fourth).getByText("Running", { exact: true }).waitFor();
    await api("POST", `/api/v1/jobs/${fourth}/stop`);
    await row(page, fourth).getByText("Stopped", { exact: true }).waitFor();
    assert.deepEqual([await focused(), await moves.jsonValue()], [fourth, []]);
    // It is gone: what stands in its place has it, be it a name or a box.
    await row(page, fifth).getByRole("checkbox").focus();
    await api("DELETE", `/api/v1/jobs/${fifth}`);
    await row(page, fifth).waitFor({ state: "detached" });
    assert.equal(await focused(), `Select ${sixth}`);
    // A button that has done its work keeps it.
    await row(page, sixth).getByText("Running", { exact: true }).waitFor();
    await row(page, sixth).click();
    await page.locator("#stop").focus();
    await page.keyboard.press("Enter");
    await row(page, sixth).getByText("Stopped", { exact: true }).waitFor();
    assert.ok(await page.locator("#stop").isDisabled());
    assert.equal(await page.evaluate(() => document.activeElement.id), "stop");
    for (const name of [second, fourth, sixth, late]) await api("DELETE", `/api/v1/jobs/${name}`);
    await page.context().close();
  },

  async "all text has contrast, and all fields have names"() {
    const failed = await submit({ args: ["exit 1"] });
    for (const colorScheme of ["light", "dark"]) {
      const page = await open({ colorScheme });
      await row(page, failed).click();
      await page.getByText("end of the log").or(page.getByText("the job has written nothing")).waitFor();
      const faint = await page.evaluate(() => {
        const channels = (color) => color.match(/[\d.]+/g).map(Number);
        const luminance = (color) => {
          const [r, g, b] = channels(color).map((value) => value / 255).map((value) =>
            (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (node) => {
          const color = getComputedStyle(node).backgroundColor;
          return channels(color)[3] === 0 ? behind(node.parentElement) : color;
        };
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const faint = [];
        for (let node; (node = walker.nextNode());) {
          const owner = node.parentElement;
          const isText = node.data.trim() && owner.checkVisibility() && !owner.closest("[aria-disabled=true], svg, script");
          if (!isText) continue;
          const [a, b] = [luminance(getComputedStyle(owner).color), luminance(behind(owner))];
          const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (contrast < 4.5) faint.push(`${node.data.trim()}: ${contrast.toFixed(2)}`);
        }
        return faint;
      });
      assert.deepEqual(faint, [], colorScheme);
      const nameless = await page.evaluate(() => [...document.querySelectorAll("input, select, textarea, button, progress")]
        .filter((field) => !field.labels?.length && !field.ariaLabel && !field.textContent).map((field) => field.outerHTML));
      assert.deepEqual(nameless, []);
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
    assert.ok(bytes <= 75_000, `${bytes} bytes`);
    console.log(`   the page has ${bytes} bytes`);
  },

  async "no policy was violated, nothing outside asked for, and no error made"() {
    assert.deepEqual([violations, outside, errors], [[], [], []]);
  },

  async "a scheduler that hangs is said to within 5 s, and is found at once when it does not any more"() {
    const name = await submit({ args: ["exec sleep 1000"], ...WHOLE });
    await row(page, name).waitFor();
    const narrow = await open({ viewport: { width: 400, height: 860 }, isMobile: true, hasTouch: true });
    // Whenever it is, and however long.
    for (const [before, hung] of [[0, 1000], [700, 8000]]) {
      await page.waitForTimeout(before);
      server.kill("SIGSTOP");
      try {
        const stopped = Date.now();
        await page.getByText("the scheduler does not answer").waitFor({ timeout: 5000 });
        console.log(`   said after ${Date.now() - stopped} ms`);
        await narrow.getByText("the scheduler does not answer").waitFor({ timeout: 5000 });
        assert.ok((await narrow.evaluate(() => document.documentElement.scrollWidth)) <= 400);
        await shot(narrow, "lost-phone");
        await page.waitForTimeout(hung);
      } finally {
        server.kill("SIGCONT");
      }
      const resumed = Date.now();
      await page.getByText("live", { exact: true }).waitFor({ timeout: 2000 });
      console.log(`   found after ${Date.now() - resumed} ms`);
    }
    await narrow.context().close();
    await api("DELETE", `/api/v1/jobs/${name}`);
    await row(page, name).waitFor({ state: "detached", timeout: 2000 });
  },

  async "a scheduler that is gone is said to be, and another one found when it is there"() {
    const name = await submit({ args: ["true"] });
    await row(page, name).getByText("Succeeded").waitFor();
    server.kill("SIGTERM");
    await page.getByText("the scheduler does not answer").waitFor({ timeout: 5000 });
    await ended;
    // What was there is still seen.
    await row(page, name).waitFor();
    startScheduler();
    await until("the scheduler answers", async () => (await fetch(base + "/health/ready")).ok);
    await page.getByText("live", { exact: true }).waitFor({ timeout: 2000 });
    await api("DELETE", `/api/v1/jobs/${name}`);
    await row(page, name).waitFor({ state: "detached", timeout: 2000 });
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
  for (const [name, test] of Object.entries(tests).filter(([name]) => name.match(pattern || ""))) {
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
