//! Which image a job runs, from `image` and `imageTagName`.

use super::{Settings, tree::shown};
use std::fmt;

const PLACEHOLDER: &str = "{imageTagName}";

/// Why the settings name no image.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageError {
    /// Neither the configuration nor the request gives one.
    NoImage,
    /// The image has a placeholder that nothing fills.
    NoTag { image: String },
    /// The image is pinned by digest, so a tag would change nothing.
    Pinned { image: String, tag: String },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::NoImage => f.write_str(
                "image: the job has none: set `image`, or, for a component that is built from `src`, \
                 say which image that gave",
            ),
            ImageError::NoTag { image } => write!(
                f,
                "imageTagName: is missing: `{}` needs one in place of `{PLACEHOLDER}`",
                shown(image)
            ),
            ImageError::Pinned { image, tag } => write!(
                f,
                "imageTagName: `{}` cannot replace the tag of `{}`, which is pinned by digest: set `image`",
                shown(tag),
                shown(image)
            ),
        }
    }
}

impl std::error::Error for ImageError {}

impl Settings {
    /// The image to run: `imageTagName` fills `{imageTagName}`, or replaces the tag where there is
    /// no placeholder.
    pub fn image_reference(&self) -> Result<String, ImageError> {
        let image = self.image.as_deref().ok_or(ImageError::NoImage)?;
        match &self.image_tag_name {
            Some(tag) if has_placeholder(image) => Ok(image.replace(PLACEHOLDER, tag)),
            Some(tag) if image.contains('@') => Err(ImageError::Pinned {
                image: image.to_owned(),
                tag: tag.clone(),
            }),
            Some(tag) => Ok(format!("{}:{tag}", without_tag(image))),
            None if has_placeholder(image) => Err(ImageError::NoTag {
                image: image.to_owned(),
            }),
            None => Ok(image.to_owned()),
        }
    }
}

/// Whether an image needs an `imageTagName`.
pub fn has_placeholder(image: &str) -> bool {
    image.contains(PLACEHOLDER)
}

/// A colon after the last slash begins the tag; one before it, a registry's port.
fn without_tag(image: &str) -> &str {
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    match image.rfind(':') {
        Some(colon) if colon >= name => image.get(..colon).unwrap_or(image),
        _ => image,
    }
}

/// Checks the value of `image`.
pub fn image(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty: give an image, or leave the field out".to_owned());
    }
    if text.len() > 512 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let text = shown(text);
        return Err(format!(
            "must be an image, such as registry.example.com/compute:1, not `{text}`"
        ));
    }
    if text.replace(PLACEHOLDER, "").contains(['{', '}']) {
        let text = shown(text);
        return Err(format!(
            "has a placeholder that is not `{PLACEHOLDER}`, the only one: `{text}`"
        ));
    }
    Ok(text.to_owned())
}

/// Checks the value of `imageTagName`.
///
/// Source:
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
pub fn image_tag_name(text: &str) -> Result<String, String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let allowed = |c: char| word(c) || matches!(c, '.' | '-');
    if text.len() <= 128 && text.starts_with(word) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        let text = shown(text);
        Err(format!(
            "must be at most 128 letters, digits, `_`, `.` and `-`, beginning with a letter, digit or \
             `_`, not `{text}`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_fills_the_placeholder_or_replaces_the_tag() {
        #[track_caller]
        fn check(image: &str, tag: &str, expected: &str) {
            let settings = Settings {
                image: (!image.is_empty()).then(|| image.to_owned()),
                image_tag_name: (!tag.is_empty()).then(|| tag.to_owned()),
                ..Settings::default()
            };
            let outcome = settings.image_reference();
            assert_eq!(outcome.unwrap_or_else(|error| error.to_string()), expected);
        }
        check("compute:1", "", "compute:1");
        check("compute:1", "2", "compute:2");
        check("compute", "2", "compute:2");
        check("host:5000/a/compute", "2", "host:5000/a/compute:2");
        check("host:5000/a/compute:1", "2", "host:5000/a/compute:2");
        check("host/a:{imageTagName}-slim", "2", "host/a:2-slim");
        check("host/a@sha256:00", "", "host/a@sha256:00");
        check(
            "host/a:{imageTagName}",
            "",
            "imageTagName: is missing: `host/a:{imageTagName}` needs one in place of `{imageTagName}`",
        );
        check(
            "host/a:1@sha256:00",
            "2",
            "imageTagName: `2` cannot replace the tag of `host/a:1@sha256:00`, which is pinned by digest: set `image`",
        );
        check(
            "",
            "2",
            "image: the job has none: set `image`, or, for a component that is built from `src`, say which image that gave",
        );
    }

    #[test]
    fn images_and_tags_are_checked() {
        for good in ["a", "host:5000/a:1", "a:{imageTagName}", "a@sha256:00"] {
            assert_eq!(image(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "a\n", "a:{tag}", "æ", &"a".repeat(513)] {
            assert!(image(bad).is_err(), "{bad:?}");
        }
        for good in ["1.10", "_x", "a-b"] {
            assert_eq!(image_tag_name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".a", "-a", "a:b", "a/b", &"a".repeat(129)] {
            assert!(image_tag_name(bad).is_err(), "{bad:?}");
        }
    }
}
