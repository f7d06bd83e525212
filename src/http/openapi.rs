//! The API as an OpenAPI document, which is written by hand: clients are generated from it.
//!
//! Source: <https://spec.openapis.org/oas/v3.0.3>

/// OpenAPI 3.0.3, in JSON.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::route::Route;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Makes of a `match` over all routes, which the compiler holds to be complete, also the list of what it gives.
    macro_rules! operations {
        ($($route:pat => $ids:expr,)*) => {
            /// The operations that a route serves, by operationId.
            fn operations(route: &Route) -> &'static [&'static str] {
                match route { $($route => &$ids,)* }
            }
            const OPERATIONS: &[&[&str]] = &[$(&$ids,)*];
        };
    }

    operations! {
        Route::ListJobs(_) => ["getJobs"],
        Route::CreateJob => ["createJob"],
        Route::GetJob { .. } => ["getJob"],
        Route::DeleteJob { .. } => ["deleteJob"],
        Route::StopJob { .. } => ["stopJob"],
        Route::RestartJob { .. } => ["restartJob"],
        Route::PutProgress { .. } => ["putJobProgress"],
        Route::GetLog { .. } => ["getJobLog"],
        Route::Events => ["getEvents"],
        Route::Component => ["getComponent"],
        Route::Console => ["getConsole"],
        Route::StopJobs => ["stopAllJobs"],
        Route::ListBatches { .. } => ["getBatches"],
        Route::CreateBatch => ["createBatch"],
        Route::GetBatch { .. } => ["getBatch"],
        Route::DeleteBatch { .. } => ["deleteBatch"],
        Route::StopBatch { .. } => ["stopBatch"],
        Route::StopBatches => ["stopAllBatches"],
        Route::RestartBatch { .. } => ["restartBatch"],
        Route::GetBatchJob { .. } => ["getBatchJob"],
        Route::StopBatchJob { .. } => ["stopBatchJob"],
        Route::RestartBatchJob { .. } => ["restartBatchJob"],
        Route::Live => ["getLive"],
        Route::Ready => ["getReady"],
        Route::Metrics => ["getMetrics"],
        Route::Document => ["getOpenApi", "getSwagger"],
    }

    /// Method, path and operationId of all operations of the document.
    fn documented() -> Vec<(String, String, String)> {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut found = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                found.push((method.to_uppercase(), path.clone(), id.to_string()));
            }
        }
        found
    }

    fn target(path: &str) -> String {
        let target = path.replace("{jobName}", "compute-1");
        target.replace("{batchName}", "batch-1")
    }

    #[test]
    fn every_documented_operation_is_a_route() {
        for (method, path, id) in documented() {
            let target = target(&path);
            let route = Route::parse(&method, &target);
            let route = route.unwrap_or_else(|e| panic!("{method} {path}: {e:?}"));
            assert!(
                operations(&route).contains(&id.as_str()),
                "{method} {path} is {route:?}, not {id}"
            );
        }
    }

    #[test]
    fn every_route_is_documented_once() {
        let documented: Vec<_> = documented().into_iter().map(|(_, _, id)| id).collect();
        let unique: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
        assert_eq!(unique.len(), documented.len());
        assert_eq!(unique, OPERATIONS.concat().into_iter().collect());
    }

    /// A path says which methods it takes: those are the documented ones.
    #[test]
    fn no_method_is_left_out() {
        for (_, path, _) in documented() {
            let target = target(&path);
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
                let is_documented = documented()
                    .iter()
                    .any(|(m, p, _)| m == method && *p == path);
                let is_served = Route::parse(method, &target).is_ok();
                assert_eq!(is_documented, is_served, "{method} {path}");
            }
        }
    }

    #[test]
    fn the_document_has_the_programs_version() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
