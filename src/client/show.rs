//! Jobs as people read them. Pure.

use crate::columns::aligned;
use crate::job::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A job as a scheduler answers it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobState {
    pub name: String,
    job_id: String,
    created: String,
    started: String,
    ended: String,
    pub status: String,
    message: String,
    result: String,
    result_truncated: bool,
    queue_position: Option<u64>,
    restart: String,
    pub restart_of: Option<String>,
    urls: BTreeMap<String, String>,
    progress: Option<Progress>,
    pod_statuses: Vec<Attempt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    percent: u8,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attempt {
    name: String,
    start_time: String,
    end_time: String,
    exit_code: Option<i64>,
    reason: String,
    status_message: String,
    image: String,
    replica_status: ReplicaStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReplicaStatus {
    status: String,
}

impl JobState {
    /// Whether it comes to nothing more by itself.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "Succeeded" | "Failed" | "Stopped")
    }

    /// How long it took, or has taken.
    fn duration(&self, now: Timestamp) -> Option<i64> {
        let start = Timestamp::parse(&self.started)?;
        let last = self.pod_statuses.iter().map(|a| a.end_time.as_str()).max();
        let end = Timestamp::parse(&self.ended).or_else(|| Timestamp::parse(last?));
        match (self.is_finished(), end) {
            (true, Some(end)) => Some(end.seconds_since(start)),
            (true, None) => None,
            (false, _) => Some(now.seconds_since(start)),
        }
    }

    /// Where it is reached, each with the name of the port.
    fn reached_at(&self) -> String {
        let urls = self.urls.iter();
        let urls: Vec<String> = urls.map(|(name, url)| format!("{url} ({name})")).collect();
        plain(&urls.join(", "))
    }

    /// What the job has left, on one line.
    fn result_line(&self) -> String {
        let result = plain(self.result.trim_end());
        match self.result_truncated {
            true => format!("(only the end of it) {result}"),
            false => result,
        }
    }

    /// What there is to say in a few words beside the status.
    fn note(&self) -> String {
        match self.queue_position {
            Some(position) if self.message.is_empty() => {
                format!("position {position} in the queue")
            }
            Some(position) => format!("position {position} in the queue: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// How far it is, by its own word.
    fn progress(&self) -> String {
        match &self.progress {
            None => String::new(),
            Some(Progress { percent, message }) if message.is_empty() => format!("{percent}%"),
            Some(Progress { percent, message }) => format!("{percent}%: {message}"),
        }
    }

    /// [`Self::note`], or else how far a job is that goes on.
    fn remark(&self) -> String {
        let note = self.note();
        match note.is_empty() && !self.is_finished() {
            true => self.progress(),
            false => note,
        }
    }
}

/// Whether text may have a terminal's colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Colour {
    On,
    Off,
}

impl Colour {
    /// A status in its colour.
    fn status(self, status: &str) -> String {
        let code = match (self, status) {
            (Colour::On, "Succeeded") => "32",
            (Colour::On, "Failed") => "31",
            (Colour::On, "Running") => "36",
            (Colour::On, "Waiting" | "Stopping") => "33",
            _ => return status.to_string(),
        };
        format!("\x1b[{code}m{status}\x1b[0m")
    }
}

/// Seconds as people say them, to two units.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..=59 => format!("{seconds}s"),
        60..=3599 => format!("{minutes}m{}s", seconds % 60),
        3600..=86_399 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// What another program wrote, with nothing in it that could steer a terminal.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// Many jobs, a line each.
pub fn list(jobs: &[JobState], now: Timestamp, colour: Colour) -> String {
    if jobs.is_empty() {
        return "no jobs\n".to_string();
    }
    let header = ["NAME", "STATUS", "AGE", "TOOK", "ID", "MESSAGE"];
    let mut rows = vec![header.map(str::to_string).to_vec()];
    let or_dash = |text: Option<String>| text.unwrap_or("-".to_string());
    for job in jobs {
        let age = Timestamp::parse(&job.created).map(|created| now.seconds_since(created));
        rows.push(vec![
            job.name.clone(),
            colour.status(&job.status),
            or_dash(age.map(duration)),
            or_dash(job.duration(now).map(duration)),
            or_dash(Some(plain(&job.job_id)).filter(|id| !id.is_empty())),
            plain(&job.remark()),
        ]);
    }
    aligned(&rows)
}

/// One job, and its attempts.
pub fn job(job: &JobState, now: Timestamp, colour: Colour) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![format!("{name}:"), value]);
        }
    };
    row("Name", job.name.clone());
    row("Status", colour.status(&job.status));
    row("Message", plain(&job.note()));
    row("Progress", plain(&job.progress()));
    row("URLs", job.reached_at());
    row("Id", plain(&job.job_id));
    row("Created", job.created.clone());
    row("Started", job.started.clone());
    row("Ended", job.ended.clone());
    row("Took", job.duration(now).map(duration).unwrap_or_default());
    row("Result", job.result_line());
    row("Restarted", job.restart.clone());
    row("Repeats", job.restart_of.clone().unwrap_or_default());
    let mut text = aligned(&rows);
    if job.pod_statuses.is_empty() {
        return text;
    }
    let header = [
        "ATTEMPT", "STATUS", "STARTED", "TOOK", "EXIT", "REASON", "IMAGE",
    ];
    let mut rows = vec![header.map(str::to_string).to_vec()];
    for attempt in &job.pod_statuses {
        let start = Timestamp::parse(&attempt.start_time);
        let end = Timestamp::parse(&attempt.end_time);
        let took = start.zip(end).map(|(start, end)| end.seconds_since(start));
        let exit = attempt.exit_code.filter(|_| end.is_some());
        let reason = match attempt.status_message.as_str() {
            "" => attempt.reason.clone(),
            message if attempt.reason.is_empty() => message.to_string(),
            message => format!("{}: {message}", attempt.reason),
        };
        let cells = [
            attempt.name.clone(),
            colour.status(&attempt.replica_status.status),
            attempt.start_time.clone(),
            took.map(duration).unwrap_or_default(),
            exit.map(|code| code.to_string()).unwrap_or_default(),
            plain(&reason),
            plain(&attempt.image),
        ];
        let dash = |cell: String| {
            if cell.is_empty() {
                "-".to_string()
            } else {
                cell
            }
        };
        rows.push(cells.map(dash).to_vec());
    }
    text.push('\n');
    text.push_str(&aligned(&rows));
    text
}

/// Where a job stands, on one line.
pub fn progress(job: &JobState, now: Timestamp, colour: Colour) -> String {
    let mut line = format!("{} {}", job.name, colour.status(&job.status));
    if let Some(seconds) = job.duration(now) {
        let word = if job.is_finished() { "in" } else { "for" };
        let _ = write!(line, " {word} {}", duration(seconds));
    }
    let note = plain(&job.remark());
    if !note.is_empty() {
        let _ = write!(line, ": {note}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Vec<JobState> {
        serde_json::from_str(
            r#"[
              {"name": "compute-1", "jobId": "order\u001b[2J 17", "created": "2026-01-01T10:00:00Z",
               "started": "2026-01-01T10:00:01Z", "ended": "2026-01-01T10:02:06Z", "status": "Succeeded"},
              {"name": "compute-22", "created": "2026-01-01T11:59:00Z", "started": "2026-01-01T11:59:10Z",
               "ended": "", "status": "Failed", "message": "exit code 3", "failed": 1,
               "podStatuses": [{"name": "compute-22-a", "startTime": "2026-01-01T11:59:11Z",
                 "endTime": "2026-01-01T11:59:12Z", "exitCode": 3, "reason": "Error", "image": "i:1",
                 "podIndex": 0, "replicaStatus": {"status": "Failed"}}]},
              {"name": "compute-3", "created": "2026-01-01T11:59:30Z", "started": "", "ended": "",
               "status": "Waiting", "queuePosition": 1, "message": "needs 1 CPU"}
            ]"#,
        )
        .unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-01T12:00:00Z").unwrap()
    }

    #[test]
    fn a_list_is_aligned() {
        let expected = "\
NAME        STATUS     AGE   TOOK  ID            MESSAGE
compute-1   Succeeded  2h0m  2m5s  order [2J 17
compute-22  Failed     1m0s  2s    -             exit code 3
compute-3   Waiting    30s   -     -             position 1 in the queue: needs 1 CPU
";
        assert_eq!(list(&jobs(), now(), Colour::Off), expected);
        assert_eq!(list(&[], now(), Colour::Off), "no jobs\n");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let coloured = list(&jobs(), now(), Colour::On);
        let line = coloured.lines().nth(2).unwrap();
        assert!(line.contains("\x1b[31mFailed\x1b[0m     1m0s"), "{line:?}");
    }

    #[test]
    fn a_job_has_its_attempts() {
        let expected = "\
Name:     compute-22
Status:   Failed
Message:  exit code 3
Created:  2026-01-01T11:59:00Z
Started:  2026-01-01T11:59:10Z
Took:     2s

ATTEMPT       STATUS  STARTED               TOOK  EXIT  REASON  IMAGE
compute-22-a  Failed  2026-01-01T11:59:11Z  1s    3     Error   i:1
";
        assert_eq!(job(&jobs()[1], now(), Colour::Off), expected);
    }

    #[test]
    fn a_job_says_how_far_it_is_while_it_runs() {
        let mut job = JobState {
            name: "a".to_string(),
            status: "Running".to_string(),
            progress: Some(Progress {
                percent: 40,
                message: "epoch 3".to_string(),
            }),
            ..JobState::default()
        };
        assert_eq!(
            progress(&job, now(), Colour::Off),
            "a Running: 40%: epoch 3"
        );
        job.message = "exit code 3".to_string();
        assert_eq!(progress(&job, now(), Colour::Off), "a Running: exit code 3");
        job.status = "Succeeded".to_string();
        job.message.clear();
        assert_eq!(progress(&job, now(), Colour::Off), "a Succeeded");
        let text = super::job(&job, now(), Colour::Off);
        assert!(text.contains("Progress:  40%: epoch 3\n"), "{text}");
    }

    #[test]
    fn a_job_is_reached_at_its_urls() {
        let job = JobState {
            urls: BTreeMap::from(
                [("http", 3000), ("admin", 3001)]
                    .map(|(name, port)| (name.to_string(), format!("http://127.0.0.1:{port}"))),
            ),
            ..JobState::default()
        };
        let text = super::job(&job, now(), Colour::Off);
        let line = "URLs:  http://127.0.0.1:3001 (admin), http://127.0.0.1:3000 (http)\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_jobs_result_is_on_one_line() {
        let check = |result: &str, result_truncated, expected: &str| {
            let job = JobState {
                result: result.to_string(),
                result_truncated,
                ..JobState::default()
            };
            let text = super::job(&job, now(), Colour::Off);
            let line = text.lines().find_map(|line| line.strip_prefix("Result:"));
            assert_eq!(line.unwrap_or_default().trim_start(), expected);
        };
        check("", false, "");
        check("{\"loss\": 0.3}\n", false, "{\"loss\": 0.3}");
        check("a\u{1b}[2J\nb", true, "(only the end of it) a [2J b");
    }

    #[test]
    fn progress_is_one_line() {
        let line = |index: usize| progress(&jobs()[index], now(), Colour::Off);
        assert_eq!(line(0), "compute-1 Succeeded in 2m5s");
        assert_eq!(line(1), "compute-22 Failed in 2s: exit code 3");
        assert_eq!(
            line(2),
            "compute-3 Waiting: position 1 in the queue: needs 1 CPU"
        );
    }

    #[test]
    fn durations_have_two_units() {
        let all = [0, 59, 60, 3599, 3600, 86_399, 86_400, 900_000].map(duration);
        assert_eq!(
            all,
            [
                "0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d0h", "10d10h"
            ]
        );
    }
}
