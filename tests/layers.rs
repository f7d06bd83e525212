//! Which module may know of which: the architecture of `src/lib.rs`, held by looking at every path that the code names.

// Clippy knows a test by its attribute, and not the functions that it calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

/// A source file, by its path below `src`, and the paths it names: what `use` imports, spelled out, and all others.
struct Source {
    file: String,
    paths: Vec<String>,
}

#[test]
fn the_core_imports_neither_http_nor_a_backend() {
    let core = ["job", "index", "queue", "retention", "batch"];
    let outer = |path: &str| {
        let mut segments = path.split("::");
        let first = segments.next();
        matches!(first, Some("crate" | "super" | "job_scheduler"))
            && segments.any(|segment| segment == "http" || segment == "backend")
    };
    check_modules(&core, |path| !outer(path));
}

#[test]
fn one_folder_uses_tiny_http_and_each_client_has_one_file_for_ureq() {
    check(|file, path| file.starts_with("http/server/tiny/") || !has(path, "tiny_http"));
    let clients = ["backend/kubernetes/client.rs", "client/api.rs"];
    check(|file, path| clients.contains(&file) || !has(path, "ureq"));
}

/// In the order in which a request comes: so there is no circle among them.
#[test]
fn the_servers_modules_know_only_of_those_after_them() {
    const ORDER: [&str; 11] = [
        "listener",
        "connections",
        "front",
        "event_stream",
        "log_stream",
        "waiting",
        "exchange",
        "body",
        "input",
        "tiny",
        "refused",
    ];
    let place = |name: &str| ORDER.iter().position(|module| *module == name);
    let modules = sources();
    let of_server = |file: &str| Some(file.strip_prefix("http/server/")?.to_string());
    let mut found: Vec<_> = modules.iter().filter_map(|s| of_server(&s.file)).collect();
    found.retain(|file| file != "mod.rs");
    let module = |file: &str| {
        file.split(['/', '.'])
            .next()
            .unwrap_or_default()
            .to_string()
    };
    assert_eq!(found.len(), ORDER.len(), "{found:?}");
    for file in &found {
        assert!(place(&module(file)).is_some(), "{file} has no place");
    }
    check(|file, path| {
        let beside = path.strip_prefix("crate::http::server::");
        let Some(user) = of_server(file).and_then(|file| place(&module(&file))) else {
            return beside.is_none();
        };
        let used = beside.or(path.strip_prefix("super::"));
        let used = used.and_then(|path| place(path.split("::").next()?));
        used.is_none_or(|used| used > user)
    });
}

/// `golden.rs` and `sync/schedules.rs` are there for tests only. `main` hands it to the command line.
#[test]
fn only_the_command_line_reads_the_environment() {
    let readers = ["main.rs", "golden.rs", "sync/schedules.rs"];
    check(|file, path| readers.contains(&file) || !path.contains("env::var"));
}

#[test]
fn the_core_has_types_of_its_own_for_what_comes_as_json() {
    let core = ["job", "index", "queue", "retention", "scheduler"];
    check_modules(&core, |path| !path.starts_with("serde_json::Value"));
}

/// The check is worth as much as what it sees.
#[test]
fn every_form_of_a_path_is_seen() {
    let code = "
        pub use crate::{http, backend::{Backend, kubernetes::Client as C}};
        // use crate::comment;
        use std::fmt::{
            self, Write as _, // why
        };
        fn f(a: &tiny_http::Request) -> Vec<serde_json::Value> { std::env::var_os(\"X\") }
    ";
    assert_eq!(
        paths(code),
        [
            "crate::http",
            "crate::backend::Backend",
            "crate::backend::kubernetes::Client",
            "std::fmt::self",
            "std::fmt::Write",
            "tiny_http::Request",
            "serde_json::Value",
            "std::env::var_os",
        ]
    );
}

#[track_caller]
fn check(allowed: impl Fn(&str, &str) -> bool) {
    for Source { file, paths } in &sources() {
        for path in paths {
            assert!(allowed(file, path), "src/{file} must not use {path}");
        }
    }
}

/// Checks some of the crate's modules, each of which must be there.
#[track_caller]
fn check_modules(modules: &[&str], allowed: impl Fn(&str) -> bool) {
    let module_of = |file: &str| match file.split_once('/') {
        Some((folder, _)) => folder.to_string(),
        None => file.trim_end_matches(".rs").to_string(),
    };
    let found: Vec<_> = sources().iter().map(|s| module_of(&s.file)).collect();
    for module in modules {
        assert!(found.iter().any(|f| f == module), "no module {module}");
    }
    check(|file, path| !modules.contains(&module_of(file).as_str()) || allowed(path));
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read_folder(&folder, "", &mut sources);
    sources
}

/// Whether a segment of the path is the name.
fn has(path: &str, name: &str) -> bool {
    path.split("::").any(|segment| segment == name)
}

fn read_folder(folder: &Path, prefix: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let file = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            read_folder(&entry.path(), &format!("{file}/"), sources);
        } else if name.ends_with(".rs") {
            let paths = paths(&fs::read_to_string(entry.path()).unwrap());
            sources.push(Source { file, paths });
        }
    }
}

/// The paths in rustfmt's code, in its order. A `//` inside a text hides the rest of its line.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut tree: Option<String> = None;
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let begins_use = || {
            let visibility = line.strip_prefix("pub(crate) ");
            let line = visibility.or(line.strip_prefix("pub ")).unwrap_or(line);
            line.strip_prefix("use ")
        };
        if let Some(text) = &mut tree {
            text.push_str(line);
        } else if let Some(text) = begins_use() {
            tree = Some(text.to_string());
        } else {
            let words = line.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
            let named = words.filter(|word| word.contains("::"));
            paths.extend(named.map(str::to_string));
        }
        if let Some(text) = tree.take_if(|text| text.ends_with(';')) {
            expand("", text.trim_end_matches(';'), &mut paths);
        }
    }
    paths
}

/// The paths of a `use` tree: `a::{b, c::d as e}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        if !path.is_empty() {
            paths.push(format!("{prefix}{path}"));
        }
        return;
    };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut start) = (0, 0);
    for (position, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(
                    &format!("{prefix}{before}"),
                    &inside[start..position],
                    paths,
                );
                start = position + 1;
            }
            _ => {}
        }
    }
}
