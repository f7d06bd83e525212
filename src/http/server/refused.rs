//! Why a request is not served before anybody looks at what it asks for. Its connection ends with
//! the answer, since what is left of it could be taken for another request.

use crate::batch::request::MAX_BATCH_PAYLOAD_BYTES;
use crate::http::peer::Stranger;
use crate::http::reply::Reply;
use crate::request::MAX_PAYLOAD_BYTES;

/// A payload of one mebibyte in JSON, were every byte of it escaped as `\u0000`, and room for the
/// other fields.
pub const MAX_BODY_BYTES: usize = 6 * MAX_PAYLOAD_BYTES + 256 * 1024;
/// The payloads of a batch in JSON, were every second byte of it escaped with another, and room for
/// the other fields.
pub const MAX_BATCH_BODY_BYTES: usize = MAX_BATCH_PAYLOAD_BYTES / 2 * 3 + 2 * 1024 * 1024;

#[derive(Debug, PartialEq)]
pub enum Refused {
    /// It is another user's of this machine.
    Stranger(Stranger),
    /// With what a request must have.
    Malformed(&'static str),
    /// It is of another version of HTTP.
    Version,
    HeadTooLarge,
    UnknownCoding,
    /// It may have so many bytes.
    BodyTooLarge(usize),
    /// The client has closed the connection in the middle of it.
    CutOff,
    /// It has not come in time.
    Late,
    /// Others have as much in memory as may be.
    NoRoom,
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Reply {
        let (code, reason, message) = match refused {
            Refused::Stranger(stranger) => (403, "Forbidden", stranger.to_string()),
            Refused::Malformed(wanted) => (400, "BadRequest", format!("HTTP/1.1 has {wanted}")),
            Refused::Version => (505, "HTTPVersionNotSupported", "send HTTP/1.1".into()),
            Refused::HeadTooLarge => {
                let message = "the request may have 100 headers, and 16 KiB of them: send fewer";
                (431, "RequestHeaderFieldsTooLarge", message.into())
            }
            Refused::UnknownCoding => {
                let message = "Transfer-Encoding may be chunked alone: send the body as it is";
                (501, "NotImplemented", message.into())
            }
            Refused::BodyTooLarge(limit) => {
                let payload = match limit {
                    MAX_BATCH_BODY_BYTES => {
                        format!("the payloads in it {MAX_BATCH_PAYLOAD_BYTES} together")
                    }
                    _ => format!("the payload in it {MAX_PAYLOAD_BYTES}"),
                };
                let message = format!("the body may have {limit} bytes, {payload}");
                (413, "RequestEntityTooLarge", message)
            }
            Refused::CutOff => (
                400,
                "BadRequest",
                "the request ended before it was whole".into(),
            ),
            Refused::Late => {
                let message = "the request did not come in time: headers in 10 s, the body in 30 s";
                (408, "Timeout", message.into())
            }
            Refused::NoRoom => return Reply::busy(),
        };
        Reply::failure(code, reason, &message)
    }
}
