//! A batch on disk: its jobs' records, then its own, whose name in the folder makes all of it there.
//! Jobs without it are removed at the next start.

use super::admission::Amount;
use super::machine::{Machine, RunningPart, seconds};
use super::store::{Batch, FORMAT, Header, Key, NotWritten, Record};
use super::supervisor::Event;
use super::table::{Entry, not_written};
use super::work::Work;
use crate::backend::{
    BackendError, Condition, CreateError, Created, CreatedBatch, NewBatch, NewJob, Resend,
};
use crate::job::{Job, JobName};

impl Machine {
    /// Creates a batch: on return all of it is on disk, and its jobs wait for their turn.
    pub(super) fn create_batch(
        &self,
        number: usize,
        part: &RunningPart,
        new: &NewBatch,
        resend: Resend,
    ) -> Result<CreatedBatch, CreateError> {
        let _turn = self.turn(&new.name).map_err(CreateError::Nothing)?;
        if let Some(known) = self.known_batch(number, new) {
            return match resend {
                Resend::Again => Ok(known),
                Resend::First => Err(CreateError::NameTaken),
            };
        }
        self.check_batch(new)?;
        let nothing = || BackendError::Invalid {
            message: "a batch without a job".to_string(),
        };
        let headers = self.headers(new);
        let (whole, headers) = headers.ok_or_else(|| CreateError::Nothing(nothing()))?;
        if let Err(error) = write_batch(part, new, &whole, &headers) {
            let in_doubt = error.in_doubt;
            match in_doubt {
                // As long as its own record may be there, so are its jobs'.
                true => {
                    let jobs = new.jobs.iter().map(|job| &job.name);
                    self.disown(number, part, [&new.name].into_iter().chain(jobs));
                }
                false => {
                    let jobs = new.jobs.iter().map(|job| &job.name);
                    let left = jobs.filter(|name| part.store.remove(name).is_err());
                    self.disown(number, part, left);
                }
            }
            let error = not_written(error);
            return Err(match in_doubt {
                true => CreateError::Unanswered(error),
                false => CreateError::Nothing(error),
            });
        }
        let mut table = self.table.lock();
        let entry = Entry::new(number, Record::new(whole));
        let job = entry.job(&new.name, self.next_version());
        table.jobs.insert(new.name.clone(), entry);
        let mut jobs = Vec::with_capacity(new.jobs.len());
        for (one, header) in new.jobs.iter().zip(headers) {
            let mut entry = Entry::new(number, Record::new(header));
            let (queued, need) = (entry.record.queued, entry.record.header.work.need());
            let place = table.admission.wait(queued, one.name.clone(), need);
            entry.place = Some(place);
            jobs.push(Created {
                job: entry.job(&one.name, self.next_version()),
                may_come_again: false,
            });
            table.jobs.insert(one.name.clone(), entry);
        }
        drop(table);
        self.send(Event::QueueChanged);
        Ok(CreatedBatch {
            whole: job,
            jobs,
            may_come_again: false,
        })
    }

    /// Records that may be there are removed once the disk lets them be, unless their request comes
    /// again.
    fn disown<'a>(
        &self,
        part: usize,
        of: &RunningPart,
        names: impl IntoIterator<Item = &'a JobName>,
    ) {
        for name in names {
            of.store.disown(name);
            self.send(Event::NotCreated {
                part,
                name: name.clone(),
                in_doubt: true,
            });
        }
    }

    /// The batch as it is, if it is there.
    fn known_batch(&self, number: usize, new: &NewBatch) -> Option<CreatedBatch> {
        let whole = self.look(number, &new.name).ok()?;
        let jobs = new.jobs.iter();
        let jobs = jobs.filter_map(|job| {
            Some(Created {
                job: self.look(number, &job.name).ok()?,
                may_come_again: false,
            })
        });
        Some(CreatedBatch {
            jobs: jobs.collect(),
            whole,
            may_come_again: false,
        })
    }

    /// Whether each of its jobs could run here.
    fn check_batch(&self, new: &NewBatch) -> Result<(), CreateError> {
        let table = self.table.lock();
        let capacity = table.admission.capacity();
        for (index, job) in new.jobs.iter().enumerate() {
            let wrong = match job.settings.command.as_ref().is_none_or(Vec::is_empty) {
                true => Err(BackendError::Invalid {
                    message:
                        "command: is missing: a job of this machine has no image to take it from"
                            .to_string(),
                }),
                false => table.check(Amount::of(job.settings, capacity)),
            };
            wrong.map_err(|error| {
                CreateError::Nothing(match error {
                    BackendError::Invalid { message } => BackendError::Invalid {
                        message: format!("jobScheduleDescriptions[{index}]: {message}"),
                    },
                    error => error,
                })
            })?;
        }
        Ok(())
    }

    /// The header of its own record, and those of its jobs'.
    fn headers(&self, new: &NewBatch) -> Option<(Header, Vec<Header>)> {
        let capacity = self.table.lock().admission.capacity();
        let header = |name: &JobName, job: &NewJob, batch: Batch| {
            let arrival = self.moment();
            Header {
                version: FORMAT,
                name: name.to_string(),
                job_id: job.job_id.map(str::to_string),
                created: seconds(arrival),
                priority: job.priority,
                arrival,
                key: None,
                restart_of: None,
                payload: job.payload.map(|payload| payload.len() as u64),
                work: Work::of(job, Amount::of(job.settings, capacity)),
                batch: Some(batch),
            }
        };
        // It has the form of a job's, and none of its work. It comes before its jobs.
        let size = u32::try_from(new.jobs.len()).unwrap_or(u32::MAX);
        let first = header(&new.name, new.jobs.first()?, Batch::Whole { size });
        let whole = Header {
            job_id: new.batch_id.map(str::to_string),
            key: new.key.map(Key::from),
            payload: None,
            ..first
        };
        let member = |(index, job): (u32, &NewJob)| {
            let of = new.name.to_string();
            header(&job.name, job, Batch::Member { of, index })
        };
        Some((whole, (0..).zip(new.jobs).map(member).collect()))
    }

    /// Deletes a batch with its jobs, which are ended if they run.
    pub(super) fn delete_batch(
        &self,
        number: usize,
        part: &RunningPart,
        whole: &Job,
        condition: Condition,
    ) -> Result<bool, BackendError> {
        let removed = self.delete(number, part, whole, condition);
        if part.store.has(&whole.name) {
            return removed;
        }
        // From here on its jobs are nobody's, whatever fails.
        let table = self.table.lock();
        let jobs = table.jobs.iter().filter(|(_, entry)| {
            let of = entry.record.header.batch_of();
            entry.part == number && of == Some(whole.name.as_str()) && !entry.deleted
        });
        let jobs: Vec<Job> = jobs
            .map(|(name, entry)| entry.job(name, self.next_version()))
            .collect();
        drop(table);
        for job in jobs {
            if let Err(e) = self.delete(number, part, &job, Condition::Whatever)
                && part.store.has(&job.name)
            {
                log::warn!("job={} event=left error=\"{e}\"", job.name);
                self.end_deleted(number, part, &job.name);
                self.disown(number, part, [&job.name]);
            }
            // Who sees the batch go does not see that they do.
            if let Some(observer) = part.observer.get() {
                observer.job_gone(&job);
            }
        }
        removed
    }
}

/// Its own record last, with which all of it is there.
fn write_batch(
    part: &RunningPart,
    new: &NewBatch,
    whole: &Header,
    headers: &[Header],
) -> Result<(), NotWritten> {
    for (job, header) in new.jobs.iter().zip(headers) {
        // What an earlier try of this very batch may have left is nobody's.
        if part.store.has(&job.name) {
            part.store.remove(&job.name).map_err(|error| error.cause)?;
        }
        let payload = job.payload.map(str::as_bytes);
        let written = part.store.create(&job.name, header, payload, &[]);
        // Without the batch's own, it is none.
        written.map_err(|error| error.cause)?;
    }
    part.store.create(&new.name, whole, None, &[])
}
