//! What a failed exchange means: for the client, and for the counters.

use std::io;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use pingora::{Error, ErrorSource, ErrorType};

use super::exchange::Exchange;
use crate::observe::metrics::UpstreamError;
use crate::reply::{Code, Rejection};

/// How an exchange failed.
pub enum Failure {
    /// The client can be told.
    Refuse(Rejection),
    /// The client is gone; there is nobody to tell.
    ClientGone,
}

/// The status in the log when the client left before it had an answer, as nginx writes it.
pub const CLIENT_GONE: u16 = 499;

/// When to ask again while every target is full, in seconds.
const RETRY_AFTER_FULL: HeaderValue = HeaderValue::from_static("1");

/// What to tell the client. The error itself goes to the log only: it names addresses.
pub fn explain(error: &Error, exchange: &Exchange) -> Failure {
    if let Some(code) = exchange.code {
        let rejection = Rejection::new(code, message(code));
        // Every target had as much to do as it may have: soon one of them is done with something.
        let again = exchange.forward.is_some() && code == Code::OVERLOADED;
        return Failure::Refuse(if again { rejection.with_field(RETRY_AFTER, RETRY_AFTER_FULL) } else { rejection });
    }
    if exchange.connection.as_ref().is_some_and(|connection| connection.expired()) {
        if exchange.forward.is_none() {
            // No service was asked: it was the client that did not take our own answer in time.
            return Failure::ClientGone;
        }
        return Failure::Refuse(Rejection::new(Code::GATEWAY_TIMEOUT, message(Code::GATEWAY_TIMEOUT)));
    }
    let code = match (error.esource(), error.etype()) {
        (_, ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout) => Code::GATEWAY_TIMEOUT,
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Code::GATEWAY_TIMEOUT,
        (ErrorSource::Upstream, _) => Code::BAD_GATEWAY,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Code::REQUEST_TIMEOUT,
        (
            ErrorSource::Downstream,
            ErrorType::ReadError | ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ConnectionClosed,
        ) => return Failure::ClientGone,
        // A chunk size that is none, a field nominated by Connection that may not be.
        (ErrorSource::Downstream, _) | (_, ErrorType::InvalidHTTPHeader) => Code::BAD_REQUEST,
        (ErrorSource::Internal | ErrorSource::Unset, _) => Code::INTERNAL,
    };
    Failure::Refuse(Rejection::new(code, message(code)))
}

fn message(code: &Code) -> &'static str {
    match code.name {
        "GATEWAY_TIMEOUT" => "the service did not answer in time",
        "BAD_GATEWAY" => "the service cannot be reached or did not answer properly",
        "OVERLOADED" => "the service has as many requests at once as it may have",
        "CIRCUIT_OPEN" => "the service failed too often and is left alone for a while",
        "UPSTREAM_UNAVAILABLE" => "the service is not available",
        "REQUEST_TIMEOUT" => "the request did not arrive in time",
        "BODY_TOO_LARGE" => "the request body is too large",
        "BAD_REQUEST" => "the request is not valid",
        _ => "the gateway could not handle the request",
    }
}

/// How an exchange that broke off is counted, if the service is to blame. A deadline for the service is kept on the client's
/// connection: when it passes, the error seems to be the client's.
pub fn blame(error: &Error, exchange: &Exchange) -> Option<UpstreamError> {
    if exchange.connection.as_ref().is_some_and(|connection| connection.expired()) {
        return Some(UpstreamError::Timeout);
    }
    (*error.esource() == ErrorSource::Upstream).then(|| kind(error))
}

/// How a failed attempt is counted.
pub fn kind(error: &Error) -> UpstreamError {
    match error.etype() {
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::SocketError
        | ErrorType::BindError => UpstreamError::Connect,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => UpstreamError::Tls,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => UpstreamError::Timeout,
        // A target may refuse the certificate of the gateway when the handshake seems to be over (RFC 8446 §4.4.2.4).
        ErrorType::ReadError | ErrorType::WriteError if is_tls(error) => UpstreamError::Tls,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => UpstreamError::Reset,
        ErrorType::InvalidHTTPHeader
        | ErrorType::H1Error
        | ErrorType::H2Error
        | ErrorType::H2Downgrade
        | ErrorType::InvalidH2 => UpstreamError::Protocol,
        _ => UpstreamError::Other,
    }
}

/// Whether TLS broke off, or came to no end.
fn is_tls(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    matches!(cause, Some(cause) if cause.is::<rustls::Error>())
}
