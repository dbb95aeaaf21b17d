//! The gRPC health checking protocol: `grpc.health.v1.Health/Check`, one call on a connection of its own.
//!
//! Both messages are a field or none, so they are written and read by hand: `HealthCheckRequest { string service = 1; }`,
//! `HealthCheckResponse { ServingStatus status = 1; }`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Version};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinSet;

use super::ask;
use crate::upstream::Line;

const PATH: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
/// The field that holds how the call went.
const STATUS: &str = "grpc-status";
/// A flag, and the length of the message.
const PREFIX_BYTES: usize = 5;
/// What of an answer is looked at: it is two bytes, as a rule.
const ANSWER_BYTES_MAX: usize = 1024;
/// The number of the only field of either message.
const FIELD: u64 = 1;
const SERVING: u64 = 1;

/// Whether the server says that `service` serves. Otherwise: what it says.
pub async fn check(service: &str, host: Option<&HeaderValue>, line: Line, own: &str, tls: bool) -> Result<(), String> {
    let own = HeaderValue::try_from(own).map_err(|_| "the request cannot be made")?;
    let uri = ask::uri(host.unwrap_or(&own), PATH, tls).ok_or("the request cannot be made")?;
    let request = Request::builder().method(Method::POST).uri(uri).version(Version::HTTP_2);
    let request = request.header(CONTENT_TYPE, GRPC).header(TE, TRAILERS).header(USER_AGENT, ask::AGENT);
    let request = request.body(Full::new(question(service))).map_err(|error| error.to_string())?;
    let mut driver = JoinSet::new();
    let mut sender = ask::h2(line, &mut driver).await?;
    let response = sender.send_request(request).await.map_err(|error| ask::words(&error))?;
    let (head, mut body) = response.into_parts();
    if head.status != 200 {
        return Err(format!("status {}, where gRPC answers with 200", head.status.as_u16()));
    }
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !content_type.starts_with(GRPC.as_bytes()) {
        return Err("the answer is no gRPC".to_owned());
    }
    // An answer without a message has its status in the head.
    let mut status = head.headers.get(STATUS).and_then(grpc_status);
    let mut message = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ask::words(&error))?;
        if let Some(data) = frame.data_ref() {
            message.extend_from_slice(data);
        }
        if message.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
        status = frame.trailers_ref().and_then(|fields| grpc_status(fields.get(STATUS)?)).or(status);
    }
    judge(status, &message)
}

fn judge(status: Option<u32>, message: &[u8]) -> Result<(), String> {
    match status {
        Some(0) => {}
        // As the protocol says it of a service that the server does not know.
        Some(5) => return Err("grpc-status 5: the server does not know this service".to_owned()),
        Some(12) => return Err("grpc-status 12: the server has no health service".to_owned()),
        Some(status) => return Err(format!("grpc-status {status}")),
        None => return Err("the answer has no grpc-status".to_owned()),
    }
    match serving_status(message) {
        Some(SERVING) => Ok(()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("serving status {other}")),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

fn grpc_status(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}

/// A whole message for `service`.
fn question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len().saturating_add(4));
    if !service.is_empty() {
        // The field, of the type that has a length.
        message.push((FIELD << 3 | 2) as u8);
        write_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// The status in an answer; a field that is left out has the value 0.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_at_checked(PREFIX_BYTES)?;
    let (flag, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    // Nobody said that compressed answers are understood.
    if *flag != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = read_varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (FIELD, 0) => status = read_varint(&mut rest)?,
            (_, 0) => drop(read_varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn write_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_is_as_the_protocol_writes_it() {
        assert_eq!(&*question(""), [0, 0, 0, 0, 0]);
        assert_eq!(&*question("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        // A length of two bytes.
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_is_healthy() {
        let answer = |status: u8| [0, 0, 0, 0, 2, 0x08, status];
        assert_eq!(judge(Some(0), &answer(1)), Ok(()));
        for (status, why) in [(0, "UNKNOWN"), (2, "NOT_SERVING"), (3, "SERVICE_UNKNOWN"), (4, "serving status 4")] {
            assert_eq!(judge(Some(0), &answer(status)), Err(why.to_owned()));
        }
        assert_eq!(judge(Some(0), &[0, 0, 0, 0, 0]), Err("UNKNOWN".to_owned()), "the default value is left out");
        for status in [None, Some(5), Some(12), Some(14)] {
            assert!(judge(status, &answer(1)).is_err());
        }
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let message = [0x10, 0x96, 0x01, 0x1a, 2, 8, 2, 0x08, 1, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8];
        let framed = [&[0, 0, 0, 0, message.len() as u8], &message[..]].concat();
        assert_eq!(serving_status(&framed), Some(1));
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let framed = [&[0, 0, 0, 0, bytes.len() as u8], &bytes[..]].concat();
            let _ = serving_status(&framed);
            let _ = serving_status(&bytes);
        }

        #[test]
        fn numbers_are_read_as_written(number in any::<u64>()) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, number);
            prop_assert_eq!(read_varint(&mut bytes.as_slice()), Some(number));
        }
    }
}
