//! `job-scheduler manifests` as its users see it: standard output, standard error and the exit code.

// Clippy knows a test by its attribute, and not the functions that it calls.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn manifests(file: &str, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_job-scheduler"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/manifests"))
        .env_clear()
        .args(["manifests", file])
        .args(flags)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_list_goes_to_standard_output() {
    let output = manifests(
        "one.yaml",
        &[
            "--environment=dev",
            "--scheduler-image=registry.example.com/js:1",
        ],
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    let golden = include_str!("../testdata/golden/manifests-one.json");
    assert_eq!(text(&output.stdout), golden);
}

#[test]
fn warnings_go_to_standard_error() {
    let flags = ["--environment=dev", "--scheduler-image=js"];
    let output = manifests("unserved.yaml", &flags);
    assert_eq!(output.status.code(), Some(0));
    let warnings: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("unserved.yaml:11: spec.jobs[compute].notifications: "));
    assert!(warnings[1].starts_with("unserved.yaml:13: spec.jobs[compute].healthChecks: "));
    assert!(text(&output.stdout).starts_with("{\n"));
}

#[test]
fn what_the_user_has_to_mend_is_exit_code_2_and_prints_nothing() {
    let check = |file: &str, flags: &[&str], expected: &str| {
        let output = manifests(file, flags);
        assert_eq!(output.status.code(), Some(2), "{expected}");
        assert_eq!(text(&output.stdout), "");
        let message = text(&output.stderr);
        assert!(message.starts_with(expected), "{message}");
    };
    let flags = ["--environment=dev", "--scheduler-image=js"];
    check(
        "absent.yaml",
        &flags,
        "job-scheduler: absent.yaml: cannot be read: ",
    );
    check(
        "several.yaml",
        &flags,
        "job-scheduler: no image is known for etl: ",
    );
    check(
        "several.yaml",
        &flags[..1],
        "job-scheduler: --scheduler-image is missing: ",
    );
}

/// Linux's own full disk.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_exit_code_1() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_job-scheduler"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/manifests"))
        .args(["manifests", "one.yaml", "--environment=dev"])
        .arg("--scheduler-image=js")
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
