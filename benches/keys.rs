//! API keys by their number: what a look-up costs on the path of a request, and what a start and a reload cost. A look-up
//! must not grow with the number of keys, and a start with 100,000 stay below two seconds.
//! `cargo bench --profile quick --bench keys`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use divan::Bencher;
use tempfile::TempDir;
use tollgate::config::load::{Environment, Loaded, Overrides, load};
use tollgate::gateway::{self, Gateway, Services};
use tollgate::identity::Digest;
use tollgate::observe::metrics::Metrics;
use tollgate::yaml::{Problem, Sources};

const SIZES: [usize; 2] = [100, 100_000];
/// Consumers of one file.
const CONSUMERS_PER_FILE: usize = 10_000;
/// Keys that are asked for in turn: as many as fit no cache of a core, when there are so many.
const ASKED: usize = 100_000;

fn main() {
    divan::main();
}

fn key(number: usize) -> String {
    format!("tg_{number:043}")
}

/// `gateway.yaml`, and a file for every 10,000 consumers; each has one key.
struct Files {
    folder: TempDir,
}

impl Files {
    fn write(keys: usize) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir(files.folder.path().join("consumers.d")).expect("a folder");
        let root = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\ninclude: [consumers.d/*.yaml]\n\
                    roles: { user: { scopes: [read:tasks] } }\n";
        fs::write(files.root(), root).expect("a file");
        for first in (0..keys).step_by(CONSUMERS_PER_FILE) {
            let mut text = String::from("consumers:\n");
            for number in first..keys.min(first.saturating_add(CONSUMERS_PER_FILE)) {
                let digest = Digest::of(key(number).as_bytes()).expect("a key");
                write!(
                    text,
                    "  - name: consumer{number}\n    roles: [user]\n    keys:\n      - id: key{number}\n        \
                     sha256: {digest}\n        prefix: tg_{number:08}\n        expires: 2030-01-01T00:00:00Z\n"
                )
                .expect("memory");
            }
            fs::write(files.folder.path().join(format!("consumers.d/{first}.yaml")), text).expect("a file");
        }
        files
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    fn load(&self) -> Loaded {
        load(&self.root(), &Environment::Fixed([].into()), &Overrides::new())
    }
}

fn compile(loaded: Loaded, previous: Option<&Gateway>, services: &Services) -> Gateway {
    let shown = |sources: &Sources, problems: Vec<Problem>| problems.first().map(|problem| sources.render(problem));
    let config = loaded.config.map_err(|problems| shown(&loaded.sources, problems)).expect("a valid configuration");
    let compiled = gateway::compile(&config, loaded.sources, loaded.hash, previous, services);
    compiled.map_err(|(sources, problems)| shown(&sources, problems)).expect("a valid configuration")
}

fn services() -> Services {
    Services::new(Metrics::new(usize::MAX))
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

/// A key that is there: hash, look-up, and a reference to its caller.
#[divan::bench(args = SIZES)]
fn find(bencher: Bencher<'_, '_>, keys: usize) {
    let gateway = compile(Files::write(keys).load(), None, &services());
    // In an order that no cache foresees.
    let asked: Vec<String> = (0..ASKED).map(|number| key(number.wrapping_mul(61_813) % keys)).collect();
    let mut next = asked.iter().cycle();
    let now = now();
    bencher.bench_local(|| next.next().map(|key| gateway.identity.api_key(key.as_bytes(), now)));
}

/// A key that is not there.
#[divan::bench(args = SIZES)]
fn miss(bencher: Bencher<'_, '_>, keys: usize) {
    let gateway = compile(Files::write(keys).load(), None, &services());
    let asked: Vec<String> = (0..ASKED).map(|number| key(number.saturating_add(1_000_000))).collect();
    let mut next = asked.iter().cycle();
    let now = now();
    bencher.bench_local(|| next.next().map(|key| gateway.identity.api_key(key.as_bytes(), now)));
}

/// Reading, parsing and decoding.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn read(bencher: Bencher<'_, '_>, keys: usize) {
    let files = Files::write(keys);
    bencher.bench_local(|| files.load());
}

/// From files to the first snapshot.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn start(bencher: Bencher<'_, '_>, keys: usize) {
    let files = Files::write(keys);
    bencher.bench_local(|| compile(files.load(), None, &services()));
}

/// From files to the snapshot that takes the place of another.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn reload(bencher: Bencher<'_, '_>, keys: usize) {
    let files = Files::write(keys);
    let services = services();
    let first = compile(files.load(), None, &services);
    bencher.bench_local(|| compile(files.load(), Some(&first), &services));
}

/// Counting a request of a managed key.
#[divan::bench]
fn count(bencher: Bencher<'_, '_>) {
    use tollgate::identity::ManagedKeys;
    use tollgate::identity::managed::Record;
    use tollgate::state::{Limits, Memory};
    let (keys, store) = (ManagedKeys::default(), Memory::new(Limits::default()));
    let record = Record {
        id: "key_1".to_owned(),
        name: "shop".to_owned(),
        description: String::new(),
        prefix: String::new(),
        sha256: Digest::of(b"key").expect("a key").to_string(),
        previous: None,
        scopes: Vec::new(),
        roles: Vec::new(),
        rates: None,
        disabled: false,
        created_at: 0,
        created_by: String::new(),
        updated_at: 0,
        expires_at: 4_000_000_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(keys.create(&store, record, 1)).expect("memory");
    let (route, now): (Arc<str>, _) = (Arc::from("tasks.read"), now());
    bencher.bench_local(|| keys.count("key_1", &route, 200, now));
}
