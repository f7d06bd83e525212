//! A route and a body to a reply, through the scheduler's use cases.

use super::reply::Reply;
use super::route::Route;
use crate::request;
use crate::scheduler::Scheduler;

/// Answers a request. `body` is empty for routes that take none.
pub fn handle(scheduler: &Scheduler, route: &Route, body: &[u8]) -> Reply {
    let answer = match route {
        Route::ListJobs => scheduler
            .list()
            .map(|jobs| Reply::jobs(&jobs, scheduler.now()))
            .map_err(Reply::from),
        Route::GetJob(name) => scheduler
            .get(name)
            .map(|job| Reply::job(&job, scheduler.now()))
            .map_err(Reply::from),
        Route::CreateJob => request::parse_request(body)
            .map_err(Reply::from)
            .and_then(|request| {
                let job = scheduler.submit(&request).map_err(Reply::from)?;
                Ok(Reply::job(&job, scheduler.now()))
            }),
        Route::DeleteJob(name) => scheduler
            .delete(name)
            .map(|name| Reply::deleted(&name))
            .map_err(Reply::from),
        Route::Live => Ok(Reply::success("the scheduler is alive")),
        Route::Ready if scheduler.is_ready() => Ok(Reply::success("the scheduler is ready")),
        Route::Ready => Err(Reply::not_ready()),
    };
    answer.unwrap_or_else(|failure| failure)
}
