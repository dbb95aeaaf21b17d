//! From files to a snapshot, by number of routes: what a start and a reload cost. With 10,000 routes it must stay below
//! one second. `cargo bench --profile quick --bench load`
#![allow(clippy::expect_used, reason = "a benchmark that cannot set up must stop")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use divan::Bencher;
use tempfile::TempDir;
use tollgate::config::load::{Environment, Loaded, Overrides, load};
use tollgate::gateway::{self, Gateway, Services};
use tollgate::observe::metrics::Metrics;
use tollgate::yaml::{Problem, Sources};

const SIZES: [usize; 2] = [100, 10_000];
/// Routes of one service, and so of one file.
const ROUTES_PER_FILE: usize = 100;

fn main() {
    divan::main();
}

/// `gateway.yaml` and a fragment for every hundred routes; each route has a filter of its own and one from a chain.
struct Files {
    folder: TempDir,
}

impl Files {
    fn write(routes: usize) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir(files.folder.path().join("routes.d")).expect("a folder");
        let root = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\ninclude: [routes.d/*.yaml]\n";
        fs::write(files.root(), root).expect("a file");
        for first in (0..routes).step_by(ROUTES_PER_FILE) {
            let last = routes.min(first.saturating_add(ROUTES_PER_FILE));
            let path = files.folder.path().join(format!("routes.d/service{first}.yaml"));
            fs::write(path, fragment(first, last)).expect("a file");
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

fn fragment(first: usize, last: usize) -> String {
    let mut text = format!(
        "upstreams:\n  service{first}: {{ targets: [{{ address: 127.0.0.1:9101, weight: 3 }}, {{ address: 127.0.0.1:9111 }}] }}\n\
         chains:\n  service{first}: [headers: {{ request: {{ set: {{ X-Service: \"{first}\" }} }} }}]\nroutes:\n"
    );
    for route in first..last {
        write!(
            text,
            "  - name: svc{route}\n    match: {{ methods: [GET, PUT], path: \"/api/svc{route}/{{id}}/{{*rest}}\" }}\n    \
             filters: [{{ use: service{first} }}, {{ headers: {{ response: {{ remove: [Server] }} }} }}]\n    \
             upstream: service{first}\n"
        )
        .expect("memory");
    }
    text
}

fn compile(loaded: Loaded, previous: Option<&Gateway>, metrics: &Arc<Metrics>) -> Gateway {
    let shown = |sources: &Sources, problems: Vec<Problem>| problems.first().map(|problem| sources.render(problem));
    let config = loaded.config.map_err(|problems| shown(&loaded.sources, problems)).expect("a valid configuration");
    let compiled =
        gateway::compile(&config, loaded.sources, loaded.hash, previous, &Services::new(Arc::clone(metrics)));
    compiled.map_err(|(sources, problems)| shown(&sources, problems)).expect("a valid configuration")
}

/// Reading, parsing and decoding.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn read(bencher: Bencher<'_, '_>, routes: usize) {
    let files = Files::write(routes);
    bencher.bench_local(|| files.load());
}

/// From files to the first snapshot.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn start(bencher: Bencher<'_, '_>, routes: usize) {
    let files = Files::write(routes);
    bencher.bench_local(|| compile(files.load(), None, &Metrics::new(usize::MAX)));
}

/// From files to the snapshot that takes the place of another.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn reload(bencher: Bencher<'_, '_>, routes: usize) {
    let files = Files::write(routes);
    let metrics = Metrics::new(usize::MAX);
    let first = compile(files.load(), None, &metrics);
    bencher.bench_local(|| compile(files.load(), Some(&first), &metrics));
}
