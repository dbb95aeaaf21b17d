//! What is so of Redis alone: its settings, its keys, what gateways learn of each other.

use std::time::Duration;

use redis::Commands as _;

use super::super::redis::Server as Address;
use super::super::{Mark, Redis, Spend, Store};
use super::server::{self, settings, try_settings};
use super::{Clock, OTHER, SPACE};
use crate::buckets::{Key, Limiter};
use crate::rates::{Ask, Rates};

const KEY: Key<'_> = Key { bucket: "a", who: "x" };

fn refused(yaml: &str) -> String {
    try_settings(yaml, std::path::Path::new("")).expect_err(yaml)
}

#[test]
fn an_address_is_read_in_both_forms() {
    let short = settings("redis://cache");
    assert_eq!(short.server, Address::Tcp { host: "cache".to_owned(), port: 6379, tls: false });
    assert_eq!((&*short.prefix, short.connections, short.timeout), ("tollgate:", 2, Duration::from_millis(50)));
    assert_eq!((short.database, short.user.is_none(), short.password.is_none()), (0, true, true));
    let long = settings("{ url: \"rediss://ann:p%40ss@[::1]:6380/3\", connections: 64, timeout: 1ms, prefix: a }");
    assert_eq!(long.server, Address::Tcp { host: "::1".to_owned(), port: 6380, tls: true });
    assert_eq!((long.database, long.user.as_deref(), long.connections), (3, Some("ann"), 64));
    assert_eq!(long.password.as_ref().unwrap().expose(), "p@ss");
    let unix = settings("{ url: \"unix:///run/redis.sock?db=2\", password: \"a#b\" }");
    assert_eq!((unix.server, unix.database), (Address::Unix("/run/redis.sock".into()), 2));
    assert_eq!(unix.password.unwrap().expose(), "a#b");
    let changed = settings("{ url: \"redis://:one@cache\" }");
    assert!(changed != settings("{ url: \"redis://:two@cache\" }") && changed == settings("redis://:one@cache"));
}

#[test]
fn what_cannot_be_is_said_without_the_password() {
    for (yaml, words) in [
        ("http://:hunter2@cache", "no address of a Redis server"),
        ("cache:6379", "no address of a Redis server"),
        ("\"\"", "the address is empty"),
        ("redis://:hunter2@cache/x", "Invalid database number"),
        ("redis://:hunter2@cache/-1", "a database has a number"),
        ("\"redis://:hunter2@cache/#1\"", "no `#`"),
        ("\"rediss://:hunter2@cache/#insecure\"", "always verified"),
        ("\"redis://:hunter2@cache?db=1\"", "no `?`"),
        ("redis://ann@cache", "a user without a password"),
        ("{ url: \"redis://:hunter2@cache\", password: other }", "already"),
        ("{ url: \"redis://cache\", user: ann }", "a user needs a password"),
        ("{ url: \"redis://cache\", connections: 0 }", "1 to 64"),
        ("{ url: \"redis://cache\", connections: 65 }", "1 to 64"),
        ("{ url: \"redis://cache\", timeout: 5001ms }", "1ms to 5s"),
        ("{ url: \"redis://cache\", prefix: \"a{\" }", "the prefix"),
        ("{ url: \"redis://cache\", ca: Cargo.toml }", "of no use without TLS"),
        ("{ url: \"rediss://cache\", ca: Cargo.toml }", "no certificate in it"),
        ("{ url: \"rediss://cache\", ca: no.pem }", "No such file"),
        ("{ url: \"redis://cache\", adress: x }", "unknown key `adress`"),
    ] {
        let problems = refused(yaml);
        assert!(problems.contains(words) && !problems.contains("hunter2"), "{yaml}: {problems}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let store = server::up(Redis::open(&server::shared().settings()).unwrap());
    for _ in 0..3 {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server::shared().raw()).unwrap();
        store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
        assert_eq!(store.list(SPACE, None, 9).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_freezes_no_bucket() {
    let settings = server::shared().settings();
    let limiter = server::up(Redis::open(&settings).unwrap());
    let rates = Rates::new(["5/s".parse().unwrap()], None).unwrap();
    assert!(limiter.draw(KEY, &rates, Ask::exactly(5.0)).await.unwrap().admitted);
    let mut raw = server::shared().raw();
    let name = format!("{}{{a|x}}", settings.prefix);
    let bucket: String = raw.get(&name).unwrap();
    let (at, rest) = bucket.split_once(' ').unwrap();
    let ahead = at.parse::<u64>().unwrap() + 3_600_000_000;
    let _: () = raw.set_options(&name, format!("{ahead} {rest}"), redis::SetOptions::default()).unwrap();
    let refused = limiter.draw(KEY, &rates, Ask::exactly(5.0)).await.unwrap();
    assert!(!refused.admitted && refused.retry_in <= Duration::from_secs(1), "{refused:?}");
    tokio::time::sleep(refused.retry_in).await;
    assert!(limiter.draw(KEY, &rates, Ask::exactly(5.0)).await.unwrap().admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_bucket_counts_as_a_full_one() {
    let settings = server::shared().settings();
    let limiter = server::up(Redis::open(&settings).unwrap());
    let rates = Rates::new(["5/hour".parse().unwrap()], None).unwrap();
    let (mut raw, name) = (server::shared().raw(), format!("{}{{a|x}}", settings.prefix));
    for odd in ["", " ", "7", "abc", "1 2", "1 2 3 4 x", "nan 1 1 1 1", "1 nan 1 1 1", "1 inf 1 1 1", "1 -9 1 1 1"] {
        let _: () = raw.set(&name, odd).unwrap();
        assert_eq!(limiter.show(KEY).await.unwrap(), None, "{odd}");
        let drawn = limiter.draw(KEY, &rates, Ask::exactly(5.0)).await.unwrap();
        assert!(drawn.admitted, "{odd}: {drawn:?}");
        assert!(!limiter.draw(KEY, &rates, Ask::exactly(1.0)).await.unwrap().admitted, "{odd}");
    }
    let _: () = raw.del(&name).unwrap();
    let _: () = raw.rpush(&name, "a list").unwrap();
    assert!(limiter.draw(KEY, &rates, Ask::exactly(5.0)).await.unwrap().admitted);
    assert!(!limiter.draw(KEY, &rates, Ask::exactly(1.0)).await.unwrap().admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_goes_when_it_is_full_again() {
    let settings = server::shared().settings();
    let limiter = server::up(Redis::open(&settings).unwrap());
    let rates = Rates::new(["10/s".parse().unwrap(), "600/min".parse().unwrap()], None).unwrap();
    limiter.draw(KEY, &rates, Ask::exactly(5.0)).await.unwrap();
    let left: i64 = server::shared().raw().pttl(format!("{}{{a|x}}", settings.prefix)).unwrap();
    assert!((1..=1500).contains(&left), "{left} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_goes_from_the_lists_too() {
    let (settings, clock) = (server::shared().settings(), Clock::new());
    let store = server::up(Redis::with_clock(&settings, clock.now()).unwrap());
    let mut raw = server::shared().raw();
    let mut names = |what: &str| -> u64 { raw.zcard(format!("{}{{test}}/{what}", settings.prefix)).unwrap() };
    for number in 0..20 {
        let ask = Spend { least: 1, most: 1, limit: 9 };
        store.spend(SPACE, &number.to_string(), ask, clock.later(10).unwrap()).await.unwrap();
    }
    assert_eq!((names("names"), names("ends")), (20, 20));
    // Gateways whose clocks differ by less than a minute agree that it is gone.
    clock.forward(60_010);
    store.put(SPACE, "new", Vec::new(), None).await.unwrap();
    assert_eq!(names("names"), 21);
    clock.forward(1);
    for _ in 0..2 {
        store.put(SPACE, "new", Vec::new(), None).await.unwrap();
    }
    assert_eq!((names("names"), names("ends")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_outlive_their_end_by_a_minute_at_the_server() {
    let (settings, clock) = (server::shared().settings(), Clock::new());
    let store = server::up(Redis::with_clock(&settings, clock.now()).unwrap());
    store.put(SPACE, "a", Vec::new(), clock.later(1000)).await.unwrap();
    store.put(SPACE, "b", Vec::new(), Some(std::time::UNIX_EPOCH + Duration::from_millis(u64::MAX / 2))).await.unwrap();
    let mut raw = server::shared().raw();
    let mut left = |key: &str| -> i64 { raw.pttl(format!("{}{{test}}:{key}", settings.prefix)).unwrap() };
    assert!((1..=61_000).contains(&left("a")));
    assert_eq!(left("b"), -1, "it never comes");
    assert!(store.get(SPACE, "b").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_learn_what_others_wrote() {
    let settings = server::shared().settings();
    let one = server::up(Redis::open(&settings).unwrap());
    let other = server::up(Redis::open(&settings).unwrap());
    let start = other.changes(SPACE, &Mark::default()).await.unwrap();
    assert_eq!((&start.mark, start.keys), (&Mark::default(), Some(Vec::new())), "nothing was written yet");
    one.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    one.put(OTHER, "x", b"1".to_vec(), None).await.unwrap();
    let first = other.changes(SPACE, &start.mark).await.unwrap();
    assert_eq!(first.keys, None, "the first time all has to be read");
    assert!(one.insert(SPACE, "b", b"1".to_vec(), None).await.unwrap());
    assert!(!one.insert(SPACE, "b", b"2".to_vec(), None).await.unwrap());
    assert!(one.replace(SPACE, "a", b"1", b"2".to_vec()).await.unwrap());
    one.take(SPACE, "b").await.unwrap();
    one.take(SPACE, "none").await.unwrap();
    let ask = Spend { least: 1, most: 1, limit: 9 };
    one.spend(SPACE, "counter", ask, Clock::new().later(1_000_000_000_000).unwrap()).await.unwrap();
    let second = other.changes(SPACE, &first.mark).await.unwrap();
    assert_eq!(second.keys.unwrap(), ["b", "a", "b"]);
    let third = other.changes(SPACE, &second.mark).await.unwrap();
    assert_eq!((third.mark, third.keys), (second.mark.clone(), Some(Vec::new())));
    for number in 0..1000 {
        one.put(SPACE, &number.to_string(), Vec::new(), None).await.unwrap();
    }
    assert_eq!(other.changes(SPACE, &second.mark).await.unwrap().keys.unwrap().len(), 1000);
    one.put(SPACE, "more", Vec::new(), None).await.unwrap();
    assert_eq!(other.changes(SPACE, &second.mark).await.unwrap().keys, None, "too many to be told one by one");
    // A server that lost everything: what was known is not known any more.
    let mut raw = server::shared().raw();
    let _: () = raw.del(format!("{}{{test}}/changes", settings.prefix)).unwrap();
    let lost = other.changes(SPACE, &second.mark).await.unwrap();
    assert_eq!((lost.mark, lost.keys), (Mark::default(), None));
}
