//! What an operator should know of a configuration that is in use.

use std::sync::Arc;

use tracing::{error, warn};

use crate::clock;
use crate::config::Verify;
use crate::gateway::{Gateway, Settings};
use crate::upstream::Upstream;

/// Says it once, when the configuration comes into use.
pub fn tell(gateway: &Gateway) {
    tell_expired(&gateway.settings);
    tell_unverified(&gateway.upstreams());
}

/// Says which certificates have ended. They are used all the same: a client that does not mind is served.
fn tell_expired(settings: &Settings) {
    let now = clock::wall();
    for listener in &settings.listeners {
        let certificates = listener.tls.iter().flat_map(|tls| &tls.ends);
        for (cert, end) in certificates.filter(|(_, end)| *end < now) {
            error!(listener = %listener.address, cert, since = clock::rfc3339(*end), "this certificate has expired");
        }
        let lists = listener.tls.iter().flat_map(|tls| &tls.lists);
        for (crl, end) in lists.filter(|(_, end)| *end < now) {
            let since = clock::rfc3339(*end);
            error!(listener = %listener.address, crl, since, "this revocation list is out of date: no client certificate is taken");
        }
    }
}

/// Says which upstreams anybody could stand in for, and with which of them the gateway has nothing valid to show.
fn tell_unverified(upstreams: &[Arc<Upstream>]) {
    let now = clock::wall();
    for upstream in upstreams {
        let Some(tls) = &upstream.tls else { continue };
        if tls.verify == Verify::Off {
            warn!(
                upstream = &*upstream.name,
                "`verify: off`: whoever stands in between can read and change everything"
            );
        }
        if let Some(identity) = tls.identity.as_ref().filter(|identity| identity.not_after < now) {
            let (cert, since) = (&*identity.file, clock::rfc3339(identity.not_after));
            error!(upstream = &*upstream.name, cert, since, "this client certificate has expired");
        }
    }
}
