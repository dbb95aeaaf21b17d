use crate::config::load::Attached;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::*;
use crate::head::{Headers as _, Method, RequestBuf};
use crate::observe::metrics::Metrics;
use crate::upstream::Around;
use crate::upstream::discovery::Discovery;
use crate::yaml::{Place, Sources, decode, parse};

fn node<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    let mut sources = Sources::new();
    let file = sources.add("test.yaml", yaml);
    decode(&parse(&sources, file).unwrap()).unwrap()
}

fn upstream(name: &Located<String>) -> Option<Arc<Slot>> {
    let written = node("targets: [{ address: 10.0.0.1:80 }]");
    let name = Located::new(name.value.clone(), Place::UNKNOWN);
    let (metrics, discovery, files) = (Metrics::new(1000), Discovery::default(), Attached::new());
    let around = Around { metrics: &metrics, discovery: &discovery, base: Path::new(""), files: &files };
    Slot::compile(&name, &written, None, around).ok()
}

fn check(yaml: &str) -> (Option<Split>, Vec<Problem>) {
    let mut problems = Vec::new();
    (Split::compile(&node(yaml), upstream, &mut problems), problems)
}

fn split(yaml: &str) -> Split {
    let (split, problems) = check(yaml);
    split.unwrap_or_else(|| panic!("{problems:?}"))
}

fn with(field: &str, value: &str) -> RequestBuf {
    let mut head = RequestBuf::new(Method::GET, "/");
    head.set(&HeaderName::from_bytes(field.as_bytes()).unwrap(), value.parse().unwrap());
    head
}

fn goes(split: &Split, head: &RequestBuf) -> String {
    split.choose(&Hints { head, client: None, consumer: None }).unwrap().name.to_string()
}

const HEAVY: &str = "split: [{ upstream: stable, weight: 95 }, { upstream: canary, weight: 5 }]";

#[test]
fn each_gets_exactly_its_share() {
    let split = split(HEAVY);
    let head = with("x", "1");
    let sides: Vec<String> = (0..10_000).map(|_| goes(&split, &head)).collect();
    assert_eq!(sides.iter().filter(|side| *side == "canary").count(), 500);
    // Spread out: one of any twenty in a row.
    assert!(sides.chunks(20).all(|some| some.iter().filter(|side| *side == "canary").count() == 1));
}

#[test]
fn a_key_always_goes_the_same_way_and_all_of_them_by_weight() {
    let keyed = |weights: (u32, u32)| {
        let (stable, canary) = weights;
        split(&format!(
            "{{ split: [{{ upstream: stable, weight: {stable} }}, {{ upstream: canary, weight: {canary} }}], by: {{ header: X-User }} }}"
        ))
    };
    let few = keyed((95, 5));
    let canary = |split: &Split, user: usize| goes(split, &with("x-user", &format!("user-{user}"))) == "canary";
    let chosen: Vec<usize> = (0..10_000).filter(|user| canary(&few, *user)).collect();
    // Within five standard deviations of 500.
    assert!((390..=610).contains(&chosen.len()), "{}", chosen.len());
    assert!(chosen.iter().all(|user| canary(&few, *user)));
    let more = keyed((80, 20));
    assert!(chosen.iter().all(|user| canary(&more, *user)), "nobody leaves a canary that grows");
    // Without the key the turn decides.
    let sides = (0..100).filter(|_| goes(&few, &with("x", "1")) == "canary").count();
    assert_eq!(sides, 5);
}

#[test]
fn clients_and_consumers_are_keys_too() {
    let by_ip = split(&format!("{{ {HEAVY}, by: ip }}"));
    let by_consumer = split(&format!("{{ {HEAVY}, by: consumer }}"));
    let head = with("x", "1");
    for number in 0..100 {
        let client = Some(IpAddr::V4(Ipv4Addr::from(number)));
        let hints = Hints { head: &head, client, consumer: None };
        assert!(by_ip.settled(&hints).is_some() && by_consumer.settled(&hints).is_none());
        let name = number.to_string();
        let hints = Hints { head: &head, client: None, consumer: Some(&name) };
        assert!(by_ip.settled(&hints).is_none() && by_consumer.settled(&hints).is_some());
    }
}

#[test]
fn a_field_decides_before_weight_and_key() {
    let yaml = "{ split: [{ upstream: stable, weight: 1 }, { upstream: canary, weight: 0, when: { header: X-Canary, value: yes } }], by: ip }";
    let split = split(&yaml.replace("yes", "\"yes\""));
    assert!((0..10).all(|_| goes(&split, &with("x-canary", "yes")) == "canary"));
    for other in ["YES", "yes ", "no", ""] {
        assert!((0..10).all(|_| goes(&split, &with("x-canary", other)) == "stable"), "{other}");
    }
}

#[test]
fn mistakes_are_said() {
    for (yaml, message) in [
        ("split: []", "a split has 1 to 100 parts, not 0"),
        ("split: [{ upstream: a, weight: 1001 }]", "`weight` must be 0 to 1000, not 1001"),
        ("split: [{ upstream: a, weight: 0 }]", "no part of this split has a weight"),
        ("split: [{ upstream: a, weight: 1 }, { upstream: a, weight: 1 }]", "upstream `a` stands here twice"),
        ("{ split: [{ upstream: a, weight: 1 }], by: { header: 'no name' } }", "`no name` is no name of a field"),
        ("split: [{ upstream: a, weight: 1, when: { header: 'a b', value: c } }]", "`a b` is no name of a field"),
    ] {
        let (split, problems) = check(yaml);
        assert!(split.is_none(), "{yaml}");
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, [message], "{yaml}");
    }
}
