//! The screens of the documents: what they say is typed is run, and what they say is printed must be printed.
//!
//! A block that begins with ```` ```console local ```` is run beside `job-scheduler local testdata/radixconfig.yaml`, one with
//! `console readme` beside the README's own file. Names of jobs, times and durations may differ.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use support::local::free_port;
use support::{Scratch, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The blocks of a document whose first line is this.
fn blocks(text: &str, first: &str) -> Vec<String> {
    let fence = format!("```{first}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("\n```").next().unwrap().to_string())
        .collect()
}

/// The commands of a screen, each with what it prints.
fn commands(block: &str) -> Vec<(String, String)> {
    let screens = block.split("\n\n");
    screens
        .map(|screen| {
            let screen = screen
                .strip_prefix("$ ")
                .unwrap_or_else(|| panic!("no `$ `: {screen}"));
            let (command, output) = screen.split_once('\n').unwrap_or((screen, ""));
            (command.to_string(), output.to_string())
        })
        .collect()
}

/// A text without what differs from run to run.
fn settled(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-:".contains(c);
    let mut settled = String::new();
    for line in text.lines().filter(|line| !line.contains(" Running for ")) {
        let mut rest = line.trim_end();
        while !rest.is_empty() {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len()).max(1);
            let end = (end..=rest.len())
                .find(|end| rest.is_char_boundary(*end))
                .unwrap();
            settled.push_str(&settled_word(&rest[..end]));
            rest = &rest[end..];
        }
        settled.push('\n');
    }
    settled
}

fn settled_word(word: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = word.rsplitn(3, '-').collect();
    match parts.as_slice() {
        [random, time, component] if random.len() == 8 && time.len() == 14 && is_number(time) => {
            format!("{component}-TIME-RANDOMXX")
        }
        _ if word.len() == 20 && word.ends_with('Z') && word.contains('T') => "TIME".to_string(),
        _ if word.strip_suffix('s').is_some_and(is_number) => "0s".to_string(),
        _ => word.to_string(),
    }
}

/// Runs the screens of documents beside a scheduler of this configuration.
#[track_caller]
fn check(documents: &[&str], kind: &str, config: &str, ports: &[&str]) {
    let scratch = Scratch::new();
    let mut text = config.to_string();
    let free: Vec<(&str, String)> = ports
        .iter()
        .map(|p| (*p, free_port().to_string()))
        .collect();
    for (port, own) in &free {
        text = text.replace(
            &format!("schedulerPort: {port}"),
            &format!("schedulerPort: {own}"),
        );
    }
    let file = scratch.join("radixconfig.yaml");
    std::fs::write(&file, text).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_job-scheduler"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let data = scratch.join("data");
    let mut scheduler = Command::new(program)
        .args(["local", file.to_str().unwrap()])
        .env("JOB_SCHEDULER_DATA_DIR", &data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let run = |command: &str| {
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(ROOT)
            .env("PATH", &path)
            .env("JOB_SCHEDULER_DATA_DIR", &data)
            .env_remove("JOB_SCHEDULER_URL")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let first = &free[0].1;
    eventually("the scheduler listens", || {
        let url = format!("--url http://127.0.0.1:{first}");
        run(&format!("job-scheduler list {url}")).0.then_some(())
    });
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in documents {
        for (command, expected) in blocks(&read(document), kind)
            .iter()
            .flat_map(|b| commands(b))
        {
            // Jobs of one second are listed in the order of their names.
            if count > 0 {
                std::thread::sleep(std::time::Duration::from_millis(1100));
            }
            count += 1;
            let mut own = command.clone();
            for (port, free) in &free {
                own = own.replace(&format!(":{port}/"), &format!(":{free}/"));
            }
            // curl's table of its progress is not for a screen.
            let (done, printed) = run(&own.replace("curl ", "curl -sS "));
            if !done || settled(&printed) != settled(&expected) {
                wrong.push(format!(
                    "{document}: $ {command}\n{printed}instead of\n{expected}\n"
                ));
            }
        }
    }
    let _ = scheduler.kill();
    scheduler.wait().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 0, "no screen of {documents:?}");
}

#[test]
fn the_screens_of_the_documents_are_true() {
    let config = read("testdata/radixconfig.yaml");
    check(
        &["docs/api.md", "docs/configuration.md"],
        "console local",
        &config,
        &["8000", "9000"],
    );
}

#[test]
fn the_readmes_example_works_as_it_stands() {
    let readme = read("README.md");
    let config = readme
        .split("```yaml\n# radixconfig.yaml\n")
        .nth(1)
        .unwrap();
    let config = config.split("```").next().unwrap();
    check(&["README.md"], "console readme", config, &["8000"]);
}

#[test]
fn the_readme_is_for_the_first_ten_minutes() {
    assert!(read("README.md").lines().count() <= 200);
}

/// Links between the documents lead somewhere.
#[test]
fn no_link_is_broken() {
    let mut documents = vec!["README.md".to_string()];
    for entry in std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        documents.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    for document in &documents {
        let text = read(document);
        let folder = Path::new(ROOT).join(document);
        let folder = folder.parent().unwrap();
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                Path::new(ROOT).join(document)
            } else {
                folder.join(file)
            };
            assert!(target.exists(), "{document}: {link}");
            let headings = std::fs::read_to_string(&target).unwrap();
            let mut headings = headings.lines().filter_map(|line| line.strip_prefix('#'));
            let is_it = |heading: &str| {
                let heading = heading.trim_start_matches('#').trim().to_lowercase();
                let kept = heading
                    .chars()
                    .filter(|c| c.is_alphanumeric() || " -".contains(*c));
                kept.collect::<String>().replace(' ', "-") == anchor
            };
            assert!(
                anchor.is_empty() || headings.any(is_it),
                "{document}: {link}"
            );
        }
    }
}
