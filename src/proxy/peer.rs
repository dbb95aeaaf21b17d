//! Where and how to connect.

use std::time::Duration;

use pingora::protocols::{ALPN, TcpKeepalive};
use pingora::upstreams::peer::HttpPeer;

use super::exchange::Chosen;
use super::secured::secure;
use crate::config::Protocol;
use crate::upstream::Upstream;

/// Most concurrent streams on one HTTP/2 connection to a target.
const H2_STREAMS_MAX: usize = 100;
/// A connection whose other end vanished without a word is given up after about a minute and a half.
pub const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 3,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::from_secs(0),
};

/// The target of an attempt, with the bounds of its upstream. With TLS it has a `name`.
pub fn peer(upstream: &Upstream, chosen: &Chosen, remaining: Option<Duration>, is_upgrade: bool) -> Box<HttpPeer> {
    let mut peer = Box::new(HttpPeer::new(chosen.address, false, String::new()));
    if let (Some(tls), Some(name)) = (&upstream.tls, &chosen.name) {
        secure(&mut peer, tls, name);
    }
    let timeouts = &upstream.timeouts;
    let options = &mut peer.options;
    options.connection_timeout = Some(shorter(timeouts.connect, remaining));
    options.total_connection_timeout = options.connection_timeout;
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = timeouts.keepalive;
    options.tcp_keepalive = Some(TCP_KEEPALIVE);
    match upstream.protocol {
        Protocol::Http1 => {}
        // What HTTP/1.1 is upgraded to does not go over HTTP/2.
        Protocol::Auto if is_upgrade => {}
        Protocol::H2c | Protocol::H2 => options.alpn = ALPN::H2,
        Protocol::Auto => options.alpn = ALPN::H2H1,
    }
    if upstream.protocol != Protocol::Http1 {
        options.max_h2_streams = H2_STREAMS_MAX;
    }
    peer
}

/// The shorter of the two.
pub fn shorter(a: Duration, b: Option<Duration>) -> Duration {
    b.map_or(a, |b| a.min(b))
}
