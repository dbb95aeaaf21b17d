//! TLS to a target, as Pingora is told to speak it.
//!
//! Three things it would do wrong by itself: without a name it verifies nothing, so there always is one; the key of its pool
//! leaves out authorities, protocols and all of a client certificate but its number, so all of it goes into `group_key`; and
//! it knows no least version, so that is looked at before anything is sent.

use std::sync::Arc;

use http::Version;
use pingora::protocols::Digest;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora::{Error, ErrorType};

use super::exchange::Exchange;
use crate::config::{Protocol, TlsVersion, Verify};
use crate::upstream::{NO_H2, TargetName, Tls};

/// What Pingora wants of the certificates of an upstream.
struct Prepared {
    authorities: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
}

/// Makes the peer one of HTTPS.
pub fn secure(peer: &mut HttpPeer, tls: &Tls, name: &TargetName) {
    peer.scheme = Scheme::HTTPS;
    peer.sni.push_str(&name.server_name);
    peer.group_key = tls.key();
    peer.options.verify_cert = tls.verify != Verify::Off;
    peer.options.verify_hostname = tls.verify == Verify::Full;
    if let Some(prepared) = tls.prepared(prepare) {
        peer.options.ca.clone_from(&prepared.authorities);
        peer.client_cert_key.clone_from(&prepared.identity);
    }
}

/// Every certificate was read before, when the configuration was: none of this fails.
fn prepare(tls: &Tls) -> Prepared {
    let read = |der: &[u8]| WrappedX509::new(der.to_vec(), parse_x509);
    let authorities = tls.authorities.as_ref();
    let identity = tls.identity.as_ref().map(|identity| {
        let chain = identity.chain.iter().map(|certificate| certificate.to_vec()).collect();
        Arc::new(CertKey::new(chain, identity.key.secret_der().to_vec()))
    });
    Prepared { authorities: authorities.map(|all| all.iter().map(|der| read(der)).collect()), identity }
}

/// Refuses a connection whose version is too old. Nothing was sent over it yet.
pub fn check_version(x: &Exchange, digest: Option<&Digest>) -> pingora::Result<()> {
    let tls = x.forward.as_ref().and_then(|forward| forward.upstream.tls.as_ref());
    if tls.is_none_or(|tls| tls.min_version == TlsVersion::V12) {
        return Ok(());
    }
    let version = digest.and_then(|digest| digest.ssl_digest.as_ref()).map(|digest| digest.version.as_ref());
    if version == Some("TLSv1_3") {
        return Ok(());
    }
    let why = format!("the target speaks {}, and `min_version` is 1.3", version.unwrap_or("no TLS"));
    Err(Error::explain(ErrorType::TLSHandshakeFailure, why).into_up())
}

/// Refuses a target that did not agree on HTTP/2 where nothing else is wanted.
pub fn check_protocol(x: &Exchange, version: Version) -> pingora::Result<()> {
    let protocol = x.forward.as_ref().map(|forward| forward.upstream.protocol);
    if protocol == Some(Protocol::H2) && version != Version::HTTP_2 {
        return Err(Error::explain(ErrorType::H2Error, NO_H2).into_up());
    }
    Ok(())
}
