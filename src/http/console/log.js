// The log of the chosen job.

/** What is shown of it: its end. */
const MAX_LOG_LINES = 5000;
const MAX_LOG_CHARS = 1000000;
const LOG_AGAIN_SECONDS = 2;
// What colours a terminal, and what may be the beginning of that at the end of a piece.
const ESCAPES = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g;
const BEGUN = /(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*)?|\r)$/;
const MAX_BEGUN = 4096;

const log = {
  /** Ends the reading. */
  abort: null,
  /** When the job was restarted: with the next restart, it has another log. */
  restart: undefined,
  isWhole: false,
  /** The end of a piece that may be the beginning of an escape. */
  begun: "",
  lines: 0,
  chars: 0,
};

const linesIn = (text) => text.split("\n").length - 1;

function stopLog() {
  log.abort?.abort();
  log.abort = null;
}

function emptyLog() {
  $("log").replaceChildren();
  $("log-cut").hidden = true;
  Object.assign(log, { begun: "", lines: 0, chars: 0 });
}

function addLog(piece) {
  const whole = log.begun + piece;
  log.begun = BEGUN.exec(whole)?.[0] || "";
  // So long an escape is none.
  if (log.begun.length > MAX_BEGUN) log.begun = "";
  const plain = whole.slice(0, whole.length - log.begun.length).replace(ESCAPES, "");
  const text = plain.replace(/\r\n?/g, "\n");
  if (!text) return;
  $("log").append(text);
  log.lines += linesIn(text);
  log.chars += text.length;
  cutLog();
  if ($("follow").checked) $("log").scrollTop = $("log").scrollHeight;
}

/** Takes the beginning away if there is too much, and says so. */
function cutLog() {
  while (log.lines > MAX_LOG_LINES || log.chars > MAX_LOG_CHARS) {
    const first = $("log").firstChild;
    const lines = linesIn(first.data);
    const excess = Math.max(log.lines - MAX_LOG_LINES, log.chars > MAX_LOG_CHARS ? 1 : 0);
    let length = first.length;
    if (lines >= excess) {
      length = 0;
      for (let line = 0; line < excess; line += 1) length = first.data.indexOf("\n", length) + 1;
    }
    log.lines -= Math.min(lines, excess);
    log.chars -= length;
    if (length === first.length) first.remove();
    else first.deleteData(0, length);
    $("log-cut").hidden = false;
  }
}

async function readLog() {
  stopLog();
  const name = state.chosen;
  log.restart = chosenJob()?.restart;
  log.isWhole = false;
  $("download").href = pathOf(name, "logs");
  $("download").download = `${name}.log`;
  if (document.hidden) return;
  const abort = (log.abort = new AbortController());
  emptyLog();
  while (abort === log.abort) {
    const seconds = await readLogOnce(name, abort);
    if (seconds === null) return;
    await pause(seconds * 1000);
  }
}

/** Reads a log to its end. Gives the seconds after which to try again if that is not reached. */
async function readLogOnce(name, abort) {
  const say = (text) => abort === log.abort && setText($("log-state"), text);
  say("reading");
  try {
    // With one line more than is shown, it is known whether there are more.
    const tail = `logs?follow=true&tail=${MAX_LOG_LINES + 1}`;
    const response = await fetch(pathOf(name, tail), { signal: abort.signal });
    if (!response.ok) {
      const { message, code } = await refusal(response);
      say(message);
      const isBusy = code === 429 || code === 503;
      return isBusy ? Number(response.headers.get("Retry-After")) || LOG_AGAIN_SECONDS : null;
    }
    if (abort !== log.abort) return null;
    emptyLog();
    say("following: more comes as it is written");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (abort !== log.abort) return null;
      if (done) break;
      addLog(value);
    }
    log.isWhole = true;
    say($("log").firstChild ? "end of the log" : "the job has written nothing");
    return null;
  } catch (error) {
    if (!(error instanceof TypeError)) {
      say(error.message);
      return null;
    }
    say("the connection broke off: trying again");
    return LOG_AGAIN_SECONDS;
  }
}

onPress("reload", readLog);
