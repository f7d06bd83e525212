//! Every fault at every write of every use case.

use crate::disk::{Fault, Keep};
use crate::world::{Step, World};
use job_scheduler::job::Status;
use std::collections::{BTreeMap, BTreeSet};

/// What is there before, and the steps whose writes are struck.
struct Case {
    name: &'static str,
    before: Vec<Step>,
    act: Vec<Step>,
}

/// What follows the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Then {
    /// The disk heals, and the process goes on.
    Heals,
    /// The process ends and starts on the disk as it is.
    Restarts,
}

type Column = (Fault, Then);

const COLUMNS: [(&str, Column); 15] = [
    ("end-before", (Fault::EndBefore, Then::Restarts)),
    ("end-inside", (Fault::EndInside, Then::Restarts)),
    ("end-after", (Fault::EndAfter, Then::Restarts)),
    (
        "power-before-0",
        (Fault::PowerBefore(Keep::Nothing), Then::Restarts),
    ),
    (
        "power-before-½",
        (Fault::PowerBefore(Keep::Half), Then::Restarts),
    ),
    (
        "power-before-1",
        (Fault::PowerBefore(Keep::All), Then::Restarts),
    ),
    (
        "power-after-0",
        (Fault::PowerAfter(Keep::Nothing), Then::Restarts),
    ),
    (
        "power-after-½",
        (Fault::PowerAfter(Keep::Half), Then::Restarts),
    ),
    ("full", (Fault::Full, Then::Heals)),
    ("full+end", (Fault::Full, Then::Restarts)),
    ("fails", (Fault::Broken, Then::Heals)),
    ("fails+end", (Fault::Broken, Then::Restarts)),
    ("fails-late", (Fault::BrokenAfter, Then::Heals)),
    ("fails-on", (Fault::BrokenOn, Then::Heals)),
    ("fails-late-on", (Fault::BrokenAfterOn, Then::Heals)),
];

const SUBMIT_BATCH: Step = Step::SubmitBatch { key: false };

fn submit() -> Step {
    Step::Submit {
        key: false,
        payload: None,
        backoff: 0,
    }
}

fn with_payload(key: bool) -> Step {
    Step::Submit {
        key,
        payload: Some(60),
        backoff: 0,
    }
}

fn cases() -> Vec<Case> {
    use Step::{Delete, Exit, Pass, Report, Restart, Settle, Stop};
    let case = |name, before: &[Step], act: &[Step]| Case {
        name,
        before: before.to_vec(),
        act: act.to_vec(),
    };
    let three = [submit(), submit(), with_payload(true), Settle];
    let finished = [with_payload(false), Settle, Exit(0, 0), Settle];
    let stopped = [with_payload(false), Settle, Stop(0), Settle];
    let retries = Step::Submit {
        key: false,
        payload: Some(10),
        backoff: 2,
    };
    vec![
        case("submit", &[], &[submit(), Settle]),
        case("submit, payload", &[], &[with_payload(false), Settle]),
        case("submit, key", &[], &[with_payload(true), Settle]),
        case(
            "submit, sent again",
            &[with_payload(true), Settle],
            &[Step::Resend(0), Settle],
        ),
        case(
            "submit, waits",
            &[submit(), submit(), Settle],
            &[with_payload(true), Settle],
        ),
        case("job ends", &[submit(), Settle], &[Exit(0, 0), Settle]),
        case("job ends, next begins", &three, &[Exit(0, 0), Settle]),
        case(
            "job fails and is retried",
            &[retries.clone(), Settle],
            &[
                Exit(0, 1),
                Settle,
                Pass(2),
                Exit(0, 1),
                Settle,
                Pass(3),
                Exit(0, 0),
                Settle,
            ],
        ),
        case("time limit", &[submit(), Settle], &[Pass(101)]),
        case("stop, running", &three, &[Stop(0), Settle]),
        case("stop, waiting", &three, &[Stop(2), Settle]),
        case(
            "stop, before a retry",
            &[retries.clone(), Settle, Exit(0, 1), Settle],
            &[Stop(0), Settle, Pass(5)],
        ),
        case(
            "stop, before a retry, restart",
            &[retries, Settle, Exit(0, 1), Settle],
            &[Stop(0), Restart(0), Settle, Pass(5), Exit(0, 0), Settle],
        ),
        case(
            "progress, kept now and then",
            &[submit(), Settle],
            &[Report(0), Pass(11), Report(0), Pass(11)],
        ),
        case(
            "progress, kept at the end",
            &[submit(), Settle],
            &[Report(0), Exit(0, 0), Settle],
        ),
        case(
            "progress, stop, restart",
            &[submit(), Settle, Report(0), Pass(11)],
            // It takes its time to end.
            &[Report(0), Stop(0), Pass(6), Restart(0), Settle],
        ),
        case("stop all", &three, &[Step::StopAll, Settle]),
        case("restart, stopped", &stopped, &[Restart(0), Settle]),
        case(
            "restart, stopped, waits",
            &[&stopped[..], &[submit(), submit(), Settle]].concat(),
            &[Restart(0), Settle],
        ),
        case("restart, finished", &finished, &[Restart(0), Settle]),
        case("delete, running", &three, &[Delete(0), Settle]),
        case("delete, waiting", &three, &[Delete(2), Settle]),
        case("delete, finished", &finished, &[Delete(0), Settle]),
        case(
            "delete, first attempt never ran",
            &[
                submit(),
                Stop(0),
                Settle,
                Restart(0),
                Settle,
                Exit(0, 0),
                Settle,
            ],
            &[Delete(0), Settle],
        ),
        case(
            "delete, hidden first",
            &finished,
            &[Step::During(1, Box::new(Delete(0))), Restart(0), Settle],
        ),
        case(
            "retention",
            &[
                &finished[..],
                &[submit(), Settle, Exit(1, 0), Settle, submit(), Settle],
            ]
            .concat(),
            &[Exit(2, 0), Settle],
        ),
        case(
            "retention, clock set back",
            &[
                &finished[..],
                &[submit(), Settle, Exit(1, 0), Settle, submit(), Settle],
                &[Step::SetBack(60)],
            ]
            .concat(),
            &[Exit(2, 0), Settle],
        ),
        case(
            "start",
            &[&three[..], &[Exit(0, 0), Settle, Step::End]].concat(),
            &[Step::Start, Settle],
        ),
        case(
            "start, after a power cut",
            &[
                &three[..],
                &[
                    Step::Arm(1, Fault::PowerAfter(Keep::All)),
                    submit(),
                    Step::Litter,
                ],
            ]
            .concat(),
            &[Step::Start, Settle],
        ),
        case("shut down", &three, &[Step::ShutDown]),
        case("submit a batch", &[], &[SUBMIT_BATCH, Settle]),
        case(
            "submit a batch with a key, and again",
            &[],
            &[Step::SubmitBatch { key: true }, Step::ResendBatch, Settle],
        ),
        case(
            "resend a batch after its end",
            &[
                Step::SubmitBatch { key: true },
                Settle,
                Exit(0, 0),
                Exit(1, 0),
                Settle,
                Step::End,
                Step::Start,
            ],
            &[Step::ResendBatch, Settle],
        ),
        case(
            "restart a batch",
            &[
                SUBMIT_BATCH,
                Settle,
                Exit(0, 3),
                Settle,
                Step::StopBatch,
                Settle,
            ],
            &[Step::RestartBatch, Settle],
        ),
        case(
            "submit a batch, waits",
            &[submit(), Settle],
            &[SUBMIT_BATCH, Settle],
        ),
        case(
            "a batch ends",
            &[SUBMIT_BATCH, Settle],
            &[Exit(0, 0), Settle, Exit(1, 0), Settle],
        ),
        case(
            "stop a batch",
            &[SUBMIT_BATCH, Settle],
            &[Step::StopBatch, Settle],
        ),
        case(
            "delete a batch",
            &[submit(), SUBMIT_BATCH, Settle],
            &[Step::DeleteBatch, Settle],
        ),
    ]
}

/// The operations of a case, without a fault.
fn operations(case: &Case) -> (Vec<String>, Vec<String>) {
    let mut world = World::new(1);
    case.before.iter().for_each(|step| world.step(step));
    world.disk.arm(0, None);
    case.act.iter().for_each(|step| world.step(step));
    let (operations, _) = world.disk.operations();
    world.finish();
    (operations, world.oracle.violations())
}

/// What comes of a fault at an operation; `None` if it cannot strike there.
fn run(case: &Case, at: usize, (fault, then): Column) -> Option<World> {
    let mut world = World::new(1);
    case.before.iter().for_each(|step| world.step(step));
    world.step(&Step::Arm(at, fault));
    case.act.iter().for_each(|step| world.step(step));
    // It may have waited for a later operation, if it cannot strike this one.
    if world.disk.operations().1 != Some(at) {
        return None;
    }
    if then == Then::Restarts {
        world.step(&Step::End);
        world.step(&Step::Start);
    }
    world.step(&Step::Pass(3));
    world.step(&Step::Heal);
    world.step(&Step::Pass(3));
    for request in 0..4 {
        world.step(&Step::Resend(request));
    }
    world.finish();
    Some(world)
}

/// There is room to write down how a job ended, and none for the payload of another that is to be
/// started: the one does not wait for the other.
fn end_on_a_full_disk() -> Option<String> {
    let mut world = World::new(1);
    let large = Step::Submit {
        key: false,
        payload: Some(500),
        backoff: 0,
    };
    let begun = [submit(), Step::Settle, large, Step::Fill(450), Step::Settle];
    let ended = [Step::Exit(0, 0), Step::Settle, Step::Pass(3)];
    begun.iter().chain(&ended).for_each(|step| world.step(step));
    let last = world.oracle.job(0).and_then(|job| world.oracle.last(&job));
    let is_told = last == Some(Status::Succeeded);
    world.finish();
    let violated = world.oracle.violations().into_iter().next();
    let untold = (!is_told).then(|| format!("it has ended, and is {last:?}"));
    let what = untold.or(violated)?;
    Some(format!("end on a full disk: {what}"))
}

/// Runs all, prints what was covered, and gives the number of cells that failed.
pub fn enumerate() -> usize {
    let (mut cells, mut failures) = (0, Vec::new());
    let mut rows: Vec<(String, BTreeMap<usize, bool>)> = Vec::new();
    for case in cases() {
        let (operations, violations) = operations(&case);
        if let Some(what) = violations.first() {
            failures.push(format!("{}: without a fault: {what}", case.name));
        }
        for (at, operation) in operations.iter().enumerate() {
            let mut row = BTreeMap::new();
            for (column, (title, fault)) in COLUMNS.iter().enumerate() {
                let Some(world) = run(&case, at, *fault) else {
                    continue;
                };
                cells += 1;
                let violations = world.oracle.violations();
                row.insert(column, violations.is_empty());
                if let Some(what) = violations.first() {
                    failures.push(format!("{}: {operation}: {title}: {what}", case.name));
                    if std::env::var("HISTORY")
                        .is_ok_and(|wanted| failures.len().to_string() == wanted)
                    {
                        println!("{}", world.oracle.log().join("\n"));
                    }
                }
            }
            rows.push((format!("{}: {operation}", case.name), row));
        }
    }
    if let Some(what) = end_on_a_full_disk() {
        failures.push(what);
    }
    print_table(&rows);
    let kinds: BTreeSet<&str> = failures
        .iter()
        .filter_map(|text| text.split(": ").next())
        .collect();
    println!(
        "{} writes of {} use cases, {cells} cells run, {} failed in {} use cases",
        rows.len(),
        cases().len(),
        failures.len(),
        kinds.len()
    );
    for (number, failure) in (1..).zip(&failures) {
        println!("{number}: {failure}");
    }
    failures.len()
}

fn print_table(rows: &[(String, BTreeMap<usize, bool>)]) {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let titles = COLUMNS.map(|(title, _)| title);
    println!("{:width$}  {}", "use case: write", titles.join(" "));
    for (name, row) in rows {
        let cells = titles.iter().enumerate().map(|(column, title)| {
            let mark = match row.get(&column) {
                None => "-",
                Some(true) => "ok",
                Some(false) => "FAIL",
            };
            format!("{mark:0$}", title.chars().count())
        });
        let cells: Vec<String> = cells.collect();
        println!("{name:width$}  {}", cells.join(" "));
    }
}
