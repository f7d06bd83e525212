//! What the command line says of itself: help, and completions for shells.

use super::commands::{COMMANDS, CommandSpec, Flag, Operands};
use std::fmt::Write;

/// The shells that [`completions`] knows.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Of the program.
pub fn help() -> String {
    let mut text = String::from(
        "job-scheduler runs on-demand jobs behind an HTTP API: POST a payload, a job runs with it in \
         a file.\n\nUsage:\n",
    );
    for command in COMMANDS {
        let start = format!("{} {}", command.name, operand(command));
        let _ = writeln!(text, "  job-scheduler {start:22} {}", command.summary);
    }
    text.push_str(
        "\njob-scheduler COMMAND --help lists a command's flags, and has examples. Begin with:\n\n  \
         job-scheduler local radixconfig.yaml         # in one terminal\n  \
         job-scheduler run --payload hello --follow   # in another\n\n\
         Exit codes: 0 done, 1 failed while running, 2 bad usage or bad configuration; `run`, `wait` \
         and the other\ncommands that ask a scheduler have further ones.\n",
    );
    text
}

fn operand(command: &CommandSpec) -> String {
    match command.operands {
        Operands::None => String::new(),
        Operands::One(name) => name.to_string(),
        Operands::Optional(name) => format!("[{name}]"),
        Operands::Many(name) => format!("{name}…"),
        Operands::Input => "[-]".to_string(),
    }
}

/// Of one command.
pub fn command_help(command: &CommandSpec) -> String {
    let mut usage = format!("job-scheduler {} {}", command.name, operand(command));
    usage.truncate(usage.trim_end().len());
    if !command.flags.is_empty() {
        usage.push_str(" [FLAG VALUE]…");
    }
    if command.operands == Operands::Input {
        usage.push_str(" [-- COMMAND…]");
    }
    let mut text = format!("{}\n\nUsage: {usage}\n", command.summary);
    if !command.examples.is_empty() {
        text.push_str("\nExamples:\n");
        for example in command.examples {
            let _ = writeln!(text, "  {example}");
        }
    }
    if !command.notes.is_empty() {
        let _ = writeln!(text, "\n{}", wrapped(command.notes));
    }
    if !command.flags.is_empty() {
        text.push_str("\nFlags:\n");
    }
    for flag in command.flags {
        let letter = flag.short.map(|letter| format!("-{letter}, "));
        let start = format!(
            "{}--{} {}",
            letter.unwrap_or_default(),
            flag.name,
            flag.value
        );
        let _ = writeln!(text, "  {}\n      {}", start.trim_end(), flag.help);
        if !flag.variable.is_empty() {
            let _ = writeln!(text, "      environment: {}", flag.variable);
        }
    }
    text
}

/// Lines of at most 100 characters. Line ends that are there stay.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.len() + 1 + word.len() > 100 {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// What makes a shell complete commands and flags; `None` for a shell that is not of [`SHELLS`].
pub fn completions(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).collect()
}

/// The words that may stand for a flag.
fn spellings(flag: &Flag) -> Vec<String> {
    let letter = flag.short.map(|letter| format!("-{letter}"));
    letter
        .into_iter()
        .chain([format!("--{}", flag.name)])
        .collect()
}

fn takes_file(command: &CommandSpec) -> bool {
    command.operands == Operands::One("FILE")
}

/// The words that an operand may be, where they are known.
fn operand_words(command: &CommandSpec) -> Vec<&'static str> {
    match command.name {
        "completions" => SHELLS.to_vec(),
        "help" => names(),
        _ => Vec::new(),
    }
}

fn bash() -> String {
    let mut cases = String::new();
    for command in COMMANDS {
        let flags: Vec<String> = command.flags.iter().flat_map(spellings).collect();
        let flags = flags.join(" ");
        let words = operand_words(command).join(" ");
        let files = if takes_file(command) { " files=1" } else { "" };
        let _ = writeln!(
            cases,
            "        {}) flags='{flags} --help' words='{words}'{files} ;;",
            command.name
        );
    }
    format!(
        "_job_scheduler() {{\n    \
         local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} flags words files\n    \
         COMPREPLY=()\n    \
         if [ \"$COMP_CWORD\" = 1 ]; then\n        \
         COMPREPLY=($(compgen -W '{} --help --version' -- \"$current\"))\n        return\n    fi\n    \
         case ${{COMP_WORDS[1]}} in\n{cases}    esac\n    \
         case $current in\n        \
         -*) COMPREPLY=($(compgen -W \"$flags\" -- \"$current\")); return ;;\n    esac\n    \
         case $previous in\n        \
         *-file|*-dir|--config) files=1 words= ;;\n    esac\n    \
         if [ -n \"$files\" ]; then COMPREPLY=($(compgen -f -- \"$current\")); \
         else COMPREPLY=($(compgen -W \"$words\" -- \"$current\")); fi\n\
         }}\n\
         complete -o filenames -F _job_scheduler job-scheduler\n",
        names().join(" ")
    )
}

/// Text within single quotes of zsh's `_arguments` and `_describe`, where a colon and a bracket
/// mean something.
fn zsh_quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
        .replace([':', '[', ']'], " ")
        .replace('`', "")
}

fn zsh() -> String {
    let mut text = String::from(
        "#compdef job-scheduler\n_job_scheduler() {\n    local -a commands\n    commands=(\n",
    );
    for command in COMMANDS {
        let summary = zsh_quoted(command.summary);
        let _ = writeln!(text, "        '{}:{summary}'", command.name);
    }
    text.push_str(
        "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    \
         fi\n    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "        {})\n            _arguments \\", command.name);
        for flag in command.flags {
            let repeats = if flag.repeats { "*" } else { "" };
            let value = match flag.value {
                "" => String::new(),
                "FILE" => ":FILE:_files".to_string(),
                "DIR" => ":DIR:_files -/".to_string(),
                value => format!(":{}: ", zsh_quoted(value)),
            };
            let help = zsh_quoted(flag.help);
            for spelling in spellings(flag) {
                let _ = writeln!(
                    text,
                    "                '{repeats}{spelling}[{help}]{value}' \\"
                );
            }
        }
        let words = operand_words(command);
        let operand = match command.operands {
            Operands::One("FILE") => "'1:FILE:_files'".to_string(),
            _ if !words.is_empty() => format!("'1: :({})'", words.join(" ")),
            _ => "'*: : '".to_string(),
        };
        let _ = writeln!(
            text,
            "                '--help[Show the help]' \\\n                {operand}\n            ;;"
        );
    }
    text.push_str("    esac\n}\ncompdef _job_scheduler job-scheduler\n");
    text
}

fn fish() -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut text = String::from("complete -c job-scheduler -f\n");
    for command in COMMANDS {
        let _ = writeln!(
            text,
            "complete -c job-scheduler -n __fish_use_subcommand -a {} -d {}",
            command.name,
            quoted(command.summary)
        );
        let seen = format!("'__fish_seen_subcommand_from {}'", command.name);
        for flag in command.flags {
            let letter = flag.short.map(|letter| format!(" -s {letter}"));
            let value = match flag.value {
                "" => "",
                "FILE" | "DIR" => " -r -F",
                _ => " -x",
            };
            let _ = writeln!(
                text,
                "complete -c job-scheduler -n {seen}{} -l {}{value} -d {}",
                letter.unwrap_or_default(),
                flag.name,
                quoted(flag.help)
            );
        }
        if takes_file(command) {
            let _ = writeln!(text, "complete -c job-scheduler -n {seen} -F");
        }
        let words = operand_words(command);
        if !words.is_empty() {
            let words = words.join(" ");
            let _ = writeln!(text, "complete -c job-scheduler -n {seen} -a '{words}'");
        }
    }
    text
}
