//! Asks one target how it is: over a connection of its own, as a new client would.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::compile::{Ask, Check, HttpAsk};
use super::grpc;
use crate::config::Protocol;
use crate::proxy_protocol::{self, Ends, Version};
use crate::upstream::{Line, Target, Upstream};

/// Who asks.
pub const AGENT: HeaderValue = HeaderValue::from_static("tollgate-health");
/// What of a body is looked at.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What of a head is held.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEAD_LIST_BYTES_MAX: u32 = 64 * 1024;

/// Asks a target of `upstream` at `address`. Otherwise: why it is not healthy.
pub async fn ask(check: &Check, upstream: &Upstream, target: &Target, mut address: SocketAddr) -> Result<(), String> {
    if let Some(port) = check.port {
        address.set_port(port);
    }
    match timeout(check.timeout, exchange(check, upstream, target, address)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {}", crate::types::Period(check.timeout))),
    }
}

async fn exchange(check: &Check, upstream: &Upstream, target: &Target, address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
    // Many small exchanges: none waits for another packet.
    let _ = stream.set_nodelay(true);
    // What is asked at another port need not be what expects to be told of clients.
    if let Some(version) = upstream.tells_client.filter(|_| check.port.is_none()) {
        announce(&mut stream, version, address).await.map_err(|error| format!("the connection broke off: {error}"))?;
    }
    let own = target.name.as_ref().map_or(&*target.label, |name| &*name.host);
    match &check.ask {
        Ask::Tcp => Ok(()),
        Ask::Http(http) => {
            let line = secure(stream, upstream, target, false).await?;
            let http2 = line.speaks_h2(upstream.protocol)?;
            judge(http, &by_http(http, line, own, http2, upstream.tls.is_some()).await?.0)
        }
        Ask::Grpc { service, host } => {
            let line = secure(stream, upstream, target, true).await?;
            // A target that requests are not sent to is not well, however it answers checks.
            if upstream.tls.is_some() {
                line.speaks_h2(Protocol::H2)?;
            }
            grpc::check(service, host.as_ref(), line, own, upstream.tls.is_some()).await
        }
    }
}

/// With TLS where the upstream says so.
async fn secure(stream: TcpStream, upstream: &Upstream, target: &Target, h2_alone: bool) -> Result<Line, String> {
    let Some(tls) = &upstream.tls else { return Ok(Line::Plain(stream)) };
    let name = target.name.as_ref().and_then(|name| name.server_name()).ok_or("the target has no name")?;
    let mut config = Arc::clone(&tls.client);
    if h2_alone && config.alpn_protocols != [b"h2"] {
        let mut own = ClientConfig::clone(&config);
        own.alpn_protocols = vec![b"h2".to_vec()];
        config = Arc::new(own);
    }
    Line::secured(config, name, stream).await.map_err(|error| format!("TLS was not agreed on: {error}"))
}

/// The gateway is the client of a check.
async fn announce(stream: &mut TcpStream, version: Version, destination: SocketAddr) -> std::io::Result<()> {
    let ends = Ends { source: stream.local_addr()?, destination };
    stream.write_all(&proxy_protocol::write(version, &ends)).await
}

/// What came of an exchange, as far as it is looked at.
#[derive(Debug)]
struct Answer(u16, Vec<u8>);

async fn by_http(
    http: &HttpAsk,
    line: Line,
    own: &str,
    http2: bool,
    tls: bool,
) -> Result<(Answer, JoinSet<()>), String> {
    let request = request(http, own, http2, tls).ok_or("the request cannot be made")?;
    let mut driver = JoinSet::new();
    let sent = if http2 {
        let mut sender = h2(line, &mut driver).await?;
        sender.send_request(request).await
    } else {
        let mut builder = http1::Builder::new();
        let made = builder.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(line)).await;
        let (mut sender, connection) = made.map_err(|error| words(&error))?;
        // Dropped with the exchange, and the connection with it.
        driver.spawn(async move { drop(connection.await) });
        sender.send_request(request).await
    };
    let response = sent.map_err(|error| words(&error))?;
    let status = response.status().as_u16();
    let body = if http.body.is_some() { read(response, BODY_BYTES_MAX).await? } else { Vec::new() };
    Ok((Answer(status, body), driver))
}

fn request(http: &HttpAsk, own: &str, http2: bool, tls: bool) -> Option<Request<Empty<Bytes>>> {
    let own = HeaderValue::try_from(own).ok()?;
    let host = http.host.clone().unwrap_or(own);
    let mut request = Request::builder().method(http.method.clone());
    request = if http2 {
        request.version(http::Version::HTTP_2).uri(uri(&host, http.path.clone(), tls)?)
    } else {
        let request = request.uri(Uri::from(http.path.clone())).header(HOST, host);
        request.header(CONNECTION, HeaderValue::from_static("close"))
    };
    if !http.fields.iter().any(|(name, _)| *name == USER_AGENT) {
        request = request.header(USER_AGENT, AGENT);
    }
    let fields = http.fields.iter();
    let request = fields.fold(request, |request, (name, value)| request.header(name, value));
    request.body(Empty::new()).ok()
}

/// As HTTP/2 names what is asked for.
pub fn uri(host: &HeaderValue, path: http::uri::PathAndQuery, tls: bool) -> Option<Uri> {
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

/// A connection of HTTP/2; it ends with `driver`.
pub async fn h2<B>(line: Line, driver: &mut JoinSet<()>) -> Result<http2::SendRequest<B>, String>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let made = builder.max_header_list_size(HEAD_LIST_BYTES_MAX).handshake(TokioIo::new(line)).await;
    let (sender, connection) = made.map_err(|error| words(&error))?;
    driver.spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// The first bytes of a body.
pub async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| words(&error))?;
        let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
        let room = bytes_max.saturating_sub(bytes.len());
        bytes.extend_from_slice(data.get(..room).unwrap_or(data));
        if bytes.len() >= bytes_max {
            break;
        }
    }
    Ok(bytes)
}

fn judge(http: &HttpAsk, Answer(status, body): &Answer) -> Result<(), String> {
    if !http.statuses.iter().any(|statuses| statuses.contain(*status)) {
        let expected: Vec<String> = http.statuses.iter().map(ToString::to_string).collect();
        return Err(format!("status {status}, not {}", expected.join(", ")));
    }
    match &http.body {
        Some(wanted) if !wanted.is_in(body) => Err("the body does not hold what it must".to_owned()),
        _ => Ok(()),
    }
}

/// An error and what it came from.
pub fn words(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
