//! What is answered to what cannot be done.

use crate::api::JOBS;
use crate::cluster::Cluster;
use serde_json::json;

/// Component, method, path, body; code, reason, and what the message names.
type Case<'a> = (
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    u16,
    &'a str,
    &'a [&'a str],
);

pub fn every_wrong_request_is_told_what_is_wrong(cluster: &Cluster) -> Vec<String> {
    let too_large = json!({"payload": "x".repeat(1_048_577)}).to_string();
    let gone = &format!("{JOBS}/etl-20210407105556-rkwaibwe");
    let cases: &[Case] = &[
        (
            "etl",
            "POST",
            JOBS,
            "payload",
            400,
            "BadRequest",
            &["not JSON", "line 1"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"payload": "x""#,
            400,
            "BadRequest",
            &["not JSON"],
        ),
        (
            "etl",
            "GET",
            gone,
            "",
            404,
            "NotFound",
            &["etl-20210407105556-rkwaibwe"],
        ),
        (
            "etl",
            "DELETE",
            gone,
            "",
            404,
            "NotFound",
            &["etl-20210407105556-rkwaibwe"],
        ),
        (
            "etl",
            "GET",
            "/api/v1/jobs/..%2f..%2fsecrets",
            "",
            404,
            "NotFound",
            &[],
        ),
        (
            "etl",
            "GET",
            "/api/v2/jobs",
            "",
            404,
            "NotFound",
            &["/api/v1/jobs"],
        ),
        ("etl", "GET", "/api", "", 404, "NotFound", &["/api/v1/jobs"]),
        (
            "etl",
            "PUT",
            JOBS,
            "{}",
            405,
            "MethodNotAllowed",
            &["GET, HEAD, POST"],
        ),
        (
            "etl",
            "DELETE",
            JOBS,
            "",
            405,
            "MethodNotAllowed",
            &["GET, HEAD, POST"],
        ),
        (
            "etl",
            "POST",
            gone,
            "{}",
            405,
            "MethodNotAllowed",
            &["GET, HEAD, DELETE"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            &too_large,
            413,
            "RequestEntityTooLarge",
            &["1048576", "1048577"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"payload": {"x": 10}}"#,
            422,
            "Invalid",
            &["payload", "string"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"playload": "x"}"#,
            422,
            "Invalid",
            &["playload", "did you mean `payload`"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"timeLimitSeconds": 0}"#,
            422,
            "Invalid",
            &["timeLimitSeconds"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"runAsUser": 0}"#,
            422,
            "Invalid",
            &["runAsUser"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"resources": {"limits": {"cpu": "lots"}}}"#,
            422,
            "Invalid",
            &["resources.limits.cpu"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}"#,
            422,
            "Invalid",
            &["cpu"],
        ),
        (
            "etl",
            "POST",
            JOBS,
            r#"{"image": "not an image"}"#,
            422,
            "Invalid",
            &["image"],
        ),
        (
            "report",
            "POST",
            JOBS,
            r#"{"payload": "x"}"#,
            422,
            "Invalid",
            &["payload: ", "report", "payload.path"],
        ),
    ];
    let mut schedulers = ["etl", "report"].map(|name| (name, cluster.scheduler("dev", name)));
    let mut proved = Vec::new();
    for (component, method, path, body, code, reason, words) in cases {
        let (_, scheduler) = schedulers
            .iter_mut()
            .find(|(name, _)| name == component)
            .unwrap();
        let response = scheduler.call(method, path, body);
        let shown = body.chars().take(70).collect::<String>();
        let request = format!("{method} {path} {shown}");
        assert_eq!(response.code, *code, "{request}: {response}");
        let status = response.json();
        assert_eq!(status["status"], "Failure", "{request}: {status}");
        assert_eq!(status["code"], *code, "{request}: {status}");
        assert_eq!(status["reason"], *reason, "{request}: {status}");
        let message = status["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{request}: {status}"));
        for word in *words {
            assert!(
                message.contains(word),
                "{request}: {word} is not in: {message}"
            );
        }
        if *code == 405 {
            assert!(
                response.head.contains(&format!("Allow: {}", words[0])),
                "{request}: {response}"
            );
        }
        proved.push(format!("{}: {code} {message}", request.trim()));
    }
    let slash = schedulers[0].1.call("GET", "/api/v1/jobs/", "");
    assert_eq!(slash.code, 200, "{slash}");
    proved.push("GET /api/v1/jobs/: 200".to_string());
    proved
}

pub fn health_is_told_at_its_own_paths(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let answers = ["/health/live", "/health/ready"].map(|path| (path, etl.call("GET", path, "")));
    for (path, response) in &answers {
        assert_eq!(response.code, 200, "{path}: {response}");
    }
    answers
        .map(|(path, response)| format!("{path}: {}", response.json()))
        .to_vec()
}
