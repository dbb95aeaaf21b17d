//! `allow_ips`: refuses clients by their address.
//!
//! Use it for routes that only an office, a cluster or a partner may reach. The address is that of the client behind
//! `trusted_proxies`; without them it is that of the connection, whatever `X-Forwarded-For` says. An address is no identity:
//! ask for credentials too. Its neighbour `cors` is a permission to browsers and refuses nobody.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `allow` | networks and addresses; all others are refused | everybody |
//! | `deny` | networks and addresses that are refused, in `allow` or not | nobody |
//!
//! IPv4 addresses that arrive in IPv6 form (`::ffff:192.0.2.7`) count as IPv4; `::/0` is every IPv6 address and no IPv4
//! address. A refused client gets 403 `FORBIDDEN`, which says neither its address nor the networks. The time a lookup
//! takes grows with the logarithm of the number of networks.
//!
//! Refused when the configuration is read: neither `allow` nor `deny`, an empty list, a network with bits behind its prefix.
//!
//! Source: [RFC 4632 §3.1](https://www.rfc-editor.org/rfc/rfc4632#section-3.1),
//! [RFC 4291 §2.5.5.2](https://www.rfc-editor.org/rfc/rfc4291#section-2.5.5.2).
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! routes:
//!   - name: admin
//!     match: GET /admin
//!     filters:
//!       - allow_ips: { allow: [10.0.0.0/8, "2001:db8::/32", 192.0.2.7], deny: [10.66.0.0/16] }
//!     respond: { body: welcome }
//! tests:
//!   - { request: GET /admin, from: 10.1.2.3, expect: { status: 200 } }
//!   - { request: GET /admin, from: 192.0.2.7, expect: { status: 200 } }
//!   - { request: GET /admin, from: "::ffff:192.0.2.7", expect: { status: 200 } }
//!   - { request: GET /admin, from: 192.0.2.8, expect: { status: 403, code: FORBIDDEN } }
//!   - { request: GET /admin, from: 10.66.0.1, expect: { status: 403, code: FORBIDDEN } }
//! ```

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::contract::{Compiler, Filter, Hooks, Settings, Step, Verdict};
use crate::head::RequestHead;
use crate::reply::{Code, Rejection};
use crate::types::Network;
use crate::yaml::{Located, Problem};

/// Refuses clients by their address.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AllowIpsSettings {
    /// Networks and addresses; all others are refused. Default: everybody.
    allow: Option<Located<Vec<Network>>>,
    /// Networks and addresses that are refused, in `allow` or not. Default: nobody.
    deny: Option<Located<Vec<Network>>>,
}

impl Settings for AllowIpsSettings {
    const NAME: &'static str = "allow_ips";
    const SUMMARY: &'static str = "refuses clients by their address";

    fn build(self, compiler: &mut Compiler) -> Option<Step> {
        if self.allow.is_none() && self.deny.is_none() {
            let problem = Problem::new(compiler.place(), "`allow_ips` needs `allow` or `deny`");
            compiler.report(problem.with_hint("write `allow: [10.0.0.0/8]`"));
        }
        let mut networks = |written: Option<Located<Vec<Network>>>, hint: &str| {
            if let Some(list) = written.as_ref().filter(|list| list.is_empty()) {
                compiler.report(Problem::new(list.place, "the list is empty").with_hint(hint));
            }
            written.map(|list| Networks::new(&list.value))
        };
        let allow = networks(self.allow, "an empty `allow` would refuse everybody: list networks, or drop the key");
        let deny = networks(self.deny, "list networks, or drop the key");
        Some(Step::filter(AllowIps { allow, deny }))
    }
}

struct AllowIps {
    allow: Option<Networks>,
    deny: Option<Networks>,
}

impl Filter for AllowIps {
    fn hooks(&self) -> Hooks {
        Hooks::REQUEST
    }

    fn on_request(&self, _: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        let client = context.client.to_canonical();
        let denied = self.deny.as_ref().is_some_and(|networks| networks.contain(client));
        let allowed = self.allow.as_ref().is_none_or(|networks| networks.contain(client));
        if allowed && !denied {
            return Verdict::Continue;
        }
        Verdict::Reject(Box::new(Rejection::new(Code::FORBIDDEN, "the client may not use this route")))
    }
}

/// A set of addresses as ranges that are sorted and do not touch.
struct Networks {
    v4: Box<[(u128, u128)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    fn new(networks: &[Network]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for Network(network) in networks {
            match (network, canonical(network)) {
                (_, Some(range)) => v4.push(range),
                (network, None) => v6.push((bits(network.network()), bits(network.broadcast()))),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// `address` in its canonical form.
    fn contain(&self, address: IpAddr) -> bool {
        let ranges = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let wanted = bits(address);
        let after = ranges.partition_point(|(first, _)| *first <= wanted);
        let candidate = after.checked_sub(1).and_then(|index| ranges.get(index));
        candidate.is_some_and(|(_, last)| wanted <= *last)
    }
}

/// The range of an IPv4 network, also when it is written in IPv6 form.
fn canonical(network: &IpNet) -> Option<(u128, u128)> {
    let (first, last) = (network.network().to_canonical(), network.broadcast().to_canonical());
    (first.is_ipv4() && last.is_ipv4()).then(|| (bits(first), bits(last)))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Box<[(u128, u128)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::{context, filter, get, refused};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn passes(settings: &str, client: &str) -> bool {
        let mut context = context();
        context.client = client.parse().unwrap();
        match filter::<AllowIpsSettings>(settings).on_request(&mut get("/"), &mut context) {
            Verdict::Continue => true,
            Verdict::Reject(rejection) => {
                assert_eq!(rejection.code, Code::FORBIDDEN);
                assert!(!rejection.message.contains(client) && rejection.details.is_empty());
                false
            }
            Verdict::Reply(reply) => panic!("{reply:?}"),
        }
    }

    #[test]
    fn a_network_ends_where_it_ends() {
        let allow = "{ allow: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32'] }";
        for inside in
            ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"]
        {
            assert!(passes(allow, inside), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db7::", "2001:db9::", "::a00:0"] {
            assert!(!passes(allow, outside), "{outside}");
        }
    }

    #[test]
    fn deny_wins_and_alone_lets_all_others_pass() {
        let both = "{ allow: [10.0.0.0/8], deny: [10.66.0.0/16] }";
        assert!(passes(both, "10.65.255.255") && passes(both, "10.67.0.0"));
        assert!(!passes(both, "10.66.0.0") && !passes(both, "10.66.255.255") && !passes(both, "192.0.2.1"));
        assert!(passes("{ deny: [10.0.0.0/8] }", "192.0.2.1") && !passes("{ deny: [10.0.0.0/8] }", "10.0.0.1"));
    }

    #[test]
    fn ipv4_in_ipv6_form_is_ipv4() {
        assert!(passes("{ allow: [10.0.0.0/8] }", "::ffff:10.1.2.3"));
        assert!(!passes("{ deny: [10.0.0.0/8] }", "::ffff:10.1.2.3"));
        assert!(passes("{ allow: ['::ffff:10.0.0.0/104'] }", "10.1.2.3"));
        assert!(!passes("{ allow: ['::/0'] }", "10.1.2.3") && !passes("{ allow: ['::/0'] }", "::ffff:10.1.2.3"));
        assert!(passes("{ allow: ['::/0'] }", "2001:db8::1") && !passes("{ allow: [0.0.0.0/0] }", "::1"));
        assert!(passes("{ allow: [0.0.0.0/0] }", "255.255.255.255"));
    }

    #[test]
    fn settings_without_a_network_are_refused() {
        assert!(refused::<AllowIpsSettings>("{}").contains("needs `allow` or `deny`"));
        assert!(refused::<AllowIpsSettings>("{ allow: [] }").contains("refuse everybody"));
        assert!(refused::<AllowIpsSettings>("{ allow: [10.0.0.0/8], deny: [] }").contains("drop the key"));
        assert!(refused::<AllowIpsSettings>("{ allow: [10.0.0.1/8] }").contains("10.0.0.0/8"));
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let networks = ["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "11.0.0.0/8", "13.0.0.0/8"];
        let networks: Vec<Network> = networks.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(Networks::new(&networks).v4.len(), 2);
        let all: Vec<Network> = ["::/1", "8000::/1"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(*Networks::new(&all).v6, [(0, u128::MAX)]);
    }

    proptest! {
        #[test]
        fn ranges_agree_with_the_networks_they_are_made_of(
            written in prop::collection::vec((any::<u8>(), any::<u8>(), 8_u8..=24), 1..40),
            client in (any::<u8>(), any::<u8>(), any::<u8>()),
        ) {
            let network = |(a, b, prefix): (u8, u8, u8)| {
                Network(IpNet::new(Ipv4Addr::new(a % 4, b, 0, 0).into(), prefix).unwrap().trunc())
            };
            let networks: Vec<Network> = written.into_iter().map(network).collect();
            let client = IpAddr::V4(Ipv4Addr::new(client.0 % 4, client.1, client.2, 9));
            let expected = networks.iter().any(|network| network.0.contains(&client));
            prop_assert_eq!(Networks::new(&networks).contain(client), expected);
        }
    }
}
