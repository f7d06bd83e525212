// What the component is configured to, and how all of it begins.

function listed(map) {
  return Object.entries(map || {}).map(([name, value]) => `${name}=${value}`).join("\n");
}

/** While nobody looks, the title may say that a job has ended. */
function title() {
  if (!state.component || document.hidden) return;
  document.title = `${state.component.name} · job-scheduler`;
}

/** A rule of the failure policy in words. */
function ruled({ action, onExitCodes: { operator, values } }) {
  const does = { FailJob: "fails at once", Ignore: "does not count", Count: "counts" }[action];
  return `exit code ${operator === "In" ? "" : "other than "}${values.join(", ")}: ${does}`;
}

/** A rule of a batch's status in words. */
function called({ condition, operator, jobStatuses, batchStatus }) {
  const jobs = `${condition.toLowerCase()} ${operator === "In" ? "" : "not "}${jobStatuses.join(", ")}`;
  return `${batchStatus}: ${jobs}`;
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
  drawConfiguration(component);
  drawSiblings(component);
}

function drawConfiguration(component) {
  const { requests, limits } = component.resources || {};
  const { running, waiting, history } = component.limits;
  const isMovable = component.safeToRestart;
  const timeLimit = component.timeLimitSeconds;
  const inCode = ([term, text]) => [term, text, "code"];
  drawFacts($("configuration"), [
    ...[
      ["Image", component.image],
      ["Image tag", component.imageTagName],
      ["Command", (component.command || []).join("\n")],
      ["Arguments", (component.args || []).join("\n")],
      ["Payload", component.payloadPath ? `${component.payloadPath}/payload` : "none taken"],
      ["Variables", listed(component.variables)],
      ["Secrets, by name", component.secrets.join("\n")],
      ["Requests", listed(requests)],
      ["Limits", listed(limits)],
      ["Node", listed(component.node)],
      ["Runtime", listed(component.runtime)],
      ["Ports", listed(component.ports)],
      ["Volumes", component.volumeMounts.map(volume).join("\n")],
    ].map(inCode),
    ["Run as user", component.runAsUser === undefined ? "" : String(component.runAsUser)],
    ["Root file system", component.readOnlyFileSystem ? "read-only" : ""],
    ["Time limit", timeLimit ? `${timeLimit} s` : "43200 s, the default"],
    ["Attempts", String((component.backoffLimit || 0) + 1)],
    ["Failure policy", (component.failurePolicy?.rules || []).map(ruled).join("\n")],
    ["May be moved", isMovable === undefined ? "" : isMovable ? "yes" : "no"],
    ["Batches are called", component.batchStatusRules.map(called).join("\n")],
    ["Jobs at once", running ? `${running}, and ${waiting} in the queue` : "as there is room for"],
    ["Kept", `the latest ${history} that succeeded, that failed and that were stopped, each`],
  ]);
}

function drawSiblings({ name, siblings }) {
  $("siblings").hidden = siblings.length < 2;
  $("siblings").replaceChildren(...siblings.map((sibling) => {
    const link = element("a", "", sibling.name);
    const url = new URL(sibling.url);
    if (["0.0.0.0", "[::]"].includes(url.hostname)) url.hostname = location.hostname;
    link.href = url.href;
    if (sibling.name === name) link.setAttribute("aria-current", "page");
    return link;
  }));
}

$("search").addEventListener("input", draw);
$("select-all").addEventListener("change", (event) =>
  select(namesOf(matching()), event.target.checked));
onPress("stop-selected", () => stopJobs(namesOf(selectedJobs().filter(isStoppable))));
onPress("delete-selected", () => askToDelete([...state.selected]));
$("asker-no").addEventListener("click", () => $("asker").close());
$("asker-yes").addEventListener("click", () => {
  $("asker").close();
  confirmed();
});
$("skip").addEventListener("click", (event) => {
  // The address has the job that is looked at.
  event.preventDefault();
  $("jobs").focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stopLog();
    if (!isFollowing()) stopFollowing();
    return;
  }
  title();
  draw();
  if (state.chosen && !log.isWhole) readLog();
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
  if (event.key === "Escape" && state.chosen && !isTyping) close();
});
// Times go on, also where nothing happens.
setInterval(() => state.isKnown && drawSoon(), 1000);
lookAt(nameInAddress());
follow();
watchHealth();
