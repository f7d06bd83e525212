//! For tests: values compared with the files of `testdata/golden`, which were reviewed by eye.

use serde::Serialize;
use std::path::{Path, PathBuf};

/// A file of `testdata`.
pub fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(path)
}

/// Compares a value, as pretty JSON, with `testdata/golden/<name>.json`. With `UPDATE_GOLDEN=1` it writes the file instead.
#[track_caller]
pub fn check(name: &str, value: &impl Serialize) {
    let path = testdata(&format!("golden/{name}.json"));
    let actual = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = actual.lines().zip(expected.lines());
    let same = differing.take_while(|(a, e)| a == e).count();
    assert!(
        actual == expected,
        "line {} of {} differs: UPDATE_GOLDEN=1 writes it anew, for `git diff` to show\nexpected: {}\nactual:   {}",
        same + 1,
        path.display(),
        expected.lines().nth(same).unwrap_or("the end"),
        actual.lines().nth(same).unwrap_or("the end"),
    );
}
