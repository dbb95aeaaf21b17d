mod faults;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::observe::metrics::Metrics;

pub(super) const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\ninclude: [routes.d/*.yaml]\n";

/// A folder with a configuration, and what runs of it.
pub(super) struct Site {
    pub folder: TempDir,
    pub live: Arc<Live>,
    pub metrics: Arc<Metrics>,
}

impl Site {
    pub fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("routes.d")).unwrap();
        write(folder.path(), "gateway.yaml", ROOT);
        for (name, text) in files {
            write(folder.path(), name, text);
        }
        let path = folder.path().join("gateway.yaml");
        Self::start_at(folder, path)
    }

    pub fn start_at(folder: TempDir, path: PathBuf) -> Self {
        let metrics = Metrics::new(1000);
        let live = Live::start(path, Environment::Fixed(HashMap::new()), Services::new(Arc::clone(&metrics)), check)
            .unwrap_or_else(|problems| panic!("{problems:#?}"));
        Self { folder, live, metrics }
    }

    pub fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// What a change that was seen leads to.
    pub async fn reload(&self) -> Outcome {
        self.live.reload(Cause::Watch).await
    }

    pub fn routes(&self) -> Vec<String> {
        self.live.current().routes().iter().map(|route| route.name.to_string()).collect()
    }

    fn file(&self, name: &str) -> FileStatus {
        self.live.status().files.into_iter().find(|file| file.file == name).unwrap_or_else(|| panic!("{name}"))
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|found| found == line)
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// A route of this name, to an upstream of this name.
pub(super) fn route(name: &str, upstream: &str) -> String {
    format!("routes:\n  - {{ name: {name}, match: GET /{name}, upstream: {upstream} }}\n")
}

/// A service: an upstream and a route.
pub(super) fn service(name: &str) -> String {
    format!("upstreams:\n  {name}: {{ targets: [{{ address: 127.0.0.1:9101 }}] }}\n{}", route(name, name))
}

/// Tests fail that ask for `/fail`.
fn check(gateway: &Gateway) -> Vec<Problem> {
    let failing = gateway.tests.iter().filter(|test| test.request.value.ends_with("/fail"));
    failing.map(|test| Problem::new(test.request.place, "expected status 200, got 404")).collect()
}

fn problem_lines(file: &FileStatus) -> Vec<(String, u32)> {
    file.problems.iter().map(|problem| (problem.report.file.clone(), problem.report.line)).collect()
}

#[test]
fn the_first_load_tells_every_problem_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("routes.d")).unwrap();
    write(folder.path(), "gateway.yaml", ROOT);
    write(folder.path(), "routes.d/a.yaml", "rotes: []\n");
    write(folder.path(), "routes.d/b.yaml", "upstreams: 3\n");
    let start = |path| Live::start(path, Environment::default(), Services::new(Metrics::new(10)), check);
    let problems = start(folder.path().join("gateway.yaml")).err().unwrap();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("routes.d/a.yaml:1:1: "), "{}", problems[0]);
    let missing = start(folder.path().join("other.yaml")).err().unwrap();
    assert!(missing[0].contains("cannot read this file"), "{}", missing[0]);
    write(folder.path(), "routes.d/a.yaml", "tests: [{ request: GET /fail, expect: { status: 200 } }]\n");
    write(folder.path(), "routes.d/b.yaml", "");
    let failing = start(folder.path().join("gateway.yaml")).err().unwrap();
    assert!(failing[0].contains("expected status 200"), "{}", failing[0]);
}

#[tokio::test]
async fn a_change_is_applied_and_told() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    let mut swapped = site.live.subscribe();
    let before = site.live.status();
    assert_eq!((before.generation, before.reloads_ok, before.files.len()), (1, 0, 2));
    assert!(before.last_reload.is_none() && before.files.iter().all(|file| file.ok));
    let old = site.live.current();

    site.write("routes.d/b.yaml", &service("b"));
    let outcome = site.reload().await;
    assert_eq!((outcome.effect, outcome.generation, outcome.files), (Effect::Applied, 2, vec![]));
    assert!(swapped.has_changed().unwrap());
    assert_eq!(*swapped.borrow_and_update(), 2);
    assert_eq!(site.routes(), ["a", "b"]);
    assert_eq!(old.routes().len(), 1);
    let status = site.live.status();
    assert_eq!((status.reloads_ok, status.reloads_failed, &status.hash), (1, 0, &outcome.hash));
    assert_ne!(status.hash, before.hash);
    assert_eq!(status.last_reload.unwrap().cause, Cause::Watch);
    assert!(site.metric(&format!("tollgate_config_info{{hash=\"{}\"}} 1", outcome.hash)));
    assert!(site.metric("tollgate_reloads_total{result=\"ok\"} 1"));
    assert!(site.metric("tollgate_config_file_errors{file=\"routes.d/b.yaml\"} 0"));
}

#[tokio::test]
async fn without_a_change_only_those_who_ask_get_a_reload() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    site.write("routes.d/a.yaml", &service("a"));
    for cause in [Cause::Watch, Cause::Poll] {
        assert_eq!(site.live.reload(cause).await.effect, Effect::Unchanged);
    }
    // Its name is in the folder; that it is no part of the configuration shows when it is loaded.
    site.write("routes.d/notes.txt", "!");
    assert_eq!(site.reload().await.effect, Effect::Unchanged);
    assert_eq!(site.live.status().generation, 1);
    let hash = site.live.status().hash;
    for (count, cause) in [(1, Cause::Signal), (2, Cause::Api)] {
        let outcome = site.live.reload(cause).await;
        assert_eq!((outcome.effect, &outcome.hash), (Effect::Applied, &hash));
        assert_eq!(site.live.status().reloads_ok, count);
    }
}

#[tokio::test]
async fn what_did_not_change_survives() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a")), ("routes.d/b.yaml", &service("b"))]);
    let before = site.live.current();
    site.write("routes.d/b.yaml", &service("b").replace("9101", "9102"));
    site.reload().await;
    let after = site.live.current();
    assert!(Arc::ptr_eq(&before.upstreams()[0], &after.upstreams()[0]));
    assert!(!Arc::ptr_eq(&before.upstreams()[1], &after.upstreams()[1]));
    assert!(Arc::ptr_eq(&before.routes()[1].metrics, &after.routes()[1].metrics));
}

#[tokio::test]
async fn a_removed_fragment_is_gone() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a")), ("routes.d/b.yaml", &service("b"))]);
    site.remove("routes.d/a.yaml");
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["b"]);
    assert_eq!(site.live.status().files.len(), 2);
    assert!(!site.metrics.render().contains("routes.d/a.yaml"));
}

#[tokio::test]
async fn the_content_of_a_file_in_a_value_counts() {
    let a = service("a").replace("127.0.0.1:9101", "\"${file:address}\"");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("routes.d")).unwrap();
    write(folder.path(), "gateway.yaml", ROOT);
    write(folder.path(), "routes.d/a.yaml", &a);
    write(folder.path(), "routes.d/address", "127.0.0.1:1");
    let path = folder.path().join("gateway.yaml");
    let site = Site::start_at(folder, path);
    let address = || site.live.current().upstreams()[0].targets()[0].label.to_string();
    assert_eq!(address(), "127.0.0.1:1");
    site.write("routes.d/address", "127.0.0.1:2");
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(address(), "127.0.0.1:2");
    assert_eq!(site.reload().await.effect, Effect::Unchanged);
    site.write("routes.d/address", "nowhere");
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(address(), "127.0.0.1:2");
}

#[tokio::test]
async fn two_hundred_reloads_leave_one_snapshot_behind() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    let in_flight = site.live.current();
    for round in 0..200 {
        // Every twentieth is wrong.
        let text = if round % 20 == 19 { "routes: 1".into() } else { service(&format!("a{round}")) };
        site.write("routes.d/a.yaml", &text);
        let expected = if round % 20 == 19 { Effect::Refused } else { Effect::Applied };
        assert_eq!(site.reload().await.effect, expected, "{round}");
    }
    let status = site.live.status();
    assert_eq!((status.generation, status.reloads_ok, status.reloads_failed), (191, 190, 10));
    assert_eq!(site.routes(), ["a198"]);
    // The one that is still held.
    assert_eq!(site.live.retired.lock().unwrap().len(), 1);
    assert_eq!(&*in_flight.routes()[0].name, "a");
    drop(in_flight);
    site.reload().await;
    assert!(site.live.retired.lock().unwrap().is_empty());
}

#[tokio::test]
async fn reloads_at_the_same_time_wait_for_each_other() {
    let site = Site::start(&[]);
    site.write("routes.d/a.yaml", &service("a"));
    let (one, two) = tokio::join!(site.live.reload(Cause::Watch), site.live.reload(Cause::Poll));
    assert_eq!((one.effect, two.effect), (Effect::Applied, Effect::Unchanged));
}
