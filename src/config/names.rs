//! What Kubernetes allows names and paths to be. Each function gives the value, or what it must be.

use super::tree::shown;

/// The volume that holds a job's payload.
const PAYLOAD_VOLUME: &str = "job-payload";
/// Variables of this prefix are the scheduler's to set.
const RESERVED_PREFIX: &str = "RADIX_";

const LABEL: &str = "at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit";

/// The name of an application, an environment or a volume.
///
/// Source:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names>
pub fn dns_label(text: &str) -> Result<String, String> {
    if is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be {LABEL}, not `{}`", shown(text)))
    }
}

pub fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The name of a job component, which is that of its scheduler's Service as well.
///
/// Source:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#rfc-1035-label-names>
pub fn service_name(text: &str) -> Result<String, String> {
    if is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        Ok(text.to_owned())
    } else {
        let text = shown(text);
        Err(format!(
            "must be at most 63 of a-z, 0-9 and `-`, beginning with a letter and ending with a letter \
             or digit, since it is a host name, not `{text}`"
        ))
    }
}

/// The name of a container's port.
pub fn port_name(text: &str) -> Result<String, String> {
    let has_letter = text.bytes().any(|b| b.is_ascii_lowercase());
    if is_dns_label(text) && text.len() <= 15 && has_letter && !text.contains("--") {
        Ok(text.to_owned())
    } else {
        let text = shown(text);
        Err(format!(
            "must be at most 15 of a-z, 0-9 and single `-`, with a letter, beginning and ending with a \
             letter or digit, not `{text}`"
        ))
    }
}

pub fn volume_name(text: &str) -> Result<String, String> {
    if text == PAYLOAD_VOLUME {
        return Err(format!(
            "must not be `{PAYLOAD_VOLUME}`, which is the volume of the payload: choose another name"
        ));
    }
    dns_label(text)
}

/// The name of an environment variable.
pub fn variable_name(text: &str) -> Result<String, String> {
    if text.starts_with(RESERVED_PREFIX) {
        return Err(format!(
            "must not begin with {RESERVED_PREFIX}, which the scheduler's own variables do: rename it"
        ));
    }
    let allowed = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("must be a name of printable ASCII characters without `=`".to_owned())
    }
}

/// The name of a variable that comes from a Secret, and so of the Secret's key.
pub fn secret_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if !(1..=253).contains(&text.len()) || !text.bytes().all(allowed) {
        let text = shown(text);
        return Err(format!(
            "must be at most 253 of letters, digits, `-`, `_` and `.`, not `{text}`"
        ));
    }
    variable_name(text)
}

/// The value of a node's label.
///
/// Source:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
pub fn is_label_value(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
}

/// A folder in a container: absolute, not the root, without `.`, `..` and doubled or trailing
/// slashes.
pub fn folder(text: &str) -> Result<String, String> {
    let plain = !text.contains([':', '\\']) && !text.contains(char::is_control);
    let mut path = String::new();
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        path.push('/');
        path.push_str(part);
    }
    let climbs = text.split('/').any(|part| part == "..");
    if text.starts_with('/') && plain && !climbs && !path.is_empty() && path.len() <= 1024 {
        Ok(path)
    } else {
        let text = shown(text);
        Err(format!(
            "must be an absolute path of a folder, not of the root and without `..` and `:`, such as \
             /compute/args, not `{text}`"
        ))
    }
}

/// The name of a PersistentVolumeClaim or a ConfigMap.
///
/// Source:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names>
pub fn object_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        Ok(text.to_owned())
    } else {
        let text = shown(text);
        Err(format!(
            "must be at most 253 of a-z, 0-9, `-` and `.`, each part beginning and ending with a \
             letter or digit, not `{text}`"
        ))
    }
}

/// A UUID, such as the client id of a managed identity.
pub fn uuid(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hexadecimal = |part: &&str| part.bytes().all(|b| b.is_ascii_hexdigit());
    if lengths == [8, 4, 4, 4, 12] && parts.iter().all(is_hexadecimal) {
        Ok(text.to_owned())
    } else {
        let text = shown(text);
        Err(format!(
            "must be a UUID, such as 01234567-89ab-cdef-0123-456789abcdef, not `{text}`"
        ))
    }
}

/// The path of a URL. One without its first slash gets it.
pub fn url_path(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
    match text.strip_prefix('/').unwrap_or(text) {
        path if is_plain && (1..=1024).contains(&text.len()) => Ok(format!("/{path}")),
        _ => Err(format!(
            "must be the path of a URL, such as /metrics, not `{}`",
            shown(text)
        )),
    }
}

/// Whether one folder is the other or in it.
pub fn is_inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&str) -> Result<String, String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text).as_deref(), Ok(*text));
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_what_kubernetes_allows() {
        let (most, over) = ("x".repeat(63), "x".repeat(64));
        check(
            dns_label,
            &["a", "0", "a-b", &most],
            &["", "A", "-a", "a-", "a.b", "a_b", "æ", &over],
        );
        check(
            service_name,
            &["a", "a0", &most],
            &["0a", "", "A", "a.b", &over],
        );
        check(
            port_name,
            &["http", "h2-1", "0a"],
            &["80", "", "a--b", "Http", "abcdefghijklmnop"],
        );
        check(volume_name, &["scratch"], &["job-payload", "A"]);
        check(
            variable_name,
            &["A", "a.b-c", "A B", "1"],
            &["", "A=B", "Æ", "A\n", "RADIX_APP"],
        );
        check(
            secret_name,
            &["DB_PASSWORD", "a.b-c"],
            &["", "A B", "RADIX_X", &"x".repeat(254)],
        );
    }

    #[test]
    fn names_of_other_objects_are_what_they_can_be() {
        let long = "a".repeat(63);
        let most = [long.as_str(); 3].join(".");
        check(
            object_name,
            &["data", "kube-root-ca.crt", "0", &most],
            &["", "A", "a..b", "-a", "a b"],
        );
        check(
            uuid,
            &["01234567-89ab-cdef-0123-456789abcdef"],
            &[
                "",
                "0123456789abcdef0123456789abcdef",
                "01234567-89ab-cdef-0123-456789abcdeg",
            ],
        );
        check(
            url_path,
            &["/", "/metrics", "/a/b?c=d"],
            &["", "/a b", "/é"],
        );
        assert_eq!(url_path("metrics").as_deref(), Ok("/metrics"));
    }

    #[test]
    fn a_folder_is_absolute_and_normal() {
        check(
            folder,
            &["/a", "/compute/args", "/a b/..c"],
            &["", "/", "a", "./a", "/a/../b", "/..", "/a:b", "//", "/a\n"],
        );
        assert_eq!(folder("/a//b/./c/").as_deref(), Ok("/a/b/c"));
    }

    #[test]
    fn a_folder_may_be_in_another() {
        assert!(is_inside("/a/b", "/a"));
        assert!(is_inside("/a", "/a"));
        assert!(!is_inside("/ab", "/a"));
        assert!(!is_inside("/a", "/a/b"));
    }
}
