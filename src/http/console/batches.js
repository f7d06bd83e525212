// Batches: a row each, which unfolds to its jobs, and the form that starts one.

const BATCHES = "/api/v1/batches";
/** In the order of a batch's bar. */
const SHARES = ["Succeeded", "Failed", "Stopped", "Stopping", "Running", "Waiting"];
const batchPath = (name, action) => `${BATCHES}/${encodeURIComponent(name)}${action || ""}`;

/** Rows by the names of their batches. */
const batchRows = new Map();
/** Those that are unfolded: what was told of their jobs since they were read, and their order. */
const unfolded = new Map();

/** A job of a batch is known while somebody looks at it, or waits for its end. */
function takeMember(job) {
  const view = unfolded.get(job.batchName);
  if (view) {
    view.told.add(job.name);
    // One that does another again has its place.
    if (!view.order.has(job.name)) view.order.set(job.name, view.order.get(job.restartOf));
  }
  if (isLookedAt(job)) state.members.set(job.name, job);
}

const isLookedAt = ({ name, batchName }) =>
  unfolded.has(batchName) || name === state.chosen || state.waits.has(name);

function forgetMembers() {
  for (const [name, job] of state.members) {
    if (!isLookedAt(job)) state.members.delete(name);
  }
}

/** Reads the jobs of a batch that is unfolded. */
async function readMembers(name) {
  const view = { told: new Set(), order: new Map() };
  unfolded.set(name, view);
  try {
    const { jobStatuses } = await call("GET", batchPath(name));
    // It is read once more, or folded.
    if (unfolded.get(name) !== view) return;
    for (const [place, job] of jobStatuses.entries()) {
      view.order.set(job.name, place);
      // What was told of meanwhile is newer.
      if (!view.told.has(job.name) && isLookedAt(job)) state.members.set(job.name, job);
    }
  } catch (error) {
    if (error.code !== 404) tellError(explained(error));
  }
  draw();
}

/** After a list: what has changed of those that are looked at was not told. */
function readAllMembers() {
  state.members.clear();
  for (const name of unfolded.keys()) {
    if (state.batches.has(name)) readMembers(name);
    else unfolded.delete(name);
  }
  findChosen();
}

/** A job that is looked at may be a batch's, of which the list does not tell. */
async function findChosen() {
  const name = state.chosen;
  if (!name || !state.isKnown || jobNamed(name)) return;
  if (!state.batches.has(name.slice(0, name.lastIndexOf("-")))) return;
  try {
    const job = await call("GET", pathOf(name));
    if (job.batchName && !jobNamed(name)) takeMember(job);
    draw();
  } catch {
    // It is gone, as the page says.
  }
}

function fold(name) {
  if (unfolded.delete(name)) forgetMembers();
  else readMembers(name);
  draw();
}

// The rows

const isOver = (batch) => Boolean(batch.ended);
const countOf = (batch, statuses) =>
  statuses.reduce((sum, status) => sum + (batch.jobCounts[status] || 0), 0);

/** The batches that the list is to have, the unfinished ones first. */
function matchingBatches() {
  const words = $("search").value.trim().toLowerCase();
  const statuses = FILTERS[state.filter];
  const found = [...state.batches.values()].filter((batch) => {
    const text = [batch.name, batch.batchId, batch.status].join(" ").toLowerCase();
    const isFound = text.includes(words) || membersOf(batch).length > 0;
    return isFound && (!statuses || countOf(batch, statuses) > 0);
  });
  return latestFirst(found).sort((a, b) => isOver(a) - isOver(b));
}

/** The jobs of an unfolded batch that are wanted, in their order. */
function membersOf({ name }) {
  const order = unfolded.get(name)?.order;
  if (!order) return [];
  const members = [...state.members.values()].filter((job) => job.batchName === name);
  return members.filter(isWanted).sort((a, b) => order.get(a.name) - order.get(b.name));
}

/** A batch in words: how many of its jobs have come how far. */
function summed(batch) {
  const { finished, jobs } = batch.progress;
  const counts = ["Failed", "Stopped", "Stopping", "Running", "Waiting"].flatMap((status) => {
    const count = countOf(batch, [status]);
    return count ? [`${count} ${status.toLowerCase()}`] : [];
  });
  return [`${finished} of ${jobs} finished`, ...counts].join(" · ");
}

function makeBatchRow(name) {
  const row = element("tr", "batch");
  const cells = Array.from({ length: 6 }, () => element("td"));
  const toggle = element("button", "plain");
  toggle.setAttribute("aria-label", `Jobs of ${name}`);
  const badge = element("span", "badge");
  const title = element("button", "name", name);
  const id = element("span", "id");
  const why = element("span", "why");
  const bar = element("div", "share");
  bar.setAttribute("role", "img");
  bar.append(...SHARES.map((status) => element("i", status)));
  const actions = element("div", "actions");
  const action = (text, act, className) => {
    const button = element("button", className || "", text);
    button.addEventListener("click", () => button.ariaDisabled !== "true" && act(name));
    actions.append(button);
    return button;
  };
  const stop = action("Stop", stopBatch);
  const again = action("Restart what failed", restartBatch);
  action("Delete…", askToDeleteBatch, "danger");
  cells[0].append(toggle);
  cells[1].append(badge);
  cells[2].append(title, " ", id, why, bar, actions);
  row.append(...cells);
  row.addEventListener("click", (event) => {
    const isOther = event.target.closest("button") && !toggle.contains(event.target);
    if (!isOther || event.target === title) fold(name);
  });
  return { row, cells, toggle, badge, id, why, bar, actions, stop, again };
}

function batchRow(batch) {
  const { name, status, progress } = batch;
  if (!batchRows.has(name)) batchRows.set(name, makeBatchRow(name));
  const view = batchRows.get(name);
  const isUnfolded = unfolded.has(name);
  view.toggle.setAttribute("aria-expanded", String(isUnfolded));
  setText(view.toggle, isUnfolded ? "▾" : "▸");
  view.badge.className = "badge " + status;
  setText(view.badge, status);
  setText(view.id, batch.batchId || "");
  setText(view.why, summed(batch));
  view.bar.setAttribute("aria-label", summed(batch));
  SHARES.forEach((share, index) => {
    view.bar.children[index].style.flexGrow = countOf(batch, [share]);
  });
  view.actions.hidden = !isUnfolded;
  enable(view.stop, countOf(batch, ["Waiting", "Running"]) > 0);
  enable(view.again, countOf(batch, ["Failed", "Stopped"]) > 0);
  setText(view.cells[3], shown(batch.created));
  view.cells[3].title = batch.created;
  const { started, ended } = timesOf(batch);
  setText(view.cells[4], started ? lasting((ended || now()) - started) : "");
  setText(view.cells[5], `${progress.percent} %`);
  return view.row;
}

/** The rows of batches and of the jobs of those that are unfolded. */
function rowsOfBatches(batches) {
  const wanted = [];
  if (batches.length === 0) return wanted;
  setText(BATCH_HEADING.firstChild, `Batches · ${batches.length}`);
  wanted.push(BATCH_HEADING);
  for (const batch of batches) {
    wanted.push(batchRow(batch));
    const jobs = membersOf(batch);
    wanted.push(...jobs.slice(0, MANY_ROWS).map(rowOf));
    if (jobs.length > MANY_ROWS) {
      const view = batchRows.get(batch.name);
      view.rest ||= makeHeading();
      const rest = `The first ${MANY_ROWS} of ${jobs.length} are here: search for the others`;
      setText(view.rest.firstChild, rest);
      wanted.push(view.rest);
    }
  }
  return wanted;
}

const BATCH_HEADING = makeHeading();

// What is done to one

async function actOnBatch(method, path, said) {
  try {
    await call(method, path);
    tell(said);
  } catch (error) {
    tellError(explained(error));
  }
}

const stopBatch = (name) => actOnBatch("POST", batchPath(name, "/stop"), `${name} stops`);
const restartBatch = (name) =>
  actOnBatch("POST", batchPath(name, "/restart"), `What failed of ${name} runs again`);

function askToDeleteBatch(name) {
  const batch = state.batches.get(name);
  const ends = batch && !isOver(batch) ? " What has not finished is ended." : "";
  const count = batch ? batch.progress.jobs : 0;
  ask(`Delete ${name} with its ${count} jobs and their logs?${ends} This cannot be undone.`, () =>
    actOnBatch("DELETE", batchPath(name), `${name} is deleted`));
}

// The form

/** The last request and its key: see `keyFor`. */
const sentBatch = { text: "", key: "" };

async function batchRequest() {
  const file = $("batch-file").files[0];
  const made = {};
  if (file) Object.assign(made, jsonObject(await textOf(file), file.name));
  const written = $("batch-lines").value.split("\n").filter((line) => line.trim() !== "");
  if (file && written.length) throw new Error("Give a file or lines, not both.");
  if (!file) made.jobScheduleDescriptions = written.map((payload) => ({ payload }));
  if (!file && !written.length) throw new Error("Give at least one line, or a file.");
  if ($("batchId").value) made.batchId = $("batchId").value;
  const priority = number("batch-priority");
  if (priority !== undefined) made.priority = priority;
  const all = $("batch-all").value.trim();
  if (all) made.defaultRadixJobComponentConfig = jsonObject(all, "For all jobs");
  return made;
}

async function submitBatch(event) {
  event.preventDefault();
  const name = await sendForm("batch-", async () => {
    const made = await batchRequest();
    const batch = await call("POST", BATCHES, made, { "Idempotency-Key": keyFor(made, sentBatch) });
    sentBatch.text = "";
    const { jobStatuses, ...summary } = batch;
    if (!state.batches.has(batch.name)) state.batches.set(batch.name, summary);
    tell(`${batch.name} is started, with ${jobStatuses.length} jobs`);
    state.filter = "All";
    $("search").value = "";
    if (!unfolded.has(batch.name)) fold(batch.name);
    return batch.name;
  });
  if (!name) return;
  $("batch-starter").close();
  $("batch-form").reset();
  batchRows.get(name)?.row.scrollIntoView({ block: "nearest" });
}

$("new-batch").addEventListener("click", () => {
  failForm("batch-", "");
  $("batch-starter").showModal();
});
$("batch-cancel").addEventListener("click", () => $("batch-starter").close());
$("batch-form").addEventListener("submit", submitBatch);
