// The list of the jobs, and what is done to several of them.

/** Rows of a group among others, and of one that is looked at alone. */
const FEW_ROWS = 150;
const MANY_ROWS = 500;
/** So many places of the queue are told as they change: later ones are old. */
const TOLD_PLACES = 100;
const MAX_PLACE = Number.MAX_SAFE_INTEGER;
/** Calls at once: a browser has six connections to a host, of which two or three are taken. */
const CALLS_AT_ONCE = 3;
const DRAW_MS = 100;

const hasStatus = (...statuses) => (job) => statuses.includes(job.status);
/** The statuses of each; null is all. */
const FILTERS = {
  All: null,
  Queue: ["Waiting"],
  Running: ["Running", "Stopping"],
  Failed: ["Failed"],
  Succeeded: ["Succeeded"],
  Stopped: ["Stopped"],
};
const waits = hasStatus("Waiting");

/** What the list is made of, in its order: what runs or failed is above what waits. */
const GROUPS = [
  { title: "Running", has: hasStatus("Running", "Stopping"), order: latestFirst },
  { title: "Failed", has: hasStatus("Failed"), order: latestFirst },
  { title: "In the queue", has: waits, order: nextFirst },
  { title: "Succeeded or stopped", has: hasStatus("Succeeded", "Stopped"), order: latestFirst },
].map((group) => ({ ...group, heading: makeHeading() }));

/** The rows by the names of their jobs. */
const rows = new Map();
const jobRows = () => [...$("rows").querySelectorAll("tr.job, tr.batch")];

const isPlaced = (job) => job.queuePosition <= TOLD_PLACES;

// Jobs come in the order of their arrival, which is kept among equals.

function latestFirst(jobs) {
  const times = new Map(jobs.map((job) => [job, moment(job.created)]));
  return jobs.reverse().sort((a, b) => times.get(b) - times.get(a));
}

function nextFirst(jobs) {
  const place = (job) => (isPlaced(job) ? job.queuePosition : MAX_PLACE);
  return jobs.sort((a, b) => place(a) - place(b));
}

function isWanted(job) {
  const words = $("search").value.trim().toLowerCase();
  const statuses = FILTERS[state.filter];
  const text = [job.name, job.jobId, job.message, job.status].join(" ").toLowerCase();
  return (!statuses || statuses.includes(job.status)) && text.includes(words);
}

/** The single jobs that the list is to have. */
const matching = () => [...state.jobs.values()].filter(isWanted);

/** How many jobs there are in these statuses, single or of batches; all for null. */
function countAll(statuses) {
  const jobs = [...state.jobs.values()];
  const singles = statuses ? jobs.filter(hasStatus(...statuses)).length : jobs.length;
  const batches = [...state.batches.values()];
  return batches.reduce((sum, batch) => sum + countOf(batch, statuses || SHARES), singles);
}

let nextDraw = 0;
function drawSoon() {
  if (!document.hidden) nextDraw ||= setTimeout(draw, DRAW_MS);
}

function draw() {
  clearTimeout(nextDraw);
  nextDraw = 0;
  const found = matching();
  const batches = matchingBatches();
  keepFocus(() => {
    drawFilters();
    drawQueue();
    drawSelection(found);
    drawRows(found, batches);
    drawTimeline([...found, ...batches.flatMap(membersOf)]);
    drawDetail();
  });
}

function drawFilters() {
  const group = $("filters");
  if (!group.firstChild) group.append(...Object.keys(FILTERS).map(makeFilter));
  for (const button of group.children) {
    const name = button.dataset.filter;
    const count = countAll(FILTERS[name]);
    setText(button, `${name} ${count}`);
    button.setAttribute("aria-pressed", String(state.filter === name));
    button.classList.toggle("bad", name === "Failed" && count > 0);
  }
}

function makeFilter(name) {
  const button = element("button");
  button.dataset.filter = name;
  button.addEventListener("click", () => {
    state.filter = name;
    draw();
  });
  return button;
}

function drawQueue() {
  const waiting = countAll(["Waiting"]);
  const running = countAll(["Running"]);
  $("queue").hidden = waiting === 0;
  const explained = "Each job says its place, and what it waits for.";
  setText($("queue"), `${waiting} in the queue, ${running} running. ${explained}`);
}

function drawRows(found, batches) {
  const limit = state.filter === "All" ? FEW_ROWS : MANY_ROWS;
  const wanted = rowsOfBatches(batches);
  for (const { title, has, order, heading } of GROUPS) {
    const jobs = order(found.filter(has));
    if (jobs.length === 0) continue;
    const rest = jobs.length - limit;
    const hint = rest > 0 ? `: the first ${limit} are here, search for the others` : "";
    setText(heading.firstChild, `${title} · ${jobs.length}${hint}`);
    wanted.push(heading);
    for (const job of jobs.slice(0, limit)) wanted.push(rowOf(job));
  }
  arrange($("rows"), wanted);
  const kept = new Set(wanted);
  for (const views of [rows, batchRows]) {
    for (const [name, { row }] of views) {
      if (!kept.has(row)) views.delete(name);
    }
  }
  $("jobs").hidden = wanted.length === 0;
  $("empty").hidden = wanted.length > 0 || !state.isKnown;
  const none = "No jobs yet. Start one, here or through the API.";
  setText($("empty"), countAll(null) === 0 ? none : "No job is like this.");
}

/** Puts rows in order, but never moves the one that has the focus: it would lose it. */
function arrange(body, wanted) {
  const kept = new Set(wanted);
  for (const row of [...body.children]) {
    if (!kept.has(row)) row.remove();
  }
  const focused = wanted.find((row) => row.contains(document.activeElement));
  let next = body.firstChild;
  for (const row of wanted) {
    // Whatever still stands before it comes after it, and is moved there in its turn.
    if (row === focused) next = row;
    if (row === next) next = next.nextSibling;
    else body.insertBefore(row, next);
  }
}

function makeHeading() {
  const row = element("tr", "group");
  const cell = element("th");
  cell.colSpan = 6;
  cell.scope = "rowgroup";
  row.append(cell);
  return row;
}

function makeRow(name) {
  const row = element("tr");
  const cells = Array.from({ length: 6 }, () => element("td"));
  const box = element("input");
  box.type = "checkbox";
  box.setAttribute("aria-label", `Select ${name}`);
  box.addEventListener("change", () => select([name], box.checked));
  const badge = element("span", "badge");
  const button = element("button", "name", name);
  const id = element("span", "id");
  const why = element("span", "why");
  const bar = element("progress");
  bar.max = 100;
  bar.setAttribute("aria-label", "Progress");
  const far = element("span", "far");
  cells[0].append(box);
  cells[1].append(badge);
  cells[2].append(button, " ", id, why, bar, far);
  row.append(...cells);
  row.addEventListener("click", (event) => {
    if (!cells[0].contains(event.target)) choose(name);
  });
  return { row, cells, box, badge, button, id, why, bar, far };
}

function rowOf(job) {
  if (!rows.has(job.name)) rows.set(job.name, makeRow(job.name));
  const view = rows.get(job.name);
  const isChosen = state.chosen === job.name;
  const isMember = Boolean(job.batchName);
  const className = `job ${job.status}${isChosen ? " chosen" : ""}${isMember ? " member" : ""}`;
  if (view.row.className !== className) {
    view.row.className = className;
    view.badge.className = "badge " + job.status;
  }
  view.button.setAttribute("aria-pressed", String(isChosen));
  view.box.hidden = isMember;
  // The rest of it is its batch's.
  setText(view.button, isMember ? job.name.slice(job.batchName.length + 1) : job.name);
  view.button.title = job.name;
  view.box.checked = state.selected.has(job.name);
  setText(view.badge, job.status);
  setText(view.id, job.jobId || "");
  const isFar = job.status === "Waiting" && job.queuePosition && !isPlaced(job);
  setText(view.why, isFar ? `not among the first ${TOLD_PLACES} of the queue` : job.message || "");
  const isOnItsWay = Boolean(job.progress) && isUnfinished(job);
  view.bar.hidden = view.far.hidden = !isOnItsWay;
  if (isOnItsWay) {
    view.bar.value = job.progress.percent;
    setText(view.far, progressOf(job));
  }
  setText(view.cells[3], shown(job.created));
  view.cells[3].title = job.created;
  setText(view.cells[4], durationOf(job));
  setText(view.cells[5], exitOf(job));
  return view.row;
}

// Several jobs

function select(names, isSelected) {
  for (const name of names) {
    if (isSelected) state.selected.add(name);
    else state.selected.delete(name);
  }
  draw();
}

const isStoppable = hasStatus("Waiting", "Running");
const selectedJobs = () => [...state.selected].map((name) => state.jobs.get(name));
const namesOf = (jobs) => jobs.map((job) => job.name);

/** Nothing is selected that the list, as it is searched and filtered, has not. */
function drawSelection(found) {
  const names = new Set(namesOf(found));
  state.selected = new Set([...state.selected].filter((name) => names.has(name)));
  const count = state.selected.size;
  const stoppable = selectedJobs().filter(isStoppable).length;
  $("select-all").checked = count > 0 && count === found.length;
  $("select-all").indeterminate = count > 0 && count < found.length;
  const text = count ? `${count} of ${found.length} selected` : `Select all ${found.length}`;
  setText($("select-text"), text);
  enable($("stop-selected"), stoppable > 0);
  enable($("delete-selected"), count > 0);
  setText($("stop-selected"), stoppable ? `Stop ${stoppable}` : "Stop");
  setText($("delete-selected"), count ? `Delete ${count}…` : "Delete…");
  $("several").hidden = state.jobs.size === 0;
}

/** Does one thing to jobs, a few at a time. Says what came of it; gives whether all went well. */
async function actOn(names, method, action, done) {
  const left = [...names];
  const failures = [];
  const work = async () => {
    while (left.length) {
      const name = left.shift();
      try {
        await call(method, pathOf(name, action));
      } catch (error) {
        // What is gone needs nothing done.
        if (error.code === 404 && names.length > 1) continue;
        failures.push(error instanceof TypeError ? NO_ANSWER : `${name}: ${error.message}`);
        if (error instanceof TypeError) left.length = 0;
      }
    }
  };
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, work));
  if (failures.length === 0) {
    tell(names.length === 1 ? `${names[0]} ${done[0]}` : `${names.length} jobs ${done[1]}`);
  } else if (names.length === 1) {
    tellError(failures[0]);
  } else {
    const why = [...new Set(failures)].slice(0, 3).join("; ");
    tellError(`Not all of ${names.length} jobs ${done[1]}: ${why}`);
  }
  return failures.length === 0;
}

const stopJobs = (names) => actOn(names, "POST", "stop", ["stops", "stop"]);

async function deleteJobs(names) {
  const isDone = await actOn(names, "DELETE", "", ["is deleted", "are deleted"]);
  if (isDone && names.includes(state.chosen)) close();
}

/** What is done once it is confirmed. */
let confirmed = () => {};

function ask(text, act) {
  confirmed = act;
  setText($("asker-text"), text);
  $("asker").showModal();
}

function askToDelete(names) {
  const isOne = names.length === 1;
  const what = isOne ? `${names[0]} with its log` : `${names.length} jobs with their logs`;
  const isAnyRunning = names.some((name) => isUnfinished(state.jobs.get(name) || {}));
  const ends = isAnyRunning ? " What has not finished is ended." : "";
  ask(`Delete ${what}?${ends} This cannot be undone.`, () => deleteJobs(names));
}
