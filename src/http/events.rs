//! The changes of the jobs as `text/event-stream` has them.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use super::reply::Reply;
use crate::batch::summary::Summary;
use crate::config::StatusRule;
use crate::index::{Changed, Follower};
use crate::job::Timestamp;
use crate::scheduler::JobView;
use crate::sync::Lock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A line that is no event: the reader sees that the connection holds.
pub const COMMENT: &[u8] = b":\n\n";
/// What a stream begins with: a reader that is cut off comes again after so many milliseconds.
pub const RETRY: &[u8] = b"retry: 1000\n\n";

/// Events that are kept for other readers, and the bytes of all of them.
const MAX_MADE: usize = 128;
const MAX_MADE_BYTES: usize = 128 * 1024;

/// The events of one process. Each is made once, for all that read it.
pub struct Events {
    /// Tells an id of this process from another's, whose numbers mean nothing here.
    mark: String,
    made: Lock<Made>,
}

/// By number.
#[derive(Default)]
struct Made {
    events: BTreeMap<u64, Arc<[u8]>>,
    bytes: usize,
}

impl Made {
    fn keep(&mut self, number: u64, event: &Arc<[u8]>) {
        self.bytes += event.len();
        self.events.insert(number, event.clone());
        while self.events.len() > MAX_MADE || self.bytes > MAX_MADE_BYTES {
            let Some((_, oldest)) = self.events.pop_first() else {
                return;
            };
            self.bytes -= oldest.len();
        }
    }
}

impl Events {
    /// `mark` is what no other process has: letters and digits.
    pub fn new(mark: String) -> Events {
        Events {
            mark,
            made: Lock::default(),
        }
    }

    /// The number in a `Last-Event-ID`, if it is one of this process.
    pub fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&self.mark)?.strip_prefix('-')?;
        number.parse().ok()
    }

    /// Puts into `events` what a follower is to be told, at this time and with these names of
    /// batches' statuses, who knows all up to this number, as many as fit without making it larger.
    /// Returns up to which number it knows then; `None` if it has missed something.
    pub fn since(
        &self,
        number: u64,
        follower: &Follower,
        (rules, now): (&[StatusRule], Timestamp),
        events: &mut Vec<Arc<[u8]>>,
    ) -> Option<u64> {
        let mut made = self.made.lock();
        events.clear();
        follower.changed_since(number, events.capacity(), |changed| {
            let event = made.events.get(&changed.number).cloned();
            events.push(event.unwrap_or_else(|| {
                let event = self.make(&changed, rules, now);
                made.keep(changed.number, &event);
                event
            }));
        })
    }

    /// `job` or `batch`, with its state, or `gone`, with its name.
    fn make(&self, changed: &Changed, rules: &[StatusRule], now: Timestamp) -> Arc<[u8]> {
        let (kind, data) = match changed.record {
            Some(whole) if whole.job.batch_whole().is_some() => {
                let jobs = changed.jobs();
                let summary = Summary::of(rules, jobs.iter().map(|job| &**job));
                ("batch", Reply::batch_summary(whole, &summary).body)
            }
            Some(record) => {
                let view = JobView {
                    position: changed.position().or(record.job.rare.position),
                    record: record.clone(),
                };
                ("job", Reply::changed_job(&view, now).body)
            }
            None => ("gone", format!("{{\"name\":\"{}\"}}", changed.name).into()),
        };
        let parts = [self.head(changed.number, kind), data, END.to_vec()];
        parts.concat().into()
    }

    /// What comes before the data of an event, which is one line, and [`END`].
    pub fn head(&self, number: u64, kind: &str) -> Vec<u8> {
        let mark = &self.mark;
        format!("id: {mark}-{number}\nevent: {kind}\ndata: ").into()
    }

    /// The same of an event after which others are to come before a reader knows all.
    pub fn head_without_id(kind: &str) -> Vec<u8> {
        format!("event: {kind}\ndata: ").into()
    }
}

/// What comes after an event's data.
pub const END: &[u8] = b"\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_one_process() {
        let events = Events::new("a1".to_string());
        assert_eq!(events.number("a1-17"), Some(17));
        assert_eq!(events.head(17, "job"), b"id: a1-17\nevent: job\ndata: ");
        for id in [
            "", "17", "a1", "a1-", "a1-x", "a1--1", "a2-17", "a11-7", "ä1-1",
        ] {
            assert_eq!(events.number(id), None, "{id}");
        }
    }

    #[test]
    fn what_is_kept_for_others_is_bounded_by_count_and_bytes() {
        let mut made = Made::default();
        let event = |bytes: usize| vec![b'x'; bytes].into();
        for number in 0..2000 {
            made.keep(number, &event(10));
        }
        assert_eq!((made.events.len(), made.bytes), (MAX_MADE, MAX_MADE * 10));
        made.keep(2000, &event(MAX_MADE_BYTES - 10));
        assert_eq!(made.events.keys().collect::<Vec<_>>(), [&1999, &2000]);
        made.keep(2001, &event(MAX_MADE_BYTES + 1));
        assert_eq!((made.events.len(), made.bytes), (0, 0));
    }
}
