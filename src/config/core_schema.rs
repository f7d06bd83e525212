//! The types of YAML's plain scalars.

use super::tree::Kind;

/// What a plain scalar is.
///
/// Source: <https://yaml.org/spec/1.2.2/#1032-tag-resolution>
pub fn plain_kind(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
        _ if is_number(text) => Kind::Number,
        _ => Kind::Text,
    }
}

fn is_number(text: &str) -> bool {
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, 16);
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_is_whole =
        exponent.is_none_or(|digits| all(digits.strip_prefix(['-', '+']).unwrap_or(digits), 10));
    let mantissa_is_decimal = match mantissa.split_once('.') {
        Some(("", fraction)) => all(fraction, 10),
        Some((whole, "")) => all(whole, 10),
        Some((whole, fraction)) => all(whole, 10) && all(fraction, 10),
        None => all(mantissa, 10),
    };
    exponent_is_whole && mantissa_is_decimal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_told_apart_as_yaml_says() {
        #[track_caller]
        fn check(kind: Kind, texts: &[&str]) {
            for text in texts {
                assert_eq!(plain_kind(text), kind, "{text}");
            }
        }
        check(Kind::Null, &["", "~", "null", "Null", "NULL"]);
        check(
            Kind::Bool,
            &["true", "True", "TRUE", "false", "False", "FALSE"],
        );
        check(
            Kind::Number,
            &[
                "0", "010", "-1", "+1", "0x1F", "0o17", "1.10", ".5", "1.", "-2e3", "1E+3",
                "1.5e-3", ".inf", "-.Inf", ".NaN",
            ],
        );
        check(
            Kind::Text,
            &[
                "yes", "on", "nULL", "tRUE", "1.2.3", "1e", "1e+", "0x", "0o8", "-0x1", "+", ".",
                ".e1", "e1", "1_000", "1Gi",
            ],
        );
    }
}
