// What the scheduler tells of its jobs, as it happens.

/** A scheduler that hangs closes nothing, so it is asked for a sign of life. */
const HEALTH_EVERY_MS = 1500;
const HEALTH_PATIENCE_MS = 2500;
/** The stream has a comment every 15 s: one that is silent for so long is broken. */
const SILENCE_MS = 40000;
const AGAIN_MS = 500;

/** Ends the stream that is read. */
let stream = null;
/** The id of the last event: who comes again with it is told what they missed. */
let lastEvent = "";
/** When something came through the stream. */
let heardAt = 0;

/**
 * A browser has few connections to a host, over all its tabs: a page that nobody looks at keeps
 * none, unless it waits for a job's end.
 */
const isFollowing = () => !document.hidden || state.waits.size > 0;

async function follow() {
  for (;;) {
    if (isFollowing()) await readEvents();
    await pause(AGAIN_MS);
  }
}

/** Ends the stream. Another follows if somebody looks. */
function stopFollowing() {
  stream?.abort();
}

async function readEvents() {
  stream = new AbortController();
  heardAt = performance.now();
  try {
    const headers = lastEvent ? { "Last-Event-ID": lastEvent } : {};
    const response = await fetch("/api/v1/events", { headers, signal: stream.signal });
    if (!response.ok) throw await refusal(response);
    found();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heardAt = performance.now();
      text = takeEvents(text + value);
    }
  } catch (error) {
    if (error.name !== "AbortError") lost(explained(error));
  }
}

/** Takes the events in a text that are whole. Gives the rest. */
function takeEvents(text) {
  const events = text.split("\n\n");
  const rest = events.pop();
  for (const event of events) takeEvent(event);
  return rest;
}

function takeEvent(event) {
  const fields = {};
  for (const line of event.split("\n")) {
    const [, field, value] = /^(\w+): ?(.*)$/.exec(line) || [];
    if (field) fields[field] = value;
  }
  const take = TAKES[fields.event];
  if (!take) return;
  take(JSON.parse(fields.data));
  lastEvent = fields.id || lastEvent;
  tellOfEnds();
  drawSoon();
}

const byName = (list) => new Map(list.map((one) => [one.name, one]));

const TAKES = {
  batches(batches) {
    state.batches = byName(batches);
  },
  list(jobs) {
    state.jobs = byName(jobs);
    state.isKnown = true;
    readAllMembers();
  },
  job(job) {
    if (job.batchName) takeMember(job);
    else state.jobs.set(job.name, job);
  },
  batch(batch) {
    state.batches.set(batch.name, batch);
  },
  gone({ name }) {
    for (const all of [state.jobs, state.batches, state.members]) all.delete(name);
    unfolded.delete(name);
  },
};

/** Notices within 4 s that the scheduler does not answer, and at once that it does again. */
async function watchHealth() {
  for (;;) {
    await pause(state.lostAt ? AGAIN_MS : HEALTH_EVERY_MS);
    if (!isFollowing()) {
      stopFollowing();
      continue;
    }
    try {
      await fetch("/health/live", { signal: AbortSignal.timeout(HEALTH_PATIENCE_MS) });
      if (performance.now() - heardAt > SILENCE_MS) stopFollowing();
    } catch {
      lost(NO_ANSWER);
      // It may never come back to life: another is asked for, and answered as soon as one can be.
      stopFollowing();
    }
  }
}

function lost(why) {
  state.lostAt ||= Date.now();
  $("link").className = "link off";
  setText($("link-text"), `${why}: this is how it was at ${clock.format(state.lostAt)}`);
  drawSoon();
}

function found() {
  const wasLost = state.lostAt > 0;
  state.lostAt = 0;
  $("link").className = "link on";
  setText($("link-text"), "live");
  // It may be another one.
  readComponent().catch(() => {});
  if (wasLost && state.chosen && !log.isWhole) readLog();
}

/** Says which of the jobs that are waited for have ended: in the title too, for other tabs. */
function tellOfEnds() {
  for (const name of state.waits) {
    const job = jobNamed(name);
    if (job && isUnfinished(job)) continue;
    state.waits.delete(name);
    const end = job ? [job.status, job.message].filter(Boolean).join(", ") : "deleted";
    const text = `${(job && job.jobId) || name}: ${end}`;
    message($("news"), text);
    if (document.hidden) document.title = text;
  }
}
