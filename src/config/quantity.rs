//! Kubernetes resource quantities.

use super::tree::shown;
use std::fmt;
use std::str::FromStr;

/// A resource quantity as written, with its value in thousandths.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// As the user wrote it; this is what Kubernetes gets.
    pub text: String,
    /// The value in thousandths (`250m` is 250, `1Gi` is 1,073,741,824,000), rounded up, never
    /// negative.
    pub milli: i128,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq)]
pub enum QuantityError {
    Malformed(String),
    Negative(String),
    /// Over 2^63-1, the most that Kubernetes has.
    TooLarge(String),
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantityError::Malformed(text) => write!(
                f,
                "must be a number with one of the suffixes m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, \
                 or none, such as 250m or 1Gi, not `{}`",
                shown(text)
            ),
            QuantityError::Negative(text) => {
                write!(f, "must not be negative, as {} is", shown(text))
            }
            QuantityError::TooLarge(text) => {
                write!(f, "must be under 8Ei, which {} is not", shown(text))
            }
        }
    }
}

impl Quantity {
    /// Whether it is a number without a fraction.
    pub fn is_whole(&self) -> bool {
        self.milli % 1000 == 0
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        let malformed = || QuantityError::Malformed(text.to_owned());
        let too_large = || QuantityError::TooLarge(text.to_owned());
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(malformed());
        }
        let (factor, divisor) = scale(suffix).ok_or_else(malformed)?;

        let digits = format!("{whole}{fraction}");
        let digits = match digits.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        };
        let mantissa: i128 = digits.parse().map_err(|_| too_large())?;
        if negative && mantissa > 0 {
            return Err(QuantityError::Negative(text.to_owned()));
        }
        let numerator = factor
            .and_then(|factor| mantissa.checked_mul(factor)?.checked_mul(1000))
            .or((mantissa == 0).then_some(0))
            .ok_or_else(too_large)?;
        let denominator = u32::try_from(fraction.len())
            .ok()
            .and_then(|places| 10i128.checked_pow(places)?.checked_mul(divisor?));
        let milli = match denominator {
            Some(denominator) => numerator / denominator + i128::from(numerator % denominator > 0),
            // Smaller than can be told from nothing.
            None => i128::from(numerator > 0),
        };
        if milli > i128::from(i64::MAX) * 1000 {
            return Err(too_large());
        }
        Ok(Quantity {
            text: text.to_owned(),
            milli,
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a suffix multiplies and divides by; an inner `None` is too large to say.
fn scale(suffix: &str) -> Option<(Option<i128>, Option<i128>)> {
    let factor = |factor: i128| Some((Some(factor), Some(1)));
    match suffix {
        "n" => Some((Some(1), Some(1_000_000_000))),
        "u" => Some((Some(1), Some(1_000_000))),
        "m" => Some((Some(1), Some(1000))),
        "" => factor(1),
        "k" => factor(1000),
        "M" => factor(1_000_000),
        "G" => factor(1_000_000_000),
        "T" => factor(1_000_000_000_000),
        "P" => factor(1_000_000_000_000_000),
        "E" => factor(1_000_000_000_000_000_000),
        "Ki" => factor(1 << 10),
        "Mi" => factor(1 << 20),
        "Gi" => factor(1 << 30),
        "Ti" => factor(1 << 40),
        "Pi" => factor(1 << 50),
        "Ei" => factor(1 << 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let (negative, digits) = match exponent.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
            };
            if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
                return None;
            }
            let power = digits.parse().ok().and_then(|n| 10i128.checked_pow(n));
            Some(match negative {
                true => (Some(1), power),
                false => (power, Some(1)),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_their_value_in_thousandths() {
        #[track_caller]
        fn check(text: &str, milli: i128) {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.text.as_str(), quantity.milli), (text, milli));
        }
        check("0", 0);
        check("-0", 0);
        check("2", 2000);
        check("+2", 2000);
        check("250m", 250);
        check("0.1", 100);
        check(".5", 500);
        check("1.", 1000);
        check("1Gi", 1_073_741_824_000);
        check("1.5Ki", 1_536_000);
        check("1k", 1_000_000);
        check("1E", 1_000_000_000_000_000_000_000);
        check("1e3", 1_000_000);
        check("1E3", 1_000_000);
        check("1e-1", 100);
        check("7Ei", 7 * (1 << 60) * 1000);
        check("0.0001", 1);
        check("1n", 1);
        check("1e-400", 1);
        check("0e400", 0);
        check("000000000000000000000000000000000000000000000001", 1000);
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        #[track_caller]
        fn check(text: &str, expected: fn(String) -> QuantityError) {
            assert_eq!(text.parse::<Quantity>(), Err(expected(text.to_owned())));
        }
        for text in [
            "", ".", "m", "1.2.3", "1 Gi", "1GB", "1gi", "1K", "1e", "1e+", "1e1.5", "½", "--1",
            "1Gi ",
        ] {
            check(text, QuantityError::Malformed);
        }
        check("-1", QuantityError::Negative);
        check("-1Gi", QuantityError::Negative);
        for text in [
            "8Ei",
            "10E",
            "1e400",
            "1e99999999999999",
            "99999999999999999999999999999999999999999999",
        ] {
            check(text, QuantityError::TooLarge);
        }
    }
}
