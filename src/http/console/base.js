"use strict";
// What all parts of the page use.

const JOBS = "/api/v1/jobs";
const UNFINISHED = ["Waiting", "Running", "Stopping"];
const NO_ANSWER = "the scheduler does not answer";
/** How long a message that is no error is shown. */
const MESSAGE_MS = 5000;

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const state = {
  /** By name, as the scheduler told of them last: single jobs, batches, and jobs of batches. */
  jobs: new Map(),
  batches: new Map(),
  members: new Map(),
  /** Whether it has told of them at all. */
  isKnown: false,
  /** When the scheduler was lost, in milliseconds: what is shown is of then. */
  lostAt: 0,
  /** The name of the job that is looked at. */
  chosen: null,
  filter: "All",
  /** The names of those that are selected, and of those whose end is waited for. */
  selected: new Set(),
  waits: new Set(),
  component: null,
};

/** An element with text, which is never taken for markup. */
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A button that cannot be pressed now keeps the focus, which a disabled one would lose. */
function enable(button, isEnabled) {
  button.setAttribute("aria-disabled", String(!isEnabled));
}

function onPress(id, action) {
  $(id).addEventListener("click", () => $(id).ariaDisabled !== "true" && action());
}

// The API

/** Calls the API; an answer that is an error is thrown with its message and code. */
async function call(method, path, body, headers = {}) {
  const options = { method, headers };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, options);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

async function refusal(response) {
  const text = await response.text();
  let message = text.slice(0, 300);
  try {
    message = JSON.parse(text).message;
  } catch {
    // Something between the scheduler and here has answered.
  }
  const error = new Error(message || `the scheduler answered ${response.status}`);
  return Object.assign(error, { code: response.status });
}

/** What people are told of an error: fetch has but a TypeError for a connection that failed. */
const explained = (error) => (error instanceof TypeError ? NO_ANSWER : error.message);

const pathOf = (name, action) =>
  `${JOBS}/${encodeURIComponent(name)}${action ? "/" + action : ""}`;

// Messages

/** Says something until it is closed. */
function message(box, text) {
  const line = element("div", "said");
  const button = element("button", "plain", "Close");
  button.setAttribute("aria-label", "Close this message");
  line.append(element("span", "", text), button);
  const remove = () => keepFocus(() => line.remove());
  button.addEventListener("click", remove);
  // Said twice, it stands there once.
  for (const other of [...box.children]) {
    if (other.firstChild.textContent === text) other.remove();
  }
  box.append(line);
  return remove;
}

/** Says something for a moment. */
function tell(text) {
  setTimeout(message($("news"), text), MESSAGE_MS);
}

function tellError(text) {
  message($("errors"), text);
}

// The focus

/**
 * Changes the page, and gives the focus back if its owner lost it: to the owner, or, if that is
 * gone or hidden, to what stands in its place.
 */
function keepFocus(change) {
  const owner = document.activeElement;
  if (!owner || owner === document.body) return change();
  const heir = heirOf(owner);
  change();
  const isThere = owner.isConnected && owner.checkVisibility();
  if (isThere && document.activeElement === owner) return;
  (isThere ? owner : heir()).focus({ preventScroll: true });
}

/** Who has the focus after an element: a function, to be called once that is gone. */
function heirOf(owner) {
  const row = owner.closest("tr.job, tr.batch");
  if (row) {
    const index = jobRows().indexOf(row);
    return () => {
      const rows = jobRows();
      const next = rows[Math.min(index, rows.length - 1)];
      return next ? next.querySelector(owner.tagName) : $("search");
    };
  }
  if (owner.closest(".said")) {
    return () => document.querySelector(".said button") || $("new");
  }
  return () => (owner.closest("#detail") && !$("detail").hidden ? $("detail") : $("search"));
}

// Times

const moment = (text) => (text ? Date.parse(text) : 0);
const now = () => state.lostAt || Date.now();
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const DATE = { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat([], CLOCK);
const calendar = new Intl.DateTimeFormat([], DATE);

/** A time, as text or in milliseconds, for people. */
function shown(given) {
  if (!given) return "";
  const time = new Date(given);
  const isToday = time.toDateString() === new Date().toDateString();
  return (isToday ? clock : calendar).format(time);
}

/** A time in its two largest units. */
function lasting(milliseconds) {
  let seconds = Math.max(0, Math.round(milliseconds / 1000));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) parts.push(`${Math.floor(seconds / size)} ${unit}`);
    seconds %= size;
  }
  if (parts.length < 2) parts.push(`${seconds} s`);
  return parts.slice(0, 2).join(" ");
}

// Jobs

const isUnfinished = (job) => UNFINISHED.includes(job.status);
const jobNamed = (name) => state.jobs.get(name) || state.members.get(name);
const chosenJob = () => jobNamed(state.chosen);
const attemptsOf = (job) => job.podStatuses || [];

function endOf(job) {
  if (job.ended) return job.ended;
  if (isUnfinished(job)) return "";
  const ends = attemptsOf(job).map((attempt) => attempt.endTime || "");
  return ends.reduce((latest, end) => (latest > end ? latest : end), "");
}

/** When a job came, when it started and when it ended, in milliseconds; 0 for what is not known. */
function timesOf(job) {
  return {
    came: moment(job.restart || job.created),
    started: moment(job.started),
    ended: moment(endOf(job)),
  };
}

function waitedOf(job) {
  const { came, started } = timesOf(job);
  if (!started && job.status !== "Waiting") return "";
  return lasting((started || now()) - came);
}

function durationOf(job) {
  const { started, ended } = timesOf(job);
  if (!started || (!ended && !isUnfinished(job))) return "";
  return lasting((ended || now()) - started);
}

function exitOf(job) {
  const attempt = attemptsOf(job).at(-1);
  return attempt && attempt.exitCode !== undefined ? String(attempt.exitCode) : "";
}

/** How far a job is, in words. */
function progressOf(job) {
  const { percent, message } = job.progress;
  return [`${percent} %`, message].filter(Boolean).join(" · ");
}
