//! The page on which people look at the jobs: one file, made of three, that asks for nothing but the API.

use super::reply::Reply;
use ring::digest::{SHA256, digest};
use std::sync::LazyLock;

const STYLE: &str = include_str!("console.css");
const SCRIPT: &str = include_str!("console.js");

/// The page and its Content-Security-Policy.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let page = include_str!("console.html");
    let page = page.replace("{style}", STYLE).replace("{script}", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source(SCRIPT),
        source(STYLE)
    );
    (page, policy)
});

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
    fn the_page_is_small_and_whole_and_has_nothing_inline_but_its_two_parts() {
        let (page, _) = &*PAGE;
        assert!(page.len() <= 60_000, "{} bytes", page.len());
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
        assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(page.contains(&format!("<style>{STYLE}</style>")));
    }
}
