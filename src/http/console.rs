//! The page on which people look at the jobs: one file, made of the parts in `console/`, that asks
//! for nothing but the API.

use super::reply::Reply;
use ring::digest::{SHA256, digest};
use std::sync::LazyLock;

const STYLE: &str = include_str!("console/style.css");
/// Its parts share their names.
const SCRIPT: &str = concat!(
    include_str!("console/base.js"),
    include_str!("console/events.js"),
    include_str!("console/list.js"),
    include_str!("console/batches.js"),
    include_str!("console/timeline.js"),
    include_str!("console/job.js"),
    include_str!("console/log.js"),
    include_str!("console/form.js"),
    include_str!("console/page.js"),
);

/// The page and its Content-Security-Policy.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let (style, script) = (lean(STYLE), lean(SCRIPT));
    let page = lean(include_str!("console/page.html"));
    let page = page.replace("{style}", &style).replace("{script}", &script);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source(&script),
        source(&style)
    );
    (page, policy)
});

/// A text as a browser needs it: without indentation, empty lines, and the comments that have lines
/// of their own.
fn lean(text: &str) -> String {
    let mut is_comment = false;
    let mut lean = String::new();
    for line in text.lines().map(str::trim) {
        is_comment |= line.starts_with("/*");
        if !is_comment && !line.is_empty() && !line.starts_with("//") {
            lean.push_str(line);
            lean.push('\n');
        }
        is_comment &= !line.ends_with("*/");
    }
    lean
}

pub fn reply() -> Reply {
    let (page, policy) = &*PAGE;
    Reply {
        code: 200,
        content_type: "text/html; charset=utf-8",
        headers: Vec::new(),
        body: page.clone().into_bytes(),
    }
    .with("Content-Security-Policy", policy)
    .with("X-Content-Type-Options", "nosniff")
    .with("X-Frame-Options", "DENY")
    .with("Referrer-Policy", "no-referrer")
    .with("Cache-Control", "no-cache")
}

/// What allows this text, and no other, to be run or applied.
///
/// Source: <https://www.w3.org/TR/CSP3/#grammardef-hash-source>
fn source(text: &str) -> String {
    format!(
        "sha256-{}",
        base64(digest(&SHA256, text.as_bytes()).as_ref())
    )
}

/// Source: RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0, |number: usize, place| {
            number << 8 | usize::from(group.get(place).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let letter = ALPHABET.get(number >> (18 - 6 * place) & 63);
            let letter = letter.filter(|_| place <= group.len());
            text.push(char::from(letter.copied().unwrap_or(b'=')));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_it_should_be() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe, 0]), "+//+AA==");
    }

    #[test]
    fn what_only_people_read_is_left_out() {
        let text = "a {\n  b: 1; /* c */\n}\n\n/* d */\n// e\n/**\n * f\n */\n  g(); // h\n";
        assert_eq!(lean(text), "a {\nb: 1; /* c */\n}\ng(); // h\n");
        // Within one of these, a line's indentation would be part of a text.
        for text in [STYLE, SCRIPT] {
            assert!(text.lines().all(|line| line.matches('`').count() % 2 == 0));
            assert!(text.lines().all(|line| !line.ends_with('\\')));
        }
    }

    #[test]
    fn the_page_is_small_and_whole_and_has_nothing_inline_but_its_two_parts() {
        let (page, _) = &*PAGE;
        assert!(page.len() <= 75_000, "{} bytes", page.len());
        assert_eq!(page.matches("<script>").count(), 1);
        assert_eq!(page.matches("<style>").count(), 1);
        for banned in [
            "{style}", "{script}", " style=", " onclick", "http://", "https://",
        ] {
            assert!(!page.contains(banned), "{banned}");
        }
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!SCRIPT.contains(banned), "{banned}");
        }
        // The hash is of what stands between the tags.
        assert!(page.contains(&format!("<script>{}</script>", lean(SCRIPT))));
        assert!(page.contains(&format!("<style>{}</style>", lean(STYLE))));
    }
}
