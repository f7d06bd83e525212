// The form that starts a job.

const MAX_PAYLOAD = 1048576;
const MAX_REMEMBERED = 200;
const PAYLOAD = ["payload", "file"];

/** The text of the chosen file. */
let filePayload = null;
/** What the form had for jobs that were started here, but their payloads, by their names. */
const remembered = new Map();

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
    if (size > MAX_PAYLOAD) {
      throw new Error(`The payload has ${size} bytes, and may have ${MAX_PAYLOAD}.`);
    }
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
  return Object.assign(made, otherFields());
}

function otherFields() {
  const text = $("other").value.trim();
  return text ? jsonObject(text, "Any other field") : {};
}

/** What a text in JSON has, which is called so where it is none. */
function jsonObject(text, name) {
  let fields;
  try {
    fields = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: ${error.message}.`);
  }
  if (!fields || typeof fields !== "object" || Array.isArray(fields)) {
    throw new Error(`${name}: give an object, such as {"node": {"gpu": "v100"}}.`);
  }
  return fields;
}

/** The last request and its key: sent again after a lost answer, it is the same job. */
const sent = { text: "", key: "" };

function keyFor(made, sent) {
  const text = JSON.stringify(made);
  if (text !== sent.text) {
    const bytes = Array.from(crypto.getRandomValues(new Uint8Array(16)));
    sent.key = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    sent.text = text;
  }
  return sent.key;
}

/** Says in a form what is wrong, or nothing. The ids of its parts begin with `prefix`. */
function failForm(prefix, message) {
  const line = $(prefix + "form-error");
  line.hidden = !message;
  setText(line, message);
  if (message) line.scrollIntoView({ block: "nearest" });
}

let isSending = false;
/** Sends a form, once at a time. Gives what `send` does, if all went well. */
async function sendForm(prefix, send) {
  if (isSending) return undefined;
  isSending = true;
  enable($(prefix + "submit"), false);
  failForm(prefix, "");
  try {
    return await send();
  } catch (error) {
    const isLost = error instanceof TypeError;
    failForm(prefix, isLost ? "The scheduler does not answer." : error.message);
    return undefined;
  } finally {
    isSending = false;
    enable($(prefix + "submit"), true);
  }
}

async function submit(event) {
  event.preventDefault();
  const job = await sendForm("", async () => {
    const made = request();
    const job = await call("POST", JOBS, made, { "Idempotency-Key": keyFor(made, sent) });
    sent.text = "";
    return job;
  });
  if (!job) return;
  remember(job.name);
  $("starter").close();
  emptyForm();
  tell(`${job.name} is started`);
  state.filter = "All";
  $("search").value = "";
  show(job);
  draw();
  $("detail").focus({ preventScroll: true });
}

/** Takes the chosen file's text, which must be UTF-8: a payload is text in JSON. */
async function readFile() {
  const file = $("file").files[0];
  filePayload = null;
  $("payload").disabled = false;
  setText($("payload-size"), "");
  if (!file) return;
  failForm("", "");
  try {
    if (file.size > MAX_PAYLOAD) {
      const limit = `a payload may have ${MAX_PAYLOAD}`;
      throw new Error(`${file.name} has ${file.size} bytes, and ${limit}.`);
    }
    filePayload = await textOf(file);
    $("payload").disabled = true;
    setText($("payload-size"), `${file.size} bytes`);
  } catch (error) {
    $("file").value = "";
    failForm("", error.message);
  }
}

async function textOf(file) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const bytes = await file.arrayBuffer();
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Error(`${file.name} is not text in UTF-8: encode it, such as in base64.`);
  }
}

function emptyForm() {
  $("form").reset();
  $("again-note").hidden = true;
  readFile();
}

function openForm() {
  failForm("", "");
  $("starter").showModal();
  ($("payload-part").hidden ? $("jobId") : $("payload")).focus();
}

// Once more, with changes

function remember(name) {
  const fields = [...$("form").elements].filter(({ id, value }) => value && !PAYLOAD.includes(id));
  remembered.set(name, fields.map(({ id, value }) => [id, value]));
  if (remembered.size > MAX_REMEMBERED) remembered.delete(remembered.keys().next().value);
}

/** Opens the form with what is known of a job's settings. */
function startAgain() {
  const job = chosenJob();
  const known = remembered.get(job.name) || remembered.get(job.restartOf);
  const values = known || toldOf(job);
  emptyForm();
  for (const [id, value] of values) $(id).value = value;
  $("more").open = values.some(([id]) => $("more").contains($(id)));
  $("again-note").hidden = false;
  setText($("again-note"), known
    ? `As ${job.name} was started from this page, but for its payload: give that again.`
    : `The scheduler tells no more of ${job.name} than its job id and image. All else, such as its `
      + "payload, command or variables, is as configured unless you give it again.");
  openForm();
}

/** The settings that the API has of a job: it tells no other. */
function toldOf(job) {
  const image = attemptsOf(job).at(-1)?.image || "";
  const configured = state.component?.image || "";
  // A container runtime puts the registry's name before an image's that has none.
  const isConfigured = configured && (image === configured || image.endsWith("/" + configured));
  return [["jobId", job.jobId], ["image", isConfigured ? "" : image]].filter(([, value]) => value);
}

$("new").addEventListener("click", () => {
  if (!$("again-note").hidden) emptyForm();
  openForm();
});
$("cancel").addEventListener("click", () => $("starter").close());
$("form").addEventListener("submit", submit);
$("file").addEventListener("change", readFile);
