use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use super::*;
use crate::caller::{Credential, Scopes};
use crate::contract::testing::node;
use crate::identity::{RoleSettings, Shared, Written};
use crate::state::{Entry, Limits, Memory, Pending, Spend, Spent};
use crate::yaml::{Named, decode};

const NEVER: u64 = 10_000_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The begin of this day, in seconds: the store forgets what is long past.
fn today() -> u64 {
    seconds(crate::clock::wall()) / 86_400 * 86_400
}

fn hash(key: &str) -> String {
    Digest::of(key.as_bytes()).unwrap().to_string()
}

fn record(id: &str, key: &str) -> Record {
    Record {
        id: id.to_owned(),
        name: "shop".to_owned(),
        description: String::new(),
        prefix: "tg_aaaaaaaa".to_owned(),
        sha256: hash(key),
        previous: None,
        scopes: vec!["read:x".to_owned()],
        rates: None,
        roles: vec!["viewer".to_owned()],
        disabled: false,
        created_at: 1,
        created_by: "console".to_owned(),
        updated_at: 1,
        expires_at: NEVER,
    }
}

/// A store that can be made to fail.
struct Fragile {
    inner: Memory,
    broken: AtomicBool,
}

impl Fragile {
    fn breaks(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn or_fail<'a, T: Send + 'a>(&self, work: impl FnOnce() -> Pending<'a, T>) -> Pending<'a, T> {
        if self.broken.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError("away".to_owned())) });
        }
        work()
    }
}

impl Store for Fragile {
    fn get<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        self.or_fail(|| self.inner.get(space, key))
    }
    fn put<'a>(&'a self, space: Space, key: &'a str, value: Vec<u8>, expires: Option<SystemTime>) -> Pending<'a, ()> {
        self.or_fail(|| self.inner.put(space, key, value, expires))
    }
    fn insert<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        self.or_fail(|| self.inner.insert(space, key, value, expires))
    }
    fn replace<'a>(&'a self, space: Space, key: &'a str, expected: &'a [u8], value: Vec<u8>) -> Pending<'a, bool> {
        self.or_fail(|| self.inner.replace(space, key, expected, value))
    }
    fn exchange<'a>(
        &'a self,
        space: Space,
        key: &'a str,
        expected: &'a [u8],
        value: Vec<u8>,
        expires: Option<SystemTime>,
    ) -> Pending<'a, bool> {
        self.or_fail(|| self.inner.exchange(space, key, expected, value, expires))
    }

    fn take<'a>(&'a self, space: Space, key: &'a str) -> Pending<'a, Option<Vec<u8>>> {
        self.or_fail(|| self.inner.take(space, key))
    }
    fn spend<'a>(&'a self, space: Space, key: &'a str, ask: Spend, expires: SystemTime) -> Pending<'a, Spent> {
        self.or_fail(|| self.inner.spend(space, key, ask, expires))
    }
    fn give_back<'a>(&'a self, space: Space, key: &'a str, amount: u64) -> Pending<'a, ()> {
        self.or_fail(|| self.inner.give_back(space, key, amount))
    }
    fn list<'a>(&'a self, space: Space, after: Option<&'a str>, limit: usize) -> Pending<'a, Vec<Entry>> {
        self.or_fail(|| self.inner.list(space, after, limit))
    }
}

struct Bench {
    store: Arc<Fragile>,
    shared: Arc<Shared>,
}

impl Bench {
    async fn new() -> Self {
        let store = Arc::new(Fragile { inner: Memory::new(Limits::default()), broken: AtomicBool::new(false) });
        let bench = Self::over(&store);
        bench.shared.read_keys().await;
        bench
    }

    /// Another process with the same store.
    fn over(store: &Arc<Fragile>) -> Self {
        let shared = Arc::new(Shared::default());
        let attached: Arc<Fragile> = Arc::clone(store);
        shared.attach(attached);
        Self { store: Arc::clone(store), shared }
    }

    fn identity(&self, viewer: &str) -> Arc<Identity> {
        let text = format!("{{ viewer: {{ scopes: [{viewer}] }} }}");
        let roles: Named<RoleSettings> = decode(&node(&text)).unwrap();
        let written = Written { roles: roles.iter().map(|(name, role)| (name, role)).collect(), ..Written::default() };
        let mut problems = Vec::new();
        let identity = Identity::compile(&written, &self.shared, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        identity
    }

    fn managed(&self) -> &ManagedKeys {
        self.shared.managed()
    }

    async fn create(&self, record: Record) {
        self.managed().create(self.store.as_ref(), record, 100).await.unwrap();
    }

    async fn change(&self, id: &str, edit: impl Fn(&mut Record)) {
        let edit = |record: &Record| {
            let mut edited = record.clone();
            edit(&mut edited);
            Ok::<_, ()>(edited)
        };
        self.managed().change(self.store.as_ref(), id, edit).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_key_is_found_from_the_moment_it_is_made_until_it_is_revoked() {
    let bench = Bench::new().await;
    let identity = bench.identity("read:shop");
    assert_eq!(identity.api_key(b"secret", at(5)).unwrap_err(), Reason::Unknown);
    bench.create(record("key_1", "secret")).await;
    let caller = identity.api_key(b"secret", at(5)).unwrap();
    assert_eq!((&*caller.name, &caller.scopes), ("shop", &Scopes::new(["read:shop", "read:x"])));
    assert!(matches!(&caller.credential, Credential::Key { id, managed: true, .. } if &**id == "key_1"));
    assert_eq!(identity.still_holds(&caller, at(5)), Ok(()));
    assert!(Arc::ptr_eq(&caller, &identity.api_key(b"secret", at(5)).unwrap()), "made once");

    let revoked = bench.managed().revoke(bench.store.as_ref(), "key_1", |_| Ok::<_, ()>(())).await;
    assert!(matches!(revoked, Ok(Ok(()))));
    assert_eq!(identity.api_key(b"secret", at(5)).unwrap_err(), Reason::Unknown);
    assert_eq!(identity.still_holds(&caller, at(5)), Err(Reason::Revoked));
    let again = bench.managed().revoke(bench.store.as_ref(), "key_1", |_| Ok::<_, ()>(())).await;
    assert!(matches!(again, Err(WriteError::NotFound)));
}

#[tokio::test]
async fn a_key_ends_with_its_second_and_can_be_disabled() {
    let bench = Bench::new().await;
    let identity = bench.identity("read:shop");
    bench.create(Record { expires_at: 100, ..record("key_1", "secret") }).await;
    let caller = identity.api_key(b"secret", at(99)).unwrap();
    assert_eq!(identity.api_key(b"secret", at(100)).unwrap_err(), Reason::Expired);
    bench.change("key_1", |record| record.disabled = true).await;
    assert_eq!(identity.api_key(b"secret", at(99)).unwrap_err(), Reason::Disabled);
    assert_eq!(identity.still_holds(&caller, at(99)), Err(Reason::Disabled));
    bench.change("key_1", |record| record.disabled = false).await;
    assert!(identity.api_key(b"secret", at(99)).is_ok());
}

#[tokio::test]
async fn a_reload_that_changes_roles_changes_what_a_key_may_do() {
    let bench = Bench::new().await;
    bench.create(record("key_1", "secret")).await;
    let before = bench.identity("read:a");
    let after = bench.identity("read:b");
    for _ in 0..2 {
        let scopes = before.api_key(b"secret", at(5)).unwrap().scopes.clone();
        assert!(scopes.allow("read:a") && !scopes.allow("read:b"));
        let scopes = after.api_key(b"secret", at(5)).unwrap().scopes.clone();
        assert!(scopes.allow("read:b") && !scopes.allow("read:a"));
    }
}

#[tokio::test]
async fn a_consumer_that_comes_later_owns_its_name() {
    let bench = Bench::new().await;
    bench.create(record("key_1", "secret")).await;
    let caller = bench.identity("read:a").api_key(b"secret", at(5)).unwrap();
    let consumer = decode(&node("{ name: shop }")).unwrap();
    let written = Written { consumers: vec![&consumer], ..Written::default() };
    let after = Identity::compile(&written, &bench.shared, &mut Vec::new());
    assert_eq!(after.api_key(b"secret", at(5)).unwrap_err(), Reason::Disabled);
    assert_eq!(after.still_holds(&caller, at(5)), Err(Reason::Disabled));
}

/// Services know users and holders of keys by the same field.
#[tokio::test]
async fn a_key_does_not_speak_in_the_name_of_a_user() {
    let bench = Bench::new().await;
    bench.create(record("key_1", "secret")).await;
    let user = decode(&node(&format!("{{ name: shop, password: '{}' }}", bcrypt::hash("p", 4).unwrap()))).unwrap();
    let written = Written { users: vec![&user], ..Written::default() };
    let after = Identity::compile(&written, &bench.shared, &mut Vec::new());
    assert!(after.has_name("shop") && !after.has_consumer("shop"));
    assert_eq!(after.api_key(b"secret", at(5)).unwrap_err(), Reason::Disabled);
}

#[tokio::test]
async fn a_rotated_key_works_for_its_overlap() {
    let bench = Bench::new().await;
    let identity = bench.identity("read:shop");
    bench.create(record("key_1", "old")).await;
    let caller = identity.api_key(b"old", at(5)).unwrap();
    let rotate = |to: &'static str, until: u64| {
        move |record: &mut Record| {
            record.previous = Some(Previous { prefix: record.prefix.clone(), sha256: record.sha256.clone(), until });
            record.sha256 = hash(to);
        }
    };
    bench.change("key_1", rotate("new", 50)).await;
    assert_eq!(identity.api_key(b"old", at(49)).unwrap().expires, Some(at(50)));
    assert_eq!(identity.api_key(b"new", at(49)).unwrap().expires, Some(at(NEVER)));
    assert_eq!(identity.still_holds(&caller, at(49)), Ok(()));
    assert_eq!(identity.still_holds(&caller, at(50)), Err(Reason::Expired));
    assert_eq!(identity.api_key(b"old", at(50)).unwrap_err(), Reason::Expired);
    bench.change("key_1", rotate("newest", 60)).await;
    assert_eq!(identity.api_key(b"old", at(40)).unwrap_err(), Reason::Unknown, "only one rotation overlaps");
    assert!(identity.api_key(b"new", at(40)).is_ok() && identity.api_key(b"newest", at(40)).is_ok());
    assert_eq!(bench.managed().len(), 1);
}

#[tokio::test]
async fn another_process_reads_what_this_one_wrote() {
    let bench = Bench::new().await;
    for number in 0..1_201 {
        let record = record(&format!("key_{number:04}"), &format!("secret {number}"));
        bench.managed().create(bench.store.as_ref(), record, 2_000).await.unwrap();
    }
    let other = Bench::over(&bench.store);
    let identity = other.identity("read:shop");
    assert_eq!(identity.api_key(b"secret 7", at(5)).unwrap_err(), Reason::KeysUnavailable, "it was not read yet");
    assert_eq!(other.managed().load(other.store.as_ref(), at(5)).await.unwrap(), 1_201);
    for key in ["secret 0", "secret 1200"] {
        assert!(identity.api_key(key.as_bytes(), at(5)).is_ok(), "{key}");
    }
    bench.managed().revoke(bench.store.as_ref(), "key_0007", |_| Ok::<_, ()>(())).await.unwrap().unwrap();
    bench.change("key_0008", |record| record.disabled = true).await;
    assert!(identity.api_key(b"secret 7", at(5)).is_ok());
    assert_eq!(other.managed().load(other.store.as_ref(), at(5)).await.unwrap(), 1_200);
    assert_eq!(identity.api_key(b"secret 7", at(5)).unwrap_err(), Reason::Unknown);
    assert_eq!(identity.api_key(b"secret 8", at(5)).unwrap_err(), Reason::Disabled);
    assert!(identity.api_key(b"secret 9", at(5)).is_ok());
}

#[tokio::test]
async fn long_ended_and_damaged_records_are_not_read() {
    let bench = Bench::new().await;
    bench.create(Record { expires_at: 100, ..record("key_1", "a") }).await;
    bench.create(record("key_2", "b")).await;
    bench.store.put(KEYS, "key_3", b"{".to_vec(), None).await.unwrap();
    let kept = 100 + KEPT_AFTER_END.as_secs();
    assert_eq!(bench.managed().load(bench.store.as_ref(), at(kept - 1)).await.unwrap(), 2);
    assert_eq!(bench.managed().load(bench.store.as_ref(), at(kept)).await.unwrap(), 1);
    assert!(bench.store.get(KEYS, "key_1").await.unwrap().is_none(), "it is gone from the store too");
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing_but_revokes_here() {
    let bench = Bench::new().await;
    let identity = bench.identity("read:shop");
    bench.create(record("key_1", "a")).await;
    bench.store.breaks(true);
    let made = bench.managed().create(bench.store.as_ref(), record("key_2", "b"), 100).await;
    assert!(matches!(made, Err(WriteError::Store(_))));
    assert_eq!(identity.api_key(b"b", at(5)).unwrap_err(), Reason::Unknown);
    assert!(bench.managed().load(bench.store.as_ref(), at(5)).await.is_err());
    assert!(identity.api_key(b"a", at(5)).is_ok(), "what is known stays");
    let revoked = bench.managed().revoke(bench.store.as_ref(), "key_1", |_| Ok::<_, ()>(())).await;
    assert!(matches!(revoked, Err(WriteError::Store(_))));
    assert_eq!(identity.api_key(b"a", at(5)).unwrap_err(), Reason::Unknown, "refused all the same");
    bench.store.breaks(false);
    bench.managed().revoke(bench.store.as_ref(), "key_1", |_| Ok::<_, ()>(())).await.unwrap().unwrap();
}

#[tokio::test]
async fn there_are_as_many_keys_as_may_be() {
    let bench = Bench::new().await;
    for (id, key) in [("key_1", "a"), ("key_2", "b")] {
        bench.managed().create(bench.store.as_ref(), record(id, key), 2).await.unwrap();
    }
    let third = bench.managed().create(bench.store.as_ref(), record("key_3", "c"), 2).await;
    assert!(matches!(third, Err(WriteError::Full)));
}

#[tokio::test]
async fn use_is_counted_by_day_route_and_status() {
    let bench = Bench::new().await;
    bench.create(record("key_1", "a")).await;
    bench.create(record("key_10", "b")).await;
    let (tasks, hooks): (Arc<str>, Arc<str>) = (Arc::from("tasks"), Arc::from("hooks"));
    let (today, day) = (today(), 24 * 3600);
    for (route, status, time) in
        [(&tasks, 200, 1), (&tasks, 201, 2), (&tasks, 429, 3), (&hooks, 503, day), (&hooks, 101, day + 7)]
    {
        bench.managed().count("key_1", route, status, at(today + time));
    }
    bench.managed().count("key_10", &tasks, 200, at(today));
    bench.managed().count("key_2", &tasks, 200, at(today));
    let usage = bench.managed().usage(bench.store.as_ref(), "key_1").await.unwrap();
    let rfc3339 = |time| crate::clock::rfc3339(at(time)).chars().take(10).collect::<String>();
    assert_eq!(usage.keys().cloned().collect::<Vec<_>>(), [rfc3339(today), rfc3339(today + day)]);
    let days: Vec<&Day> = usage.values().collect();
    assert_eq!((days[0].last_used, days[1].last_used), (today + 3, today + day + 7));
    let tasks = days[0].routes["tasks"];
    assert_eq!((tasks.success, tasks.client_error, tasks.sum()), (2, 1, 3));
    let hooks = days[1].routes["hooks"];
    assert_eq!((hooks.server_error, hooks.other, hooks.sum()), (1, 1, 2));
}

#[tokio::test]
async fn use_adds_up_over_flushes_and_processes() {
    let bench = Bench::new().await;
    bench.create(record("key_1", "a")).await;
    let other = Bench::over(&bench.store);
    other.shared.read_keys().await;
    let route: Arc<str> = Arc::from("tasks");
    for bench in [&bench, &other, &bench] {
        bench.managed().count("key_1", &route, 200, at(today() + 9));
        bench.managed().flush(bench.store.as_ref()).await.unwrap();
    }
    // What the store does not take now it takes later, and once.
    bench.managed().count("key_1", &route, 404, at(today() + 10));
    bench.store.breaks(true);
    assert!(bench.managed().flush(bench.store.as_ref()).await.is_err());
    assert!(bench.managed().usage(bench.store.as_ref(), "key_1").await.is_err());
    bench.managed().count("key_1", &route, 404, at(today() + 11));
    bench.store.breaks(false);
    bench.managed().flush(bench.store.as_ref()).await.unwrap();
    bench.managed().flush(bench.store.as_ref()).await.unwrap();
    let usage = other.managed().usage(other.store.as_ref(), "key_1").await.unwrap();
    assert_eq!(usage.len(), 1);
    let day = usage.values().next().unwrap();
    assert_eq!((day.routes["tasks"].success, day.routes["tasks"].client_error, day.last_used), (3, 2, today() + 11));
}

#[tokio::test]
async fn routes_beyond_a_number_count_together() {
    let bench = Bench::new().await;
    bench.create(record("key_1", "a")).await;
    for _ in 0..2 {
        for number in 0..250 {
            bench.managed().count("key_1", &Arc::from(format!("route{number}")), 200, at(today()));
        }
        bench.managed().flush(bench.store.as_ref()).await.unwrap();
    }
    let usage = bench.managed().usage(bench.store.as_ref(), "key_1").await.unwrap();
    let routes = &usage.values().next().unwrap().routes;
    assert_eq!((routes.len(), routes["(other)"].success, routes["route199"].success), (201, 100, 2));
}
