//! Whether the head of a service's answer has one reading only.
//!
//! Pingora takes more than it should pass on: codings beside `chunked`, and lengths that are said twice, in which the client may
//! find another end of the body than we did (RFC 9112 §6.3). A service that says such things is answered for with 502.

use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType};

use super::exchange::Exchange;

/// Interim answers (1xx) to a request that are passed on; a service that sends more is not going to answer.
const INTERIM_MAX: u8 = 16;

/// Looks at each head that a service sends, interim ones too.
pub fn check(head: &mut ResponseHeader, x: &mut Exchange) -> pingora::Result<()> {
    if !has_one_reading(head) {
        return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
    }
    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
        interim(x)?;
    }
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // They have no body, whatever they say; a client that believes them would wait for one.
        head.remove_header(&TRANSFER_ENCODING);
        if head.status == StatusCode::NO_CONTENT {
            head.remove_header(&CONTENT_LENGTH);
        }
    }
    Ok(())
}

/// Counts an interim answer.
///
/// # Errors
/// It is one too many.
pub fn interim(x: &mut Exchange) -> pingora::Result<()> {
    let Some(forward) = &mut x.forward else { return Ok(()) };
    forward.interim = forward.interim.saturating_add(1);
    if forward.interim > INTERIM_MAX { Err(Error::new_up(ErrorType::InvalidHTTPHeader)) } else { Ok(()) }
}

/// One length or one coding, in one spelling.
fn has_one_reading(head: &ResponseHeader) -> bool {
    let (mut lengths, mut codings) = (0_u8, 0_u8);
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        if *name == CONTENT_LENGTH {
            lengths = lengths.saturating_add(1);
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return false;
            }
        } else if *name == TRANSFER_ENCODING {
            codings = codings.saturating_add(1);
            if !value.eq_ignore_ascii_case(b"chunked") {
                return false;
            }
        }
    }
    lengths <= 1 && codings <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_one_reading_with(fields: &[(&'static str, &'static str)]) -> bool {
        let mut head = ResponseHeader::build(200, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        has_one_reading(&head)
    }

    #[test]
    fn a_head_with_two_readings_is_found() {
        let (length, coding) = ("Content-Length", "Transfer-Encoding");
        for sound in [
            &[][..],
            &[(length, "0")],
            &[(length, "18446744073709551616")],
            &[(coding, "chunked")],
            &[(coding, "Chunked")],
            &[("X", "a b\tc"), ("X", "")],
        ] {
            assert!(has_one_reading_with(sound), "{sound:?}");
        }
        for odd in [
            &[(length, "5"), (length, "5")][..],
            &[(length, "5, 5")],
            &[(length, "+5")],
            &[(length, "")],
            &[(length, "0x5")],
            &[(coding, "gzip, chunked")],
            &[(coding, "identity")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "")],
        ] {
            assert!(!has_one_reading_with(odd), "{odd:?}");
        }
    }
}
