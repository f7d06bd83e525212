// The timeline: a line per job, on which it waited, ran and ended. The oldest is on top.

/** Jobs that are drawn: the latest. */
const MAX_DRAWN = 500;
const MAX_LINE = 16;
/** Lines of this height have a name. */
const NAMED_LINE = 11;
const AXIS = 20;
/** Beside the lines: on the right, failures are marked there. */
const MARGIN = 10;
const MIN_BAR = 3;
const TICK_WIDTH = 90;
const [SECOND, MINUTE, HOUR, DAY] = [1000, 60000, 3600000, 86400000];
const TICKS = [
  [SECOND, [1, 2, 5, 10, 15, 30]],
  [MINUTE, [1, 2, 5, 10, 15, 30]],
  [HOUR, [1, 2, 3, 6, 12]],
  [DAY, [1, 2, 7, 14, 28, 91, 364]],
].flatMap(([unit, counts]) => counts.map((count) => count * unit));

/** What bars there are, those behind others first. */
const BARS = ["grid-lines", "here", "waited", "Running", "Succeeded", "Stopped", "Failed", "marks"];

/** What is on the picture: its jobs from top to bottom, and the height of a line. */
const drawn = { jobs: [], line: MAX_LINE };

function drawTimeline(found) {
  $("timeline").hidden = found.length === 0;
  if (found.length === 0 || !$("timeline").open) return;
  const width = $("picture").clientWidth;
  if (width === 0) return;
  const span = Number($("span").value);
  const since = span ? now() - span : 0;
  const lines = linesOf(found, since);
  const height = Math.max(120, Math.min(400, innerHeight * 0.45));
  const line = Math.min(MAX_LINE, height / lines.length);
  const from = since || Math.min(...lines.map(({ came }) => came));
  const until = Math.max(from + 10 * SECOND, ...lines.map(({ until }) => until));
  const scale = (width - 2 * MARGIN) / (until - from);
  const x = (time) => MARGIN + (Math.max(from, time) - from) * scale;
  Object.assign(drawn, { jobs: lines.map(({ job }) => job), line });
  $("picture").setAttribute("height", AXIS + Math.max(1, lines.length) * line);
  const ticks = ticksOf(from, until, width, x);
  drawBars(lines, line, x, width, ticks);
  $("labels").replaceChildren(
    ...ticks.map(({ at, text }) => label(at, 12, "tick", text)),
    ...(line < NAMED_LINE ? [] : lines.map((one, index) => nameOf(one, index, line, x, width))),
  );
  describe(lines, found.length, from, until);
}

/** The jobs that were there since a time, the first to come on top. */
function linesOf(found, since) {
  const lines = found.map(lineOf).filter(({ until }) => until >= since);
  const jobs = lines.map(({ job }) => job);
  // What waits is left out first: a long queue leaves room for what runs and ran.
  const others = latestFirst(jobs.filter((job) => !waits(job)));
  const kept = new Set([...others, ...nextFirst(jobs.filter(waits))].slice(0, MAX_DRAWN));
  return lines.filter(({ job }) => kept.has(job)).sort((a, b) => a.came - b.came);
}

function lineOf(job) {
  const { came, started, ended } = timesOf(job);
  const until = ended || (isUnfinished(job) ? now() : started || came);
  return { job, came, started: started && Math.max(came, started), until: Math.max(came, until) };
}

/** Draws all bars of a kind as one path, so that hundreds cost little. */
function drawBars(lines, line, x, width, ticks) {
  const paths = Object.fromEntries(BARS.map((kind) => [kind, ""]));
  const isThin = line < 4;
  const thick = isThin ? line : line - 1;
  // Thin ones overlap a little, or there would be gaps where pixels are rounded.
  const [inset, waitThick] = isThin ? [0, line + 0.1] : [thick / 4, thick / 2];
  const bar = (left, right, top, height) => {
    const length = Math.max(MIN_BAR, right - left).toFixed(1);
    return `M${left.toFixed(1)} ${top.toFixed(2)}h${length}v${height.toFixed(2)}h-${length}z`;
  };
  lines.forEach(({ job, came, started, until }, index) => {
    const top = AXIS + index * line;
    const begin = started || until;
    if (begin > came) paths.waited += bar(x(came), x(begin), top + inset, waitThick);
    const kind = job.status === "Stopping" ? "Running" : job.status;
    if (kind !== "Waiting") paths[kind] += bar(x(begin), x(until), top, thick);
    if (kind === "Failed") paths.marks += `M${width} ${top + thick / 2 - 3}v6l-6 -3z`;
    if (job.name === state.chosen) paths.here = bar(0, width, top - 1, Math.max(3, line + 1));
  });
  paths["grid-lines"] = ticks.map(({ at }) => `M${at.toFixed(1)} ${AXIS - 4}V9999`).join("");
  const bars = BARS.map((kind) => drawing("path", { class: kind, d: paths[kind] }));
  $("bars").replaceChildren(...bars);
}

/** Where the axis has a time, at even ones of the day. */
function ticksOf(from, until, width, x) {
  const most = Math.max(1, Math.floor(width / TICK_WIDTH));
  const step = TICKS.find((step) => (until - from) / step <= most) || TICKS.at(-1);
  const zone = new Date(from).getTimezoneOffset() * MINUTE;
  const form = step >= DAY ? { day: "numeric", month: "short" }
    : { ...CLOCK, second: step < MINUTE ? "2-digit" : undefined };
  const ticks = [];
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= until; time += step) {
    // One at the edge would be cut.
    if (x(time) > 24 && x(time) < width - 32) {
      ticks.push({ at: x(time), text: new Date(time).toLocaleString([], form) });
    }
  }
  return ticks;
}

/** A part of the picture. */
function drawing(tag, attributes) {
  const made = document.createElementNS($("picture").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function label(x, y, className, text) {
  const made = drawing("text", { x, y, class: className });
  made.textContent = text;
  return made;
}

/** A job's id, or the end of its name, beside its bar: on the side that has room. */
function nameOf({ job, came, until }, index, line, x, width) {
  const isLeft = x(until) > width * 0.7 && x(came) > width * 0.3;
  const at = isLeft ? x(came) - 5 : Math.min(x(until) + 5, width * 0.7);
  const text = (job.jobId || job.name.slice(-8)).slice(0, 24);
  return label(at, AXIS + (index + 0.78) * line, isLeft ? "name-left" : "name-right", text);
}

/** The picture in words, for who does not see it. */
function describe(lines, count, from, until) {
  const of = lines.length < count ? ` of ${count}` : "";
  const limit = lines.length === MAX_DRAWN ? ": the latest, and the first of the queue" : "";
  setText($("timeline-count"), `${lines.length}${of} jobs${limit}`);
  const times = [from, until].map(shown).join(" to ");
  const text = `Timeline of ${lines.length} jobs from ${times}; the list has what is on it`;
  $("picture").setAttribute("aria-label", text);
}

/** The job under the pointer. */
function pointedAt(event) {
  const y = event.clientY - $("picture").getBoundingClientRect().top - AXIS;
  return jobNamed(drawn.jobs[Math.floor(y / drawn.line)]?.name);
}

function tellPointed(event) {
  const job = pointedAt(event);
  if (!job) return;
  const [waited, ran] = [waitedOf(job), durationOf(job)];
  const times = [waited && `waited ${waited}`, ran && `ran ${ran}`];
  const parts = [job.name, job.jobId, ...times, job.status, job.message];
  setText($("pointed"), parts.filter(Boolean).join(" · "));
}

$("picture").addEventListener("pointermove", tellPointed);
$("picture").addEventListener("click", (event) => {
  const job = pointedAt(event);
  tellPointed(event);
  if (job) choose(job.name);
});
$("timeline").addEventListener("toggle", () => draw());
$("span").addEventListener("change", () => draw());
new ResizeObserver(() => drawSoon()).observe($("picture"));
