//! What Pingora asks of a stream beside its bytes.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};

use super::EdgeStream;
use crate::context::Scheme;

#[async_trait]
impl Shutdown for EdgeStream {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody left to tell.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl Peek for EdgeStream {
    /// Only what [`EdgeStream::starts_with_h2`] has read can be peeked at.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        match self.rewound.get(..buf.len()) {
            Some(start) => {
                buf.copy_from_slice(start);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

impl UniqueID for EdgeStream {
    fn id(&self) -> UniqueIDType {
        self.io.as_raw_fd()
    }
}

impl Ssl for EdgeStream {
    /// Over TLS the protocol was agreed on, whatever the first bytes look like.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        (self.connection.scheme == Scheme::Https && self.connection.is_h2()).then_some(ALPN::H2)
    }
}

impl GetTimingDigest for EdgeStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.shared))
    }
}

impl GetSocketDigest for EdgeStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        // Who the peer is stands in [`Connection`].
        None
    }
}

impl std::fmt::Debug for EdgeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeStream").field("peer", &self.connection.peer).finish_non_exhaustive()
    }
}
