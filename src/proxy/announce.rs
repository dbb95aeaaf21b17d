//! Connections to targets that begin with the address of the client: the PROXY protocol.
//!
//! Such a connection belongs to one client. The pool finds connections by a hash, so the hash has the client's address in it;
//! and as a hash is not the address itself, each connection remembers what it began with, and that is compared before
//! anything of a request is sent.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, GetProxyDigest as _};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::edge::Connection;
use super::exchange::Exchange;
use crate::context::Context;
use crate::proxy_protocol::{self, Ends, Version};

/// How long an unused connection waits for its client, unless the upstream says something else. Most clients are gone for
/// good, and the pool is for all of them.
const KEPT: Duration = Duration::from_secs(10);

/// Of this process: nobody can choose addresses whose hashes are equal.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Makes the connection of an attempt begin with who the client is.
pub fn begin(peer: &mut HttpPeer, version: Version, connection: Option<&Connection>, context: Option<&Context>) {
    let announced = Announced { version, ends: ends(connection, context) };
    peer.group_key = HASHES.hash_one((peer.group_key, announced));
    let options = &mut peer.options;
    options.idle_timeout = options.idle_timeout.or(Some(KEPT));
    options.custom_l4 = Some(Arc::new(announced));
}

/// Refuses a connection that began for somebody else.
pub fn check(x: &Exchange, digest: Option<&Digest>) -> pingora::Result<()> {
    let version = x.forward.as_ref().and_then(|forward| forward.upstream.tells_client);
    let Some(version) = version else { return Ok(()) };
    let wanted = Announced { version, ends: ends(x.connection.as_deref(), x.context.as_ref()) };
    let began = digest.and_then(|digest| digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref::<Announced>());
    if began == Some(&wanted) {
        return Ok(());
    }
    Error::e_explain(ErrorType::InternalError, "this connection began for another client")
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Announced {
    version: Version,
    ends: Ends,
}

/// Both ends of the client's connection. Of a client behind a trusted proxy that speaks HTTP the address is known, and no port.
fn ends(connection: Option<&Connection>, context: Option<&Context>) -> Ends {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let peer = connection.map_or(nowhere, |connection| connection.peer);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let client = context.map(|context| context.client).filter(|client| *client != peer.ip());
    Ends {
        source: client.map_or(peer, |client| SocketAddr::new(client, 0)),
        destination: connection.and_then(|connection| connection.reached).unwrap_or(nowhere),
    }
}

#[async_trait]
impl L4Connect for Announced {
    /// Bounded by `timeouts.connect` of the upstream, which covers all it takes to make a connection.
    async fn connect(&self, address: &PeerAddress) -> pingora::Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::InternalError, "a target without an address");
        };
        let connecting = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&proxy_protocol::write(self.version, &self.ends)).await?;
            Ok(stream)
        };
        let stream = connecting.await.map_err(|error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, format!("cannot connect to {address}"), error)
        })?;
        let mut stream = Stream::from(stream);
        let response = ResponseHeader::build(200, None).or_err(ErrorType::InternalError, "no head")?;
        stream.set_proxy_digest(ProxyDigest::new(Box::new(response), Some(Box::new(*self))));
        Ok(stream)
    }
}
