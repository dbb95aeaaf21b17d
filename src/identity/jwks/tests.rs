use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::identity::testing::{Signer, claims, now, try_identity};
use crate::identity::{Identity, Reason, Shared};

/// Quick enough to wait for, slow enough to tell one fetch from the next.
const PACE: Pace = Pace {
    cooldown: Duration::from_millis(200),
    refresh: Duration::from_secs(3600),
    refresh_min: Duration::from_millis(300),
    refresh_max: Duration::from_secs(3600),
    retry_max: Duration::from_millis(400),
    timeout: Duration::from_millis(500),
};
const PATIENCE: Duration = Duration::from_secs(20);

/// What the provider answers with.
#[derive(Clone)]
enum Mood {
    Keys(Value),
    KeysFor(Value, &'static str),
    Status(u16),
    Text(Vec<u8>),
    Redirect(String),
    Hang,
}

/// An identity provider with one page.
struct Provider {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

type Shelf = (Arc<Mutex<Mood>>, Arc<AtomicUsize>);

impl Provider {
    async fn start(mood: Mood) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), mood).await
    }

    async fn start_at(address: SocketAddr, mood: Mood) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf: Shelf = (Arc::new(Mutex::new(mood)), Arc::default());
        let app = Router::new().fallback(answer).with_state(shelf.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, mood: shelf.0, asked: shelf.1, task }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn url(&self) -> String {
        format!("http://{}/jwks.json?token=hidden", self.address)
    }

    async fn asked_more_than(&self, count: usize) {
        until(|| self.asked() > count).await;
    }
}

async fn answer(Extracted((mood, asked)): Extracted<Shelf>) -> Response {
    asked.fetch_add(1, Ordering::Relaxed);
    let mood = mood.lock().unwrap().clone();
    match mood {
        Mood::Keys(keys) => axum::Json(keys).into_response(),
        Mood::KeysFor(keys, cache) => ([("cache-control", cache)], axum::Json(keys)).into_response(),
        Mood::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Mood::Text(text) => text.into_response(),
        Mood::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Mood::Hang => std::future::pending().await,
    }
}

async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it happens in time");
}

/// A gateway's identity with one issuer, whose keys are fetched.
struct Reader {
    identity: Arc<Identity>,
    shared: Arc<Shared>,
}

impl Reader {
    fn new(url: &str) -> Self {
        let mut shared = Shared::default();
        shared.key_sets = KeySets::with_pace(PACE);
        let shared = Arc::new(shared);
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let running = Arc::clone(&shared);
        tokio::spawn(async move { running.key_sets.keep_fetching().await });
        Self { identity: identity(url, &shared), shared }
    }

    fn verify(&self, token: &str) -> Result<(), Reason> {
        self.identity.issuer("main").unwrap().verify(token, now()).map(|_| ())
    }

    fn status(&self) -> SourceStatus {
        self.identity.issuer("main").unwrap().source().unwrap().status()
    }

    /// Waits for this verdict, asking again and again as clients would.
    async fn comes_to(&self, token: &str, verdict: Result<(), Reason>) {
        until(|| self.verify(token) == verdict).await;
    }
}

fn identity(url: &str, shared: &Arc<Shared>) -> Arc<Identity> {
    let yaml = format!("issuers: {{ main: {{ jwks: '{url}', algorithms: [ES256] }} }}\n");
    try_identity(&yaml, Path::new(""), shared).unwrap()
}

fn set(keys: &[(&Signer, &str)]) -> Value {
    json!({ "keys": keys.iter().map(|(signer, kid)| signer.jwk(kid)).collect::<Vec<_>>() })
}

fn token(signer: &Signer, kid: &str) -> String {
    signer.token_with(&json!({ "alg": "ES256", "kid": kid }), &claims())
}

fn signers() -> (Signer, Signer) {
    (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256))
}

#[tokio::test]
async fn keys_rotate_without_a_restart() {
    let (old, new) = signers();
    let provider = Provider::start(Mood::Keys(set(&[(&old, "old")]))).await;
    let reader = Reader::new(&provider.url());
    assert_eq!(reader.verify(&token(&old, "old")), Err(Reason::KeysUnavailable));
    reader.comes_to(&token(&old, "old"), Ok(())).await;
    provider.set(Mood::Keys(set(&[(&old, "old"), (&new, "new")])));
    // The first one asks for the fetch, and is not waited for.
    assert_eq!(reader.verify(&token(&new, "new")), Err(Reason::UnknownKey));
    let started = clock();
    reader.comes_to(&token(&new, "new"), Ok(())).await;
    assert!(started.elapsed() < PACE.refresh / 60, "{:?}", started.elapsed());
    assert_eq!(reader.verify(&token(&old, "old")), Ok(()));
    // A key that is withdrawn is refused with the new set, out of the cache too.
    provider.set(Mood::Keys(set(&[(&new, "new")])));
    reader.identity.issuer("main").unwrap().source().unwrap().want();
    reader.comes_to(&token(&old, "old"), Err(Reason::UnknownKey)).await;
    assert_eq!(reader.verify(&token(&new, "new")), Ok(()));
    assert_eq!((reader.status().keys, reader.status().error), (Some(1), None));
}

#[tokio::test]
async fn keys_stay_while_the_provider_is_away_or_talks_nonsense() {
    let (old, new) = signers();
    let provider = Provider::start(Mood::Keys(set(&[(&old, "old")]))).await;
    let reader = Reader::new(&provider.url());
    reader.comes_to(&token(&old, "old"), Ok(())).await;
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(SET_BYTES_MAX)).into_bytes();
    let many = json!({ "keys": vec![old.jwk("old"); 101] }).to_string().into_bytes();
    for (mood, why) in [
        (Mood::Status(500), "it answers 500 Internal Server Error"),
        (Mood::Status(404), "it answers 404 Not Found"),
        (Mood::Status(204), "it answers 204 No Content"),
        (Mood::Text(b"<html>Please log in</html>".to_vec()), "it is no JSON object, or a member stands twice in it"),
        (Mood::Text(b"{\"keys\":".to_vec()), "it is no JSON object, or a member stands twice in it"),
        (Mood::Text(b"{\"error\":\"busy\"}".to_vec()), "it is no JWK set: it has no list `keys`"),
        (Mood::Text(large), "it is larger than 1 MiB"),
        (Mood::Text(many), "it holds more than 100 keys"),
        (Mood::Redirect("http://127.0.0.1:1/".to_owned()), "it answers 302 Found, and redirects are not followed"),
        (Mood::Hang, "it took too long"),
    ] {
        provider.set(mood);
        let refused = || {
            assert_eq!(reader.verify(&token(&old, "old")), Ok(()));
            assert_eq!(reader.verify(&token(&new, "new")), Err(Reason::UnknownKey));
            reader.status().error.is_some_and(|error| error.starts_with(why))
        };
        until(refused).await;
    }
    assert!(reader.status().failed >= 9 && reader.status().keys == Some(1));
    // It dies, and another one takes its place.
    let address = provider.address;
    provider.task.abort();
    let _ = provider.task.await;
    until(|| {
        reader.verify(&token(&old, "old")).unwrap();
        reader.status().error.is_some_and(|error| error.starts_with("cannot connect"))
    })
    .await;
    let _provider = Provider::start_at(address, Mood::Keys(set(&[(&new, "new")]))).await;
    reader.comes_to(&token(&new, "new"), Ok(())).await;
    assert_eq!(reader.verify(&token(&old, "old")), Err(Reason::UnknownKey));
    assert_eq!(reader.status().error, None);
    assert!(!reader.status().url.contains("hidden"), "{}", reader.status().url);
}

#[tokio::test]
async fn a_provider_may_come_later_than_the_gateway() {
    let (signer, _) = signers();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let reader = Reader::new(&format!("http://{address}/keys"));
    reader.shared.key_sets.tried(PATIENCE).await;
    assert_eq!(reader.verify(&token(&signer, "a")), Err(Reason::KeysUnavailable));
    let _provider = Provider::start_at(address, Mood::Keys(set(&[(&signer, "a")]))).await;
    reader.comes_to(&token(&signer, "a"), Ok(())).await;
}

#[tokio::test]
async fn a_flood_of_unknown_kids_costs_one_fetch_in_each_cooldown() {
    let (signer, stranger) = signers();
    let provider = Provider::start(Mood::Keys(set(&[(&signer, "a")]))).await;
    let reader = Reader::new(&provider.url());
    reader.comes_to(&token(&signer, "a"), Ok(())).await;
    let before = provider.asked();
    let flood: Vec<String> = (0..200).map(|number| token(&stranger, &number.to_string())).collect();
    let started = clock();
    let mut refused = 0;
    while started.elapsed() < PACE.cooldown * 5 {
        for token in &flood {
            assert_eq!(reader.verify(token), Err(Reason::UnknownKey));
            refused += 1;
        }
        tokio::task::yield_now().await;
    }
    let cooldowns = started.elapsed().div_duration_f64(PACE.cooldown) as usize;
    let fetches = provider.asked() - before;
    assert!(refused >= 1_000 && fetches >= 1, "{refused} {fetches}");
    assert!(fetches <= cooldowns + 1, "{fetches} fetches in {cooldowns} cooldowns");
    assert_eq!(reader.verify(&token(&signer, "a")), Ok(()));
}

#[tokio::test]
async fn the_provider_says_how_long_its_keys_are_fresh() {
    let (old, new) = signers();
    let provider = Provider::start(Mood::KeysFor(set(&[(&old, "old")]), "public, max-age=0")).await;
    let reader = Reader::new(&provider.url());
    reader.comes_to(&token(&old, "old"), Ok(())).await;
    // Nobody asks for a key: the look-up after `refresh_min` is the provider's own wish.
    provider.set(Mood::KeysFor(set(&[(&new, "new")]), "max-age=86400"));
    reader.comes_to(&token(&old, "old"), Err(Reason::UnknownKey)).await;
    let asked = provider.asked();
    assert_eq!(reader.verify(&token(&new, "new")), Ok(()));
    assert_eq!(provider.asked(), asked);
}

#[tokio::test]
async fn snapshots_share_a_source_and_the_last_one_ends_it() {
    let (signer, _) = signers();
    let provider = Provider::start(Mood::KeysFor(set(&[(&signer, "a")]), "max-age=0")).await;
    let mut reader = Reader::new(&provider.url());
    reader.comes_to(&token(&signer, "a"), Ok(())).await;
    // A reload: the keys are there at once, and nothing is fetched for it.
    let next = identity(&provider.url(), &reader.shared);
    let (one, other) = (reader.identity.issuer("main").unwrap(), next.issuer("main").unwrap());
    assert!(Arc::ptr_eq(one.source().unwrap(), other.source().unwrap()));
    reader.identity = next;
    assert_eq!(reader.verify(&token(&signer, "a")), Ok(()));
    provider.asked_more_than(provider.asked()).await;
    // One that names another address: the first is not asked any more.
    let elsewhere = Provider::start(Mood::Keys(set(&[(&signer, "a")]))).await;
    reader.identity = identity(&elsewhere.url(), &reader.shared);
    reader.comes_to(&token(&signer, "a"), Ok(())).await;
    assert_eq!(reader.shared.key_sets.sources.all().len(), 1);
    let asked = provider.asked();
    tokio::time::sleep(PACE.refresh_min * 3).await;
    assert!(provider.asked() <= asked + 1, "a fetch that was under way, and no more");
}

#[tokio::test]
async fn the_same_keys_again_leave_verified_tokens_alone() {
    let (signer, _) = signers();
    let provider = Provider::start(Mood::KeysFor(set(&[(&signer, "a")]), "max-age=0")).await;
    let reader = Reader::new(&provider.url());
    reader.comes_to(&token(&signer, "a"), Ok(())).await;
    let generation = || reader.identity.issuer("main").unwrap().source().unwrap().keys().unwrap().generation;
    let (first, asked) = (generation(), provider.asked());
    provider.asked_more_than(asked + 1).await;
    assert_eq!(generation(), first);
}

fn clock() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[tokio::test]
async fn who_came_in_with_a_key_that_is_withdrawn_is_told_of_and_does_not_hold() {
    let (old, new) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let provider = Provider::start(Mood::Keys(set(&[(&old, "old")]))).await;
    let reader = Reader::new(&provider.url());
    let signed = |signer: &Signer, kid: &str| signer.token_with(&json!({ "alg": "ES256", "kid": kid }), &claims());
    reader.comes_to(&signed(&old, "old"), Ok(())).await;
    let caller = reader.identity.issuer("main").unwrap().verify(&signed(&old, "old"), now()).unwrap();
    let mut told = reader.shared.revoked();
    // Another name and another key beside it: the key is there.
    provider.set(Mood::Keys(set(&[(&old, "same"), (&new, "new")])));
    reader.comes_to(&signed(&new, "new"), Ok(())).await;
    tokio::time::timeout(PATIENCE, told.changed()).await.expect("it is told").unwrap();
    assert_eq!(reader.identity.still_holds(&caller, now()), Ok(()));
    provider.set(Mood::Keys(set(&[(&new, "newer")])));
    reader.comes_to(&signed(&new, "newer"), Ok(())).await;
    tokio::time::timeout(PATIENCE, told.changed()).await.expect("it is told").unwrap();
    assert_eq!(reader.identity.still_holds(&caller, now()), Err(Reason::UnknownKey));
    // A provider that is away withdraws nothing.
    let of_new = reader.identity.issuer("main").unwrap().verify(&signed(&new, "newer"), now()).unwrap();
    provider.set(Mood::Status(500));
    let asked = provider.asked();
    reader.verify(&signed(&new, "unknown")).unwrap_err();
    provider.asked_more_than(asked).await;
    assert_eq!(reader.identity.still_holds(&of_new, now()), Ok(()));
}
