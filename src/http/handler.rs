//! A route and a body to a reply, through the scheduler's use cases.

use super::component;
use super::console;
use super::openapi::DOCUMENT;
use super::reply::Reply;
use super::route::Route;
use crate::batch::request::parse_batch;
use crate::job::{JobFilter, RequestKey};
use crate::process::Process;
use crate::request::{JobRequest, MAX_MESSAGE, parse_progress, parse_request, request_key};
use crate::scheduler::Scheduler;
use crate::trace::TraceContext;

/// What of a request's headers is for the use cases.
#[derive(Default)]
pub struct Headers {
    /// The value of `Idempotency-Key`.
    pub key: Option<String>,
    pub trace: Option<TraceContext>,
}

/// Answers a request. `body` is empty for routes that take none.
pub fn handle(scheduler: &Scheduler, route: &Route, headers: &Headers, body: &[u8]) -> Reply {
    let (now, rules) = (scheduler.now(), scheduler.batch_status_rules());
    let answer = match route {
        Route::ListJobs(filter) => Ok(list(scheduler, filter)),
        // To wait is the server's: here the time is up, or the job has finished.
        Route::GetJob { name, .. } => scheduler
            .get(name)
            .map(|job| Reply::job(&job, now))
            .map_err(Reply::from),
        Route::CreateJob => create(scheduler, headers, body),
        Route::DeleteJob { name } => scheduler
            .delete(name)
            .map(|name| Reply::success(&format!("job {name} successfully deleted")))
            .map_err(Reply::from),
        Route::StopJob { name } => scheduler
            .stop(name)
            .map(|name| Reply::success(&format!("job {name} successfully stopped")))
            .map_err(Reply::from),
        Route::StopJobs => scheduler
            .stop_all()
            .map(|count| Reply::success(&format!("{count} jobs successfully stopped")))
            .map_err(Reply::from),
        Route::RestartJob { name } => scheduler
            .restart(name)
            .map(|job| Reply::changed_job(&job, now))
            .map_err(Reply::from),
        Route::ListBatches { summary } => Ok(list_batches(scheduler, *summary)),
        Route::GetBatch { name, summary, .. } => scheduler
            .batch(name)
            .map(|batch| match summary {
                true => Reply::batch_summary(&batch.whole, &batch.summary(rules)),
                false => Reply::batch(&batch, rules, now),
            })
            .map_err(Reply::from),
        Route::CreateBatch => create_batch(scheduler, headers, body),
        Route::DeleteBatch { name } => scheduler
            .delete_batch(name)
            .map(|name| Reply::success(&format!("batch {name} successfully deleted")))
            .map_err(Reply::from),
        Route::StopBatch { name } => scheduler
            .stop_batch(name)
            .map(|()| Reply::success(&format!("batch {name} successfully stopped")))
            .map_err(Reply::from),
        Route::StopBatches => scheduler
            .stop_batches()
            .map(|()| Reply::success("batches successfully stopped"))
            .map_err(Reply::from),
        Route::RestartBatch { name, all } => scheduler
            .restart_batch(name, *all)
            .map(|batch| Reply::batch(&batch, rules, now))
            .map_err(Reply::from),
        Route::GetBatchJob { batch, job, .. } => scheduler
            .job_in_batch(batch, job)
            .and_then(|name| scheduler.get(name.as_str()))
            .map(|job| Reply::batch_job(&job, now))
            .map_err(Reply::from),
        Route::StopBatchJob { batch, job } => scheduler
            .stop_in_batch(batch, job)
            .map(|name| format!("job {name} in the batch {batch} successfully stopped"))
            .map(|message| Reply::success(&message))
            .map_err(Reply::from),
        Route::RestartBatchJob { batch, job } => scheduler
            .job_in_batch(batch, job)
            .and_then(|name| scheduler.restart(name.as_str()))
            .map(|job| Reply::batch_job(&job, now))
            .map_err(Reply::from),
        Route::PutProgress { name } => report(scheduler, name, body),
        // To send what follows is the server's, as it comes.
        Route::GetLog { .. } => Ok(Reply::log()),
        Route::Events => Ok(Reply::events()),
        Route::Component => Ok(component::reply(scheduler)),
        Route::Console => Ok(console::reply()),
        Route::Live => Ok(Reply::success("the scheduler is alive")),
        Route::Ready if scheduler.is_ready() => Ok(Reply::success("the scheduler is ready")),
        Route::Ready => Err(Reply::not_ready()),
        Route::Metrics => Ok(Reply::text(
            scheduler
                .metrics()
                .render(&scheduler.gauges(), &Process::read()),
        )),
        Route::Document => Ok(Reply::document(DOCUMENT)),
    };
    answer.unwrap_or_else(|failure| failure)
}

/// The jobs that are wanted.
pub fn list(scheduler: &Scheduler, filter: &JobFilter) -> Reply {
    match scheduler.list_of(filter) {
        Ok(jobs) => Reply::jobs(&jobs, scheduler.now()),
        Err(e) => e.into(),
    }
}

/// All batches.
pub fn list_batches(scheduler: &Scheduler, summary: bool) -> Reply {
    let rules = scheduler.batch_status_rules();
    let jobs_at = Some(scheduler.now()).filter(|_| !summary);
    match scheduler.batches() {
        Ok(batches) => Reply::batches(&batches, rules, jobs_at),
        Err(e) => e.into(),
    }
}

/// The most that a report of a job's progress may have: a message of the longest, each of its
/// characters escaped, and room for the rest.
const MAX_REPORT_BYTES: usize = 12 * MAX_MESSAGE + 1024;

fn report(scheduler: &Scheduler, name: &str, body: &[u8]) -> Result<Reply, Reply> {
    if body.len() > MAX_REPORT_BYTES {
        return Err(Reply::report_too_large(MAX_REPORT_BYTES, body.len()));
    }
    let report = parse_progress(body).map_err(Reply::from)?;
    let name = scheduler.report(name, report).map_err(Reply::from)?;
    Ok(Reply::success(&format!("progress of job {name} noted")))
}

fn create(scheduler: &Scheduler, headers: &Headers, body: &[u8]) -> Result<Reply, Reply> {
    let key = key_of(headers, body)?;
    let request = JobRequest {
        trace: headers.trace.clone(),
        ..parse_request(body).map_err(Reply::from)?
    };
    let job = scheduler.submit(&request, key).map_err(Reply::from)?;
    Ok(Reply::changed_job(&job, scheduler.now()))
}

fn create_batch(scheduler: &Scheduler, headers: &Headers, body: &[u8]) -> Result<Reply, Reply> {
    let key = key_of(headers, body)?;
    let mut request = parse_batch(body).map_err(Reply::from)?;
    for job in &mut request.jobs {
        job.trace = headers.trace.clone();
    }
    let batch = scheduler.submit_batch(&request, key);
    let rules = scheduler.batch_status_rules();
    let batch = batch.map_err(Reply::from)?;
    Ok(Reply::batch(&batch, rules, scheduler.now()))
}

fn key_of(headers: &Headers, body: &[u8]) -> Result<Option<RequestKey>, Reply> {
    let key = headers.key.as_ref().map(|key| request_key(key, body));
    key.transpose().map_err(|_| Reply::bad_key())
}
