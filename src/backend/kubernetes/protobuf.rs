//! Reads protobuf: a watch in it costs the API server least, which sends all its watchers the same
//! bytes, and us too.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>

use std::fmt;

/// A message that is cut, or of a kind that Kubernetes does not send.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed protobuf")
    }
}

/// What a field holds, as far as its message alone can tell.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Number(u64),
    /// A text, a message, or bytes as such.
    Bytes(&'a [u8]),
}

/// A message of which some fields are read.
pub trait Message<'a>: Default {
    /// Takes a field by its number, or leaves it. Of one that comes more than once, a list's, each
    /// is told in order.
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed>;
}

impl<'a> Value<'a> {
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(Malformed),
        }
    }

    pub fn text(self) -> Result<String, Malformed> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub fn message<T: Message<'a>>(self) -> Result<T, Malformed> {
        decode(self.bytes()?)
    }

    /// A number of a type that may be negative.
    pub fn signed(self) -> Result<i64, Malformed> {
        match self {
            Value::Number(number) => Ok(number.cast_signed()),
            Value::Bytes(_) => Err(Malformed),
        }
    }

    /// A number of another type, of which it must be one.
    pub fn number<T: TryFrom<i64>>(self) -> Result<T, Malformed> {
        T::try_from(self.signed()?).map_err(|_| Malformed)
    }
}

/// Reads a whole message.
pub fn decode<'a, T: Message<'a>>(mut bytes: &'a [u8]) -> Result<T, Malformed> {
    let mut message = T::default();
    while !bytes.is_empty() {
        let (field, value) = next(&mut bytes)?;
        message.take(field, value)?;
    }
    Ok(message)
}

fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let tag = varint(bytes)?;
    let field = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(bytes)?),
        1 => Value::Number(fixed(bytes, 8)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| Malformed)?;
            Value::Bytes(cut_off(bytes, length)?)
        }
        5 => Value::Number(fixed(bytes, 4)?),
        _ => return Err(Malformed),
    };
    Ok((field, value))
}

fn cut_off<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (first, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(first)
}

/// Little-endian.
fn fixed(bytes: &mut &[u8], length: usize) -> Result<u64, Malformed> {
    let digits = cut_off(bytes, length)?.iter().rev();
    Ok(digits.fold(0, |number, digit| number << 8 | u64::from(*digit)))
}

/// Seven bits to a byte, the lowest first, and the eighth set on all but the last.
fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the fields: 1 a number, 2 a text, 3 a message like itself, 4 a list of numbers.
    #[derive(Debug, Default, PartialEq)]
    struct Sample {
        number: i32,
        text: String,
        inner: Option<Box<Sample>>,
        list: Vec<u8>,
    }

    impl<'a> Message<'a> for Sample {
        fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
            match field {
                1 => self.number = value.number()?,
                2 => self.text = value.text()?,
                3 => self.inner = Some(Box::new(value.message()?)),
                4 => self.list.push(value.number()?),
                _ => {}
            }
            Ok(())
        }
    }

    #[test]
    fn fields_are_taken_by_their_numbers_and_others_left() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'o', b'h', // 2: "oh"
            0x1a, 0x0b, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0x01, // 3: 1: -1
            0x20, 0x01, 0x20, 0x02, // 4: 1, 2
            0x29, 1, 0, 0, 0, 0, 0, 0, 0, // 5: eight bytes
            0x35, 1, 0, 0, 0, // 6: four bytes
            0x3a, 0x00, // 7: nothing
        ];
        let inner = Sample {
            number: -1,
            ..Sample::default()
        };
        let expected = Sample {
            number: 150,
            text: "oh".to_string(),
            inner: Some(Box::new(inner)),
            list: vec![1, 2],
        };
        assert_eq!(decode(&bytes), Ok(expected));
        assert_eq!(decode(&[]), Ok(Sample::default()));
    }

    #[test]
    fn what_is_cut_or_of_another_type_is_malformed() {
        let check = |bytes: &[u8]| assert_eq!(decode::<Sample>(bytes), Err(Malformed), "{bytes:?}");
        check(&[0x08]);
        check(&[0x08, 0x96]);
        check(&[0x12, 0x05, b'o']);
        check(&[0x29, 1, 2]);
        check(&[0x0b, 0x0c]); // a group
        check(&[0x0a, 0x00]); // a text where a number is to be
        check(&[0x10, 0x00]); // and the other way round
        check(&[0x08, 0x80, 0x80, 0x80, 0x80, 0x10]); // too large for its type
        check(&[
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ]);
        check(&[
            0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ]);
    }
}
