"use strict";
const JOBS = "/api/v1/jobs";
const POLL_MS = 1000;
const MAX_PAYLOAD = 1048576;
const MAX_LOG_CHARS = 1000000;
const MAX_ROWS = 500;
const UNFINISHED = ["Waiting", "Running", "Stopping"];
const $ = (id) => document.getElementById(id);

/** An element with text, which is never taken for markup. */
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const state = { jobs: [], chosen: null, filter: "All", rows: new Map(), component: null, poll: 0, waits: new Set() };

/** Calls the API; an answer that is an error is thrown with its message. */
async function call(method, path, body, headers = {}) {
  const options = { method, headers };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, options);
  const text = await response.text();
  let value = {};
  try {
    value = JSON.parse(text);
  } catch {
    value = { message: text.slice(0, 300) };
  }
  if (!response.ok) throw new Error(value.message || `the scheduler answered ${response.status}`);
  return value;
}

// Times

const moment = (text) => (text ? new Date(text) : null);

function shown(text) {
  const time = moment(text);
  if (!time) return "";
  const today = time.toDateString() === new Date().toDateString();
  return today
    ? time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })
    : time.toLocaleString([], { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
}

function endOf(job) {
  if (job.ended) return job.ended;
  if (UNFINISHED.includes(job.status)) return "";
  return (job.podStatuses || []).map((attempt) => attempt.endTime || "").reduce((a, b) => (a > b ? a : b), "");
}

function durationOf(job) {
  const start = moment(job.started);
  if (!start) return "";
  const end = moment(endOf(job)) || (UNFINISHED.includes(job.status) ? new Date() : null);
  if (!end) return "";
  let seconds = Math.max(0, Math.round((end - start) / 1000));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) parts.push(`${Math.floor(seconds / size)} ${unit}`);
    seconds %= size;
  }
  if (parts.length < 2) parts.push(`${seconds} s`);
  return parts.slice(0, 2).join(" ");
}

function exitOf(job) {
  const attempt = (job.podStatuses || []).at(-1);
  return attempt && attempt.exitCode !== undefined ? String(attempt.exitCode) : "";
}

// The list

const FILTERS = {
  All: () => true,
  Queue: (job) => job.status === "Waiting",
  Running: (job) => job.status === "Running" || job.status === "Stopping",
  Failed: (job) => job.status === "Failed",
  Succeeded: (job) => job.status === "Succeeded",
  Stopped: (job) => job.status === "Stopped",
};

function matches(job) {
  const words = $("search").value.trim().toLowerCase();
  const text = [job.name, job.jobId, job.message, job.status].join(" ").toLowerCase();
  return FILTERS[state.filter](job) && text.includes(words);
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function makeRow(name) {
  const row = element("tr");
  const cells = Array.from({ length: 5 }, () => element("td"));
  const badge = element("span", "badge");
  const button = element("button", "name", name);
  button.type = "button";
  const id = element("span", "id");
  const why = element("span", "why");
  cells[0].append(badge);
  cells[1].append(button, " ", id, why);
  row.append(...cells);
  row.addEventListener("click", () => choose(name));
  return { row, cells, badge, button, id, why };
}

function fillRow(view, job) {
  const chosen = state.chosen === job.name;
  const className = job.status + (chosen ? " chosen" : "");
  if (view.row.className !== className) view.row.className = className;
  view.button.setAttribute("aria-pressed", String(chosen));
  if (view.badge.textContent !== job.status) {
    view.badge.textContent = job.status;
    view.badge.className = "badge " + job.status;
  }
  setText(view.id, job.jobId || "");
  setText(view.why, job.message || "");
  setText(view.cells[2], shown(job.created));
  view.cells[2].title = job.created;
  setText(view.cells[3], durationOf(job));
  setText(view.cells[4], exitOf(job));
}

function drawFilters() {
  const group = $("filters");
  if (!group.firstChild) {
    for (const name of Object.keys(FILTERS)) {
      const button = element("button");
      button.type = "button";
      button.dataset.filter = name;
      button.addEventListener("click", () => {
        state.filter = name;
        draw();
      });
      group.append(button);
    }
  }
  for (const button of group.children) {
    const name = button.dataset.filter;
    const count = state.jobs.filter(FILTERS[name]).length;
    setText(button, `${name} ${count}`);
    button.setAttribute("aria-pressed", String(state.filter === name));
    button.classList.toggle("bad", name === "Failed" && count > 0);
  }
}

function drawQueue() {
  const waiting = state.jobs.filter((job) => job.status === "Waiting").length;
  const running = state.jobs.filter((job) => job.status === "Running").length;
  $("queue").hidden = waiting === 0;
  setText($("queue"), `${waiting} in the queue, ${running} running. Each job says its place, and what it waits for.`);
}

function draw() {
  drawFilters();
  drawQueue();
  const visible = state.jobs.filter(matches);
  if (state.filter === "Queue") visible.sort((a, b) => (a.queuePosition || Infinity) - (b.queuePosition || Infinity) || -byAge(a, b));
  const body = $("rows");
  let before = body.firstChild;
  const kept = new Set();
  for (const job of visible.slice(0, MAX_ROWS)) {
    let view = state.rows.get(job.name);
    if (!view) state.rows.set(job.name, (view = makeRow(job.name)));
    kept.add(job.name);
    fillRow(view, job);
    if (view.row === before) before = before.nextSibling;
    else body.insertBefore(view.row, before);
  }
  for (const [name, view] of state.rows) {
    if (!kept.has(name)) {
      view.row.remove();
      state.rows.delete(name);
    }
  }
  $("jobs").hidden = visible.length === 0;
  const rest = visible.length - MAX_ROWS;
  $("empty").hidden = visible.length > 0 && rest <= 0;
  setText($("empty"), rest > 0 ? `${rest} more: search for them by name or id.`
    : state.jobs.length === 0 ? "No jobs yet. Start one, here or through the API." : "No job is like this.");
  drawDetail();
}

function byAge(a, b) {
  return a.created < b.created ? 1 : a.created > b.created ? -1 : a.name < b.name ? -1 : 1;
}

async function poll() {
  const turn = ++state.poll;
  try {
    const jobs = await call("GET", JOBS);
    if (turn !== state.poll) return;
    state.jobs = jobs.sort(byAge);
    tellOfEnds();
    linked(true, "live");
    draw();
  } catch (error) {
    if (turn === state.poll) linked(false, error instanceof TypeError ? "the scheduler does not answer" : error.message);
  }
}

function linked(on, text) {
  $("link").className = on ? "link on" : "link off";
  setText($("link-text"), text);
}

/** Who waits for a job's end looks elsewhere meanwhile: then the list is kept up to date as well. */
async function pollOn() {
  const began = performance.now();
  if (!document.hidden || state.waits.size) {
    await poll();
    if (!state.component) await readComponent().catch(() => {});
  }
  // A long list is asked for less often, so that looking at it costs the scheduler little.
  setTimeout(pollOn, Math.max(POLL_MS, 10 * (performance.now() - began)));
}

// One job

const chosenJob = () => state.jobs.find((job) => job.name === state.chosen);

function choose(name) {
  if (state.chosen === name) return;
  state.chosen = name;
  history.replaceState(null, "", name ? "#" + name : location.pathname);
  draw();
  if (name) {
    readLog();
    if (matchMedia("(max-width: 62rem)").matches) $("detail").scrollIntoView();
  }
}

function close() {
  const view = state.rows.get(state.chosen);
  stopLog();
  choose(null);
  (view ? view.button : $("new")).focus();
}

function facts(list, pairs) {
  const wanted = JSON.stringify(pairs);
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren();
  for (const [term, text, className] of pairs) {
    if (text === "" || text === undefined) continue;
    const value = typeof text === "object" ? links(text) : element("dd", className || "", text);
    list.append(element("dt", "", term), value);
  }
}

/** Where a job is reached, by the names of its ports. */
function links(urls) {
  const cell = element("dd");
  for (const [name, url] of Object.entries(urls)) {
    const link = element("a", "", url);
    link.href = url;
    link.target = "_blank";
    link.rel = "noreferrer";
    const line = element("div");
    line.append(link, ` (${name})`);
    cell.append(line);
  }
  return cell;
}

function drawDetail() {
  const job = chosenJob();
  const gone = state.chosen && !job;
  $("detail").hidden = !state.chosen;
  document.querySelector("main").classList.toggle("split", Boolean(state.chosen));
  if (!state.chosen) return;
  setText($("job-name"), state.chosen);
  for (const id of ["wait", "stop", "restart", "delete"]) $(id).disabled = true;
  if (gone) {
    $("job-status").replaceChildren();
    $("job-message").hidden = false;
    $("job-message").className = "message";
    setText($("job-message"), "This job is not kept any more.");
    return;
  }
  if (job.restart !== logRestart) readLog();
  $("wait").disabled = false;
  $("wait").hidden = !UNFINISHED.includes(job.status);
  $("wait").setAttribute("aria-pressed", String(state.waits.has(job.name)));
  setText($("wait"), state.waits.has(job.name) ? "Waiting…" : "Wait for its end");
  $("stop").disabled = !["Waiting", "Running"].includes(job.status);
  $("restart").disabled = UNFINISHED.includes(job.status);
  $("delete").disabled = false;
  const badge = $("job-status").firstChild || $("job-status").appendChild(element("span", "badge"));
  badge.className = "badge " + job.status;
  setText(badge, job.status);
  $("job-message").hidden = !job.message;
  $("job-message").className = job.status === "Failed" ? "message bad" : "message";
  setText($("job-message"), job.message || "");
  facts($("facts"), [
    ["Job id", job.jobId],
    ["Reached at", job.urls],
    ["Created", shown(job.created)],
    ["Started", shown(job.started)],
    ["Ended", shown(endOf(job))],
    ["Duration", durationOf(job)],
    ["Exit code", exitOf(job)],
    ["Failed attempts", job.failed === undefined ? "" : String(job.failed)],
    ["Restarted", shown(job.restart)],
    ["Again for", job.restartOf],
  ]);
  drawAttempts(job.podStatuses || []);
}

function drawAttempts(attempts) {
  const wanted = JSON.stringify(attempts);
  const list = $("attempts");
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren();
  if (attempts.length === 0) list.append(element("p", "quiet", "None yet."));
  attempts.forEach((attempt, index) => {
    const line = element("p");
    const status = attempt.replicaStatus.status;
    // "Error" is what a container runtime calls every exit code but 0.
    const reason = attempt.reason === "Error" ? "" : attempt.reason;
    const why = [attempt.exitCode === undefined ? "" : `exit code ${attempt.exitCode}`, reason, attempt.statusMessage];
    const times = [shown(attempt.startTime), shown(attempt.endTime)].filter(Boolean).join(" – ");
    line.append(`${index + 1}. `, element("span", "badge " + status, status), " ", why.filter(Boolean).join(" · "), " ");
    line.append(element("span", "quiet", times));
    line.title = attempt.name;
    list.append(line);
  });
}

async function act(method, path, done) {
  try {
    const answer = await call(method, path);
    toast(done(answer));
    return answer;
  } catch (error) {
    toast(error.message);
    return null;
  } finally {
    poll();
  }
}

const path = (name, action) => `${JOBS}/${encodeURIComponent(name)}${action ? "/" + action : ""}`;

function stop() {
  const name = state.chosen;
  act("POST", path(name, "stop"), () => `${name} stops`);
}

async function restart() {
  const name = state.chosen;
  const job = await act("POST", path(name, "restart"), (again) => `${again.name} runs`);
  // One that runs again under its own name is seen to.
  if (job && job.name !== name) choose(job.name);
}

function ask() {
  setText($("asker-text"), `Delete ${state.chosen} with its log? If it runs, it is ended. This cannot be undone.`);
  $("asker").showModal();
}

async function remove() {
  $("asker").close();
  const name = state.chosen;
  const done = await act("DELETE", path(name), () => `${name} is deleted`);
  if (done && state.chosen === name) close();
}

function wait() {
  if (!state.waits.delete(state.chosen)) state.waits.add(state.chosen);
  draw();
}

/** Says which of the jobs that are waited for have ended: in the title too, which is seen from another tab. */
function tellOfEnds() {
  for (const name of state.waits) {
    const job = state.jobs.find((job) => job.name === name);
    if (job && UNFINISHED.includes(job.status)) continue;
    state.waits.delete(name);
    const end = job ? [job.status, job.message].filter(Boolean).join(", ") : "deleted";
    const text = `${(job && job.jobId) || name}: ${end}`;
    toast(text);
    if (document.hidden) document.title = text;
  }
}

let toastTimer = 0;
function toast(text) {
  $("toast").hidden = false;
  setText($("toast"), text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 5000);
}

// The log

let reading = null;
let logLength = 0;
let logEnded = false;
/** When the job whose log is shown was restarted: with the next restart, it has another. */
let logRestart;
let held = "";
// What colours a terminal, and what may be the beginning of that at the end of a piece.
const ESCAPES = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g;
const BEGUN = /(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*)?|\r)$/;

function stopLog() {
  if (reading) reading.abort();
  reading = null;
}

function addLog(piece) {
  const log = $("log");
  const whole = held + piece;
  held = BEGUN.exec(whole)?.[0] || "";
  // So long an escape is none.
  if (held.length > 4096) held = "";
  const text = whole.slice(0, whole.length - held.length).replace(ESCAPES, "").replace(/\r\n?/g, "\n");
  if (!text) return;
  log.append(text);
  logLength += text.length;
  while (logLength > MAX_LOG_CHARS && log.childNodes.length > 1) {
    logLength -= log.firstChild.length;
    log.firstChild.remove();
  }
  if ($("follow").checked) log.scrollTop = log.scrollHeight;
}

async function readLog() {
  stopLog();
  const abort = (reading = new AbortController());
  const name = state.chosen;
  logRestart = chosenJob()?.restart;
  logEnded = false;
  if (document.hidden) return;
  $("log").replaceChildren();
  while (abort === reading) {
    const seconds = await readOnce(name, abort);
    if (seconds === null) return;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** Reads a log to its end. Gives the seconds after which to try again, if it did not come to that. */
async function readOnce(name, abort) {
  const say = (text) => abort === reading && setText($("log-state"), text);
  say("reading");
  try {
    const response = await fetch(path(name, "logs?follow=true&tail=2000"), { signal: abort.signal });
    if (!response.ok) {
      say((await response.json()).message);
      return [429, 503].includes(response.status) ? Number(response.headers.get("Retry-After")) || 5 : null;
    }
    if (abort !== reading) return null;
    $("log").replaceChildren();
    logLength = 0;
    held = "";
    say("following: more comes as it is written");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (abort !== reading) return null;
      if (done) break;
      addLog(value);
    }
    logEnded = true;
    say($("log").firstChild ? "end of the log" : "the job has written nothing");
    return null;
  } catch (error) {
    if (!(error instanceof TypeError)) {
      say(error.message);
      return null;
    }
    say("the connection broke off: trying again");
    return 2;
  }
}

// A new job

let filePayload = null;

function lines(id) {
  return $(id).value.split("\n").filter((line) => line !== "");
}

function number(id) {
  const field = $(id);
  if (!field.reportValidity()) throw new Error("");
  return field.value === "" ? undefined : Number(field.value);
}

function request() {
  const made = {};
  const payload = filePayload !== null ? filePayload : $("payload").value;
  if (payload !== "" || filePayload !== null) {
    const size = new TextEncoder().encode(payload).length;
    if (size > MAX_PAYLOAD) throw new Error(`The payload has ${size} bytes, and may have ${MAX_PAYLOAD}.`);
    made.payload = payload;
  }
  if ($("jobId").value) made.jobId = $("jobId").value;
  for (const id of ["image", "imageTagName"]) {
    if ($(id).value.trim()) made[id] = $(id).value.trim();
  }
  for (const id of ["priority", "timeLimitSeconds", "backoffLimit", "runAsUser"]) {
    const value = number(id);
    if (value !== undefined) made[id] = value;
  }
  for (const id of ["command", "args"]) {
    if (lines(id).length) made[id] = lines(id);
  }
  for (const line of lines("variables")) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`Variables: "${line}" is not NAME=value.`);
    (made.variables ||= Object.create(null))[line.slice(0, at)] = line.slice(at + 1);
  }
  for (const kind of ["requests", "limits"]) {
    for (const resource of ["cpu", "memory"]) {
      const value = $(`${kind}-${resource}`).value.trim();
      if (value) ((made.resources ||= {})[kind] ||= {})[resource] = value;
    }
  }
  const other = $("other").value.trim();
  if (other) {
    let fields;
    try {
      fields = JSON.parse(other);
    } catch (error) {
      throw new Error(`Any other field: ${error.message}.`);
    }
    if (!fields || typeof fields !== "object" || Array.isArray(fields)) throw new Error('Any other field: give an object, such as {"node": {"gpu": "v100"}}.');
    Object.assign(made, fields);
  }
  return made;
}

/** The last request and its key: sent again after a lost answer, it is the same job. */
let sent = { text: "", key: "" };

function keyFor(made) {
  const text = JSON.stringify(made);
  if (text !== sent.text) {
    const bytes = Array.from(crypto.getRandomValues(new Uint8Array(16)));
    sent = { text, key: bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("") };
  }
  return sent.key;
}

function failForm(message) {
  $("form-error").hidden = !message;
  setText($("form-error"), message);
  if (message) $("form-error").scrollIntoView({ block: "nearest" });
}

let sending = false;
async function submit(event) {
  event.preventDefault();
  if (sending) return;
  sending = true;
  $("submit").disabled = true;
  failForm("");
  try {
    const made = request();
    const job = await call("POST", JOBS, made, { "Idempotency-Key": keyFor(made) });
    sent = { text: "", key: "" };
    $("starter").close();
    $("form").reset();
    await readFile();
    toast(`${job.name} is started`);
    state.filter = "All";
    $("search").value = "";
    await poll();
    choose(job.name);
    $("detail").focus({ preventScroll: true });
  } catch (error) {
    failForm(error instanceof TypeError ? "The scheduler does not answer." : error.message);
  } finally {
    sending = false;
    $("submit").disabled = false;
  }
}

/** Takes the chosen file's text, which must be UTF-8: a payload is text in JSON. */
async function readFile() {
  const file = $("file").files[0];
  filePayload = null;
  $("payload").disabled = false;
  setText($("payload-size"), "");
  if (!file) return;
  failForm("");
  try {
    if (file.size > MAX_PAYLOAD) throw new Error(`${file.name} has ${file.size} bytes, and a payload may have ${MAX_PAYLOAD}.`);
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    try {
      filePayload = decoder.decode(await file.arrayBuffer());
    } catch {
      throw new Error(`${file.name} is not text in UTF-8: encode it, such as in base64.`);
    }
    $("payload").disabled = true;
    setText($("payload-size"), `${file.size} bytes`);
  } catch (error) {
    $("file").value = "";
    failForm(error.message);
  }
}

function openForm() {
  failForm("");
  $("starter").showModal();
  ($("payload-part").hidden ? $("jobId") : $("payload")).focus();
}

// What is configured

function listed(map) {
  return Object.entries(map || {}).map(([name, value]) => `${name}=${value}`).join("\n");
}

function title() {
  if (state.component) document.title = `${state.component.name} · job-scheduler`;
}

/** A rule of the failure policy in words. */
function ruled({ action, onExitCodes: { operator, values } }) {
  const does = { FailJob: "fails at once", Ignore: "does not count", Count: "counts" }[action];
  return `exit code ${operator === "In" ? "" : "other than "}${values.join(", ")}: ${does}`;
}

function volume({ path, emptyDir: { sizeLimit } }) {
  return sizeLimit ? `${path} (${sizeLimit} at most)` : path;
}

async function readComponent() {
  const component = (state.component = await call("GET", "/api/v1/component"));
  title();
  setText($("component"), component.name);
  setText($("where"), `${component.app} · ${component.environment}`);
  setText($("version"), component.version);
  $("payload-part").hidden = component.payloadPath === undefined;
  $("no-payload").hidden = component.payloadPath !== undefined;
  const { requests, limits } = component.resources || {};
  const running = component.limits.running;
  facts($("configuration"), [
    ["Image", component.image, "code"],
    ["Image tag", component.imageTagName, "code"],
    ["Command", (component.command || []).join("\n"), "code"],
    ["Arguments", (component.args || []).join("\n"), "code"],
    ["Payload", component.payloadPath ? `${component.payloadPath}/payload` : "none taken", "code"],
    ["Variables", listed(component.variables), "code"],
    ["Secrets, by name", component.secrets.join("\n"), "code"],
    ["Requests", listed(requests), "code"],
    ["Limits", listed(limits), "code"],
    ["Node", listed(component.node), "code"],
    ["Runtime", listed(component.runtime), "code"],
    ["Run as user", component.runAsUser === undefined ? "" : String(component.runAsUser)],
    ["Volumes", component.volumeMounts.map(volume).join("\n"), "code"],
    ["Root file system", component.readOnlyFileSystem ? "read-only" : ""],
    ["Ports", listed(component.ports), "code"],
    ["Time limit", component.timeLimitSeconds ? `${component.timeLimitSeconds} s` : "43200 s, the default"],
    ["Attempts", String((component.backoffLimit || 0) + 1)],
    ["Failure policy", (component.failurePolicy?.rules || []).map(ruled).join("\n")],
    ["May be moved", component.safeToRestart === undefined ? "" : component.safeToRestart ? "yes" : "no"],
    ["Jobs at once", running ? `${running}, and ${component.limits.waiting} in the queue` : "as many as there is room for"],
    ["Kept", `the latest ${component.limits.history} that succeeded, that failed and that were stopped, each`],
  ]);
  const siblings = component.siblings;
  $("siblings").hidden = siblings.length < 2;
  $("siblings").replaceChildren();
  for (const sibling of siblings) {
    const link = element("a", "", sibling.name);
    const url = new URL(sibling.url);
    if (["0.0.0.0", "[::]"].includes(url.hostname)) url.hostname = location.hostname;
    link.href = url.href;
    if (sibling.name === component.name) link.setAttribute("aria-current", "page");
    $("siblings").append(link);
  }
}

$("new").addEventListener("click", openForm);
$("cancel").addEventListener("click", () => $("starter").close());
$("form").addEventListener("submit", submit);
$("file").addEventListener("change", readFile);
$("search").addEventListener("input", draw);
$("close").addEventListener("click", close);
$("wait").addEventListener("click", wait);
$("stop").addEventListener("click", stop);
$("restart").addEventListener("click", restart);
$("delete").addEventListener("click", ask);
$("asker-no").addEventListener("click", () => $("asker").close());
$("asker-yes").addEventListener("click", remove);
$("reload").addEventListener("click", readLog);
// A browser has few connections to a host, over all its tabs: one that nobody looks at is to keep none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return stopLog();
  title();
  poll();
  if (state.chosen && !logEnded) readLog();
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, dialog");
  if (event.key === "Escape" && state.chosen && !typing) close();
});
if (/^#[-a-z0-9]{1,63}$/.test(location.hash)) {
  state.chosen = location.hash.slice(1);
  readLog();
}
pollOn();
