// One job: what is known of it, and what can be done to it.

/** A name, of which jobs have none but letters, digits and hyphens, in the address. */
const nameInAddress = () => /^#([-a-z0-9]{1,63})$/.exec(location.hash)?.[1] || null;

/** Looks at a job, or at none. The browser's way back leads to the one before. */
function choose(name) {
  if (state.chosen === name) return;
  history.pushState(null, "", name ? "#" + name : location.pathname);
  lookAt(name);
  if (name && matchMedia("(max-width: 62rem)").matches) $("detail").scrollIntoView();
}

function lookAt(name) {
  if (state.chosen === name) return;
  stopLog();
  state.chosen = name;
  forgetMembers();
  draw();
  findChosen();
  if (name) readLog();
}

function close() {
  const view = rows.get(state.chosen);
  choose(null);
  (view?.row.isConnected ? view.button : $("new")).focus();
}

function drawDetail() {
  $("detail").hidden = !state.chosen;
  document.querySelector("main").classList.toggle("split", Boolean(state.chosen));
  if (!state.chosen) return;
  const job = chosenJob();
  setText($("job-name"), state.chosen);
  drawActions(job);
  drawStatus(job);
  if (!job) return;
  if (job.restart !== log.restart) readLog();
  drawProgress(job);
  drawResult(job);
  drawFacts($("facts"), [
    ["Job id", job.jobId],
    ["Batch", job.batchName],
    ["Reached at", job.urls],
    ["Created", shown(job.created)],
    ["Waited", waitedOf(job)],
    ["Started", shown(job.started)],
    ["Ended", shown(endOf(job))],
    ["Duration", durationOf(job)],
    ["Exit code", exitOf(job)],
    ["Failed attempts", job.failed === undefined ? "" : String(job.failed)],
    ["Restarted", shown(job.restart)],
    ["Again for", job.restartOf],
  ]);
  drawAttempts(attemptsOf(job));
}

function drawActions(job) {
  const isRunning = Boolean(job) && isUnfinished(job);
  const isAwaited = state.waits.has(state.chosen);
  enable($("wait"), isRunning);
  $("wait").setAttribute("aria-pressed", String(isAwaited));
  setText($("wait"), isAwaited ? "Waiting…" : "Wait for its end");
  enable($("stop"), Boolean(job) && isStoppable(job));
  enable($("restart"), Boolean(job) && !isRunning);
  enable($("again"), Boolean(job));
  // A batch goes as a whole.
  enable($("delete"), Boolean(job) && !job.batchName);
}

function drawStatus(job) {
  const gone = state.isKnown ? "This job is not kept any more." : "";
  const text = job ? job.message || "" : gone;
  $("job-message").hidden = !text;
  $("job-message").className = job?.status === "Failed" ? "message bad" : "message";
  setText($("job-message"), text);
  $("job-status").hidden = !job;
  $("about").hidden = !job;
  if (!job) return;
  $("job-status").className = "badge " + job.status;
  setText($("job-status"), job.status);
}

function drawProgress(job) {
  $("progress").hidden = !job.progress;
  if (!job.progress) return;
  $("progress-bar").value = job.progress.percent;
  setText($("progress-text"), `${progressOf(job)} · said at ${shown(job.progress.updated)}`);
}

function drawResult(job) {
  $("result-part").hidden = !job.result;
  setText($("result"), job.result || "");
  $("result-cut").hidden = !job.resultTruncated;
}

/** Terms and what they are; empty ones are left out. */
function drawFacts(list, pairs) {
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

function drawAttempts(attempts) {
  const wanted = JSON.stringify(attempts);
  const list = $("attempts");
  if (list.dataset.shown === wanted) return;
  list.dataset.shown = wanted;
  list.replaceChildren(...attempts.map(attemptLine));
  if (attempts.length === 0) list.append(element("p", "quiet", "None yet."));
}

function attemptLine(attempt, index, attempts) {
  const line = element("p");
  const status = attempt.replicaStatus.status;
  const exit = attempt.exitCode === undefined ? "" : `exit code ${attempt.exitCode}`;
  // "Error" is what a container runtime calls every exit code but 0.
  const reason = attempt.reason === "Error" ? "" : attempt.reason;
  const why = [exit, reason, attempt.statusMessage].filter(Boolean).join(" · ");
  const times = [shown(attempt.startTime), shown(attempt.endTime)].filter(Boolean).join(" – ");
  line.append(`${index + 1}. `, element("span", "badge " + status, status), ` ${why} `);
  line.append(element("span", "quiet", times));
  // The last one's is the job's.
  if (attempt.result && index < attempts.length - 1) {
    line.append(element("span", "left", `Result: ${attempt.result}`));
  }
  line.title = attempt.name;
  return line;
}

// What is done to it

async function restart() {
  const name = state.chosen;
  try {
    const job = await call("POST", pathOf(name, "restart"));
    tell(`${job.name} runs`);
    // One that runs again under its own name is seen to.
    if (job.name !== name) show(job);
  } catch (error) {
    tellError(explained(error));
  }
}

/** Looks at a job that is new: the answer may be here before the event. */
function show(job) {
  if (!job.batchName && !state.jobs.has(job.name)) state.jobs.set(job.name, job);
  choose(job.name);
}

function wait() {
  if (!state.waits.delete(state.chosen)) state.waits.add(state.chosen);
  draw();
}

onPress("wait", wait);
onPress("stop", () => stopJobs([state.chosen]));
onPress("restart", restart);
onPress("again", startAgain);
onPress("delete", () => askToDelete([state.chosen]));
onPress("close", close);
addEventListener("popstate", () => lookAt(nameInAddress()));
