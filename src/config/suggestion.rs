//! What a mistyped name was most likely meant to be.

/// The candidate that `given` is most likely meant to be, if it is near enough to one.
pub fn suggestion<'c>(
    given: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // A name is never as long as this, and the distance takes time that grows with the product of the lengths.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            // Of rows as long as `b` and one more, so each index is in range.
            let mut least = (row[j] + usize::from(x != y))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            let swapped = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y;
            if swapped {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
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

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("nmae", "name"), 1);
    }
}
