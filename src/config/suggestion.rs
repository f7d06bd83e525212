//! What a mistyped name was most likely meant to be.

/// The candidate that `given` is most likely meant to be, if it is near enough to one.
pub fn suggestion<'c>(
    given: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // A name is never as long as this, and the distance takes time that grows with the product of
    // the lengths.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&given, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_gets_a_suggestion() {
        #[track_caller]
        fn check(given: &str, expected: Option<&str>) {
            let names = ["schedulerPort", "payload", "ports", "args", "image"];
            assert_eq!(suggestion(given, names), expected, "{given}");
        }
        check("schedulerport", Some("schedulerPort"));
        check("schedularPort", Some("schedulerPort"));
        check("PAYLOAD", Some("payload"));
        check("port", Some("ports"));
        check("arg", Some("args"));
        check("imgae", Some("image"));
        check("cpu", None);
        check("", None);
        check(&"x".repeat(100_000), None);
    }
}
