//! Answers held against the OpenAPI document: [`check`] is for every HTTP client of the tests to call.

// Each test binary uses its own part, and a test fails by panicking.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use job_scheduler::http::DOCUMENT;
use serde_json::{Map, Value};
use std::sync::LazyLock;

static API: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(DOCUMENT).unwrap());

/// Panics unless the document has this answer. `target` is a path with or without a query; header names are in any case.
#[track_caller]
pub fn check(method: &str, target: &str, code: u16, headers: &[(&str, &str)], body: &[u8]) {
    if let Err(problem) = answer(method, target, code, headers, body) {
        let body = String::from_utf8_lossy(body);
        let body: String = body.chars().take(2000).collect();
        panic!("not as documented: {method} {target} → {code}: {problem}\n{headers:?}\n{body}");
    }
}

/// What [`check`] panics with.
pub fn answer(
    method: &str,
    target: &str,
    code: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<(), String> {
    let header = |name: &str| {
        let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    };
    let response = response(method, target, code)?;
    for (name, described) in object(&response["headers"]) {
        let described = resolve(described);
        match header(name) {
            Some(text) => {
                valid(
                    &of_header(text, &described["schema"]),
                    &described["schema"],
                    name,
                )?;
            }
            None if described["required"] == true => return Err(format!("{name} is missing")),
            None => {}
        }
    }
    let given = header("Content-Type").unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default();
    let content = &response["content"][media];
    if content.is_null() {
        return Err(format!("Content-Type {given:?} is not documented"));
    }
    if method == "HEAD" {
        return match body {
            [] => Ok(()),
            _ => Err("HEAD has no body".to_string()),
        };
    }
    let body = match media {
        "application/json" => serde_json::from_slice(body).map_err(|e| e.to_string())?,
        _ => Value::from(std::str::from_utf8(body).map_err(|e| e.to_string())?),
    };
    valid(&body, &content["schema"], "the body")
}

/// The documented response. Where there is no such path or method, what the document says of that.
fn response(method: &str, target: &str, code: u16) -> Result<&'static Value, String> {
    let responses = &API["components"]["responses"];
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(path) => path,
    };
    let method = match method {
        "HEAD" => "get".to_string(),
        other => other.to_lowercase(),
    };
    let paths = object(&API["paths"]);
    let exact = paths.get(path);
    let mut matching = paths.iter().filter(|(template, _)| fits(template, path));
    let methods = exact.or_else(|| matching.next().map(|(_, methods)| methods));
    let documented = match methods.map(|methods| &methods[&method]) {
        None => match code {
            403 => &responses["Forbidden"],
            404 => &responses["NotFound"],
            _ => return Err("there is no such path".to_string()),
        },
        Some(Value::Null) => match code {
            403 => &responses["Forbidden"],
            405 => &responses["MethodNotAllowed"],
            _ => return Err("the path does not take this method".to_string()),
        },
        Some(operation) => &operation["responses"][code.to_string()],
    };
    match documented {
        Value::Null => Err("this status is not documented".to_string()),
        documented => Ok(resolve(documented)),
    }
}

/// Whether a path is one of a template such as `/jobs/{jobName}`.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    let fits = |(t, p): (&&str, &&str)| t == p || (t.starts_with('{') && !p.is_empty());
    template.len() == path.len() && template.iter().zip(&path).all(fits)
}

fn object(value: &'static Value) -> &'static Map<String, Value> {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

/// What a reference refers to.
pub fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').unwrap();
            API.pointer(pointer)
                .unwrap_or_else(|| panic!("{reference} refers to nothing"))
        }
        None => value,
    }
}

fn of_header(text: &str, schema: &Value) -> Value {
    match text.parse::<u64>() {
        Ok(number) if schema["type"] == "integer" => number.into(),
        _ => text.into(),
    }
}

/// Whether a value is of a schema, with the keywords that the document uses, but for `pattern`. An object with
/// `properties` may have no others: an answer has no field that is not documented.
pub fn valid(value: &Value, schema: &'static Value, place: &str) -> Result<(), String> {
    let schema = resolve(schema);
    if value.is_null() && schema["nullable"] == true {
        return Ok(());
    }
    let wrong = |expected: &str| Err(format!("{place} must be {expected}, not {value}"));
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        other => return Err(format!("{place}: the type {other:?} is not known here")),
    };
    if !is_of_type {
        return wrong(schema["type"].as_str().unwrap_or_default());
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return wrong(&format!("one of {values:?}"));
    }
    if schema["format"] == "date-time" && !value.as_str().is_some_and(is_time) {
        return wrong("a time");
    }
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    let within = |least: &str, most: &str, number: f64| {
        schema[least].as_f64().is_none_or(|least| number >= least)
            && schema[most].as_f64().is_none_or(|most| number <= most)
    };
    if !within("minLength", "maxLength", size as f64)
        || !within("minItems", "maxItems", size as f64)
        || !within("minimum", "maximum", value.as_f64().unwrap_or(0.0))
    {
        return wrong("within the limits");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        valid(item, &schema["items"], &format!("{place}[{index}]"))?;
    }
    let fields = value.as_object().into_iter().flatten();
    for (name, field) in fields {
        let place = format!("{place}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, others @ Value::Object(_)) => valid(field, others, &place)?,
            (Value::Null, _) if schema["properties"].is_null() => {}
            (Value::Null, _) => return Err(format!("{place} is not documented")),
            (known, _) => valid(field, known, &place)?,
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        if value.get(name).is_none() {
            return Err(format!("{place}.{name} is missing"));
        }
    }
    Ok(())
}

/// As the API writes times: UTC, with seconds.
fn is_time(text: &str) -> bool {
    text.len() == 20
        && text
            .bytes()
            .zip("0000-00-00T00:00:00Z".bytes())
            .all(|(given, form)| match form {
                b'0' => given.is_ascii_digit(),
                other => given == other,
            })
}
