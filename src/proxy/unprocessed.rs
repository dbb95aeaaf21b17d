//! Requests that a service over HTTP/2 says it has not touched.

use pingora::Error;

/// Whether the service has promised that it did nothing about the request, so that any method may be sent again: it refused
/// the stream, or it went away and named a stream before this one as its last
/// ([RFC 9113 §8.7](https://www.rfc-editor.org/rfc/rfc9113#section-8.7)). The engine's HTTP/2 fails a stream with its
/// service's GOAWAY only when the stream comes behind that last one.
pub fn is_unprocessed(error: &Error) -> bool {
    let Some(cause) = error.root_cause().downcast_ref::<h2::Error>() else { return false };
    let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    cause.is_remote() && (refused || cause.is_go_away())
}
