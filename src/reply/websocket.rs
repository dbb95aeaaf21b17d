//! Refusing a WebSocket where the client can see why: browsers tell a script nothing of a handshake that failed, only of a
//! connection that was closed. So the handshake is accepted and closed at once.
//! [RFC 6455](https://www.rfc-editor.org/rfc/rfc6455)

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Rejection, Reply};
use crate::head::RequestHead;

/// RFC 6455 §7.4.1: the peer did what it may not.
pub const POLICY_VIOLATION: u16 = 1008;
/// Longest reason in a close frame, in bytes: a control frame holds 125 (§5.5), two of them are the code.
const REASON_BYTES_MAX: usize = 123;

impl Rejection {
    /// The refusal as a handshake that is accepted and closed with `code`; the message is the reason, cut off after 123
    /// bytes. A request that is no handshake of RFC 6455 (§4.2.1) gets the refusal back.
    pub fn into_websocket_close(self, request: &dyn RequestHead, code: u16) -> Result<Reply, Self> {
        let Some(accept) = accept(request) else { return Err(self) };
        let mut reply = Reply::new(StatusCode::SWITCHING_PROTOCOLS)
            .with_field(UPGRADE, HeaderValue::from_static("websocket"))
            .with_field(CONNECTION, HeaderValue::from_static("Upgrade"))
            .with_field(SEC_WEBSOCKET_ACCEPT, accept);
        // A browser that offers subprotocols and is granted none fails the connection before it looks at the close frame.
        if let Some(protocol) = first_protocol(request) {
            reply = reply.with_field(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        reply.body = close_frame(code, &self.message).into();
        reply.code = Some(self.code);
        Ok(reply)
    }
}

/// A close frame of a server, which does not mask (§5.5.1).
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let reason = reason.as_bytes().get(..end).unwrap_or_default();
    let length = u8::try_from(reason.len().saturating_add(2)).unwrap_or(2);
    let mut frame = vec![0x88, length];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason);
    frame
}

/// The value of `Sec-WebSocket-Accept`, when the request is a handshake.
fn accept(request: &dyn RequestHead) -> Option<HeaderValue> {
    let has = |name: &HeaderName, word: &str| {
        let mut found = false;
        request.each(name, &mut |value| {
            found |=
                value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()));
        });
        found
    };
    let handshake = *request.method() == Method::GET
        && has(&UPGRADE, "websocket")
        && has(&CONNECTION, "upgrade")
        && only(request, &SEC_WEBSOCKET_VERSION)? == b"13";
    let key = only(request, &SEC_WEBSOCKET_KEY)?;
    let sound = STANDARD.decode(&key).is_ok_and(|key| key.len() == 16);
    if !handshake || !sound {
        return None;
    }
    HeaderValue::try_from(STANDARD.encode(digest(&key))).ok()
}

/// SHA-1 over the key and a constant (§4.2.2). It shows that the server has read the key; no secret rests on it.
fn digest(key: &[u8]) -> Vec<u8> {
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1.finish().as_ref().to_vec()
}

/// The value of a field that stands there once.
fn only(request: &dyn RequestHead, name: &HeaderName) -> Option<Vec<u8>> {
    let mut values = Vec::new();
    request.each(name, &mut |value| values.push(value.trim_ascii().to_vec()));
    match <[Vec<u8>; 1]>::try_from(values) {
        Ok([value]) => Some(value),
        Err(_) => None,
    }
}

fn first_protocol(request: &dyn RequestHead) -> Option<HeaderValue> {
    let offered = request.get(&SEC_WEBSOCKET_PROTOCOL)?;
    let first = offered.split(|byte| *byte == b',').next()?.trim_ascii();
    HeaderValue::from_bytes(first).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Headers as _, RequestBuf};
    use crate::reply::Code;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn handshake() -> RequestBuf {
        let mut request = RequestBuf::new(Method::GET, "/chat");
        for (name, value) in [
            (UPGRADE, "WebSocket"),
            (CONNECTION, "keep-alive, Upgrade"),
            (SEC_WEBSOCKET_KEY, KEY),
            (SEC_WEBSOCKET_VERSION, "13"),
        ] {
            request.set(&name, HeaderValue::from_static(value));
        }
        request
    }

    fn close(request: &RequestBuf) -> Result<Reply, Rejection> {
        Rejection::new(Code::UNAUTHORIZED, "no valid credential").into_websocket_close(request, POLICY_VIOLATION)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted_and_closed() {
        let reply = close(&handshake()).unwrap();
        let field = |name: HeaderName| reply.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        assert_eq!(reply.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(field(SEC_WEBSOCKET_ACCEPT).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(field(UPGRADE).unwrap(), "websocket");
        assert_eq!(field(SEC_WEBSOCKET_PROTOCOL), None);
        assert_eq!(&reply.body[..], b"\x88\x15\x03\xf0no valid credential");
        assert_eq!(reply.code, Some(Code::UNAUTHORIZED));
    }

    #[test]
    fn the_first_subprotocol_is_granted() {
        let mut request = handshake();
        request.set(&SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat, superchat"));
        let reply = close(&request).unwrap();
        assert!(reply.fields.contains(&(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"))));
    }

    #[test]
    fn what_is_no_handshake_gets_the_plain_refusal() {
        type Change = fn(&mut RequestBuf);
        let changes: [Change; 8] = [
            |request| request.remove(&UPGRADE),
            |request| request.set(&UPGRADE, HeaderValue::from_static("h2c")),
            |request| request.set(&CONNECTION, HeaderValue::from_static("close")),
            |request| request.set(&SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8")),
            |request| request.remove(&SEC_WEBSOCKET_KEY),
            // 15 and 17 bytes.
            |request| request.set(&SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25j")),
            |request| request.set(&SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZTE=")),
            |request| request.append(&SEC_WEBSOCKET_KEY, HeaderValue::from_static(KEY)),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut request = handshake();
            change(&mut request);
            assert_eq!(close(&request).unwrap_err().code, Code::UNAUTHORIZED, "{number}");
        }
        let mut post = RequestBuf::new(Method::POST, "/chat");
        handshake().all(&mut |name, value| {
            post.append(&HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
        });
        assert!(close(&post).is_err());
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        assert_eq!(close_frame(1000, &"a".repeat(123)).len(), 127);
        assert_eq!(close_frame(1000, &"a".repeat(124)).len(), 127);
        let frame = close_frame(1000, &"ä".repeat(100));
        assert_eq!((frame[1], frame.len()), (124, 126));
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
