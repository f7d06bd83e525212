//! The OpenAPI document by itself, and as the program gives it.

// Clippy knows a test by its attribute, and not the functions that it calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod contract;

use job_scheduler::http::DOCUMENT;
use serde_json::{Value, json};
use std::process::Command;

#[test]
fn the_command_prints_the_document() {
    let output = Command::new(env!("CARGO_BIN_EXE_job-scheduler"))
        .arg("openapi")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), DOCUMENT);
}

/// Calls `look` for every object of the document, with the place where it is.
fn walk(value: &'static Value, place: &str, look: &mut impl FnMut(&'static Value, &str)) {
    if let Value::Object(fields) = value {
        look(value, place);
        for (name, field) in fields {
            walk(field, &format!("{place}/{name}"), look);
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        walk(item, &format!("{place}/{index}"), look);
    }
}

fn document() -> &'static Value {
    Box::leak(Box::new(serde_json::from_str(DOCUMENT).unwrap()))
}

#[test]
fn every_example_is_valid() {
    let mut seen = 0;
    walk(document(), "", &mut |value, place| {
        let media = &value["schema"];
        let schema = if media.is_object() { media } else { value };
        if schema["type"].is_null() && schema["$ref"].is_null() {
            return;
        }
        // A property may be named `example`; a schema's is not one.
        let single = value
            .get("example")
            .filter(|_| !place.ends_with("/properties"));
        let several = value["examples"].as_object();
        let several = several.into_iter().flatten().map(|(_, e)| &e["value"]);
        for example in single.into_iter().chain(several) {
            contract::valid(example, schema, place).unwrap_or_else(|e| panic!("{place}: {e}"));
            seen += 1;
        }
    });
    assert!(seen > 50, "{seen}");
}

#[test]
fn every_reference_refers_to_something_and_everything_is_referred_to() {
    let mut referred = std::collections::BTreeSet::new();
    walk(document(), "", &mut |value, _| {
        if let Some(reference) = value["$ref"].as_str() {
            contract::resolve(value);
            referred.insert(reference);
        }
    });
    for (kind, components) in document()["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(referred.contains(reference.as_str()), "{reference}");
        }
    }
}

/// Generators make names of what they find, and tell a user nothing where there is nothing.
#[test]
fn every_operation_and_field_is_described() {
    let document = document();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let parameter = contract::resolve(parameter);
                assert!(parameter["description"].is_string(), "{method} {path}");
                assert!(!parameter["example"].is_null(), "{method} {path}");
            }
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let described = schema["description"].is_string() || schema["$ref"].is_string();
            assert!(described, "{name}.{field}");
        }
    }
}

/// Generated clients in C# have no unset number or boolean, and those in Java no unset list, unless null is allowed: they
/// would send 0, false and [] for what was never set, which is to override what is configured.
#[test]
fn a_setting_whose_zero_means_something_may_be_null() {
    let fields = &document()["components"]["schemas"]["JobScheduleDescription"]["properties"];
    for (name, field) in fields.as_object().unwrap() {
        let is_zero_valid = match field["type"].as_str() {
            Some("boolean" | "array") => true,
            Some("integer") => field["minimum"].as_i64().is_none_or(|least| least <= 0),
            _ => false,
        };
        assert_eq!(field["nullable"] == true, is_zero_valid, "{name}");
    }
}

/// Generated clients in Python and Java take what is required first: so the body, as in both of Radix's documents,
/// and what was added since behind it.
#[test]
fn a_jobs_description_comes_before_what_is_optional() {
    let create = &document()["paths"]["/api/v1/jobs"]["post"];
    assert_eq!(create["requestBody"]["required"], true);
    for parameter in create["parameters"].as_array().unwrap() {
        assert_eq!(contract::resolve(parameter)["required"], false);
    }
}

/// The check is worth as much as what it refuses.
#[test]
fn an_answer_that_is_not_documented_is_found() {
    let id = ("X-Request-Id", "1");
    let json = ("content-type", "application/json");
    let job = json!({"name": "a", "created": "2021-04-07T10:55:56Z", "started": "", "ended": "", "status": "Running"});
    let check = |request: &str, code, headers: &[(&str, &str)], body: &Value| {
        let (method, target) = request.split_once(' ').unwrap();
        contract::answer(method, target, code, headers, body.to_string().as_bytes())
    };
    let get = |code, body: &Value| check("GET /api/v1/jobs/a/?wait=1s", code, &[id, json], body);
    assert_eq!(get(200, &job), Ok(()));
    let with = |field: &str, value: Value| {
        let mut job = job.clone();
        job[field] = value;
        get(200, &job).unwrap_err()
    };
    assert!(with("status", json!("Done")).contains("one of"));
    assert!(with("created", json!("")).contains("a time"));
    assert!(with("created", json!(1)).contains("must be string"));
    assert!(with("created", Value::Null).contains("must be string"));
    assert!(with("failed", json!(0)).contains("limits"));
    assert!(with("colour", json!("red")).contains("colour is not documented"));
    assert!(with("podStatuses", json!([{}])).contains("podStatuses[0].name is missing"));
    assert!(
        get(200, &json!([job]))
            .unwrap_err()
            .contains("must be object")
    );
    assert!(get(201, &job).unwrap_err().contains("status"));

    let refused = |message: &str| json!({"status": "Failure", "message": message, "code": 1});
    let no_id = check("GET /api/v1/jobs", 200, &[json], &json!([job]));
    assert!(no_id.unwrap_err().contains("X-Request-Id is missing"));
    let html = check(
        "GET /api/v1/jobs",
        200,
        &[id, ("content-type", "text/html")],
        &job,
    );
    assert!(html.unwrap_err().contains("Content-Type"));
    let no_retry = get(503, &refused("x"));
    assert!(no_retry.unwrap_err().contains("Retry-After is missing"));
    let elsewhere = check("GET /nowhere", 404, &[id, json], &refused("x"));
    assert_eq!(elsewhere, Ok(()));
    let not_allowed = |allow: &[(&str, &str)]| {
        check(
            "PUT /api/v1/jobs",
            405,
            &[&[id, json], allow].concat(),
            &refused("x"),
        )
    };
    assert_eq!(not_allowed(&[("allow", "GET, HEAD, POST")]), Ok(()));
    assert!(not_allowed(&[]).unwrap_err().contains("Allow is missing"));
}
