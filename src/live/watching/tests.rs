use std::fs;
use std::os::unix::fs::symlink;

use super::super::tests::{ROOT, Site, service};
use super::*;

/// Longer than any test: what is seen, the system told.
const NEVER: Duration = Duration::from_secs(3600);

impl Site {
    fn watch(&self, poll: Duration) {
        let (live, changed) = (Arc::clone(&self.live), Arc::new(Notify::new()));
        let folders = Folders::new(Arc::clone(&changed)).unwrap();
        tokio::spawn(async move { live.follow_changes(Some(folders), &changed, poll).await });
    }

    /// Waits until these routes are in use.
    async fn until(&self, routes: &[&str]) {
        let mut swapped = self.live.subscribe();
        let wait = async {
            while self.routes() != routes {
                swapped.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            panic!("{:?} are in use, not {routes:?}: {:#?}", self.routes(), self.live.status());
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test]
async fn a_file_that_is_written_renamed_into_place_and_deleted() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    site.watch(NEVER);
    site.write("routes.d/a.yaml", &service("a2"));
    site.until(&["a2"]).await;
    site.write("routes.d/b.yaml", &service("b"));
    site.until(&["a2", "b"]).await;
    site.write("routes.d/.a.yaml.swp", &service("a3"));
    fs::rename(site.path("routes.d/.a.yaml.swp"), site.path("routes.d/a.yaml")).unwrap();
    site.until(&["a3", "b"]).await;
    site.remove("routes.d/a.yaml");
    site.until(&["b"]).await;
    site.write("routes.d/a.yaml", &service("a4"));
    site.until(&["a4", "b"]).await;
    site.write("gateway.yaml", &ROOT.replace("*.yaml", "b*.yaml"));
    site.until(&["b"]).await;
}

#[tokio::test]
async fn a_mistake_and_its_end() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a")), ("routes.d/b.yaml", &service("b"))]);
    site.watch(NEVER);
    site.write("routes.d/a.yaml", "routes: [");
    site.write("routes.d/b.yaml", &service("b2"));
    site.until(&["a", "b2"]).await;
    site.write("routes.d/a.yaml", &service("a2"));
    site.until(&["a2", "b2"]).await;
}

/// As Kubernetes shows a ConfigMap.
#[tokio::test]
async fn a_link_that_is_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for version in ["1", "2", "3"] {
        fs::create_dir_all(at(version).join("routes.d")).unwrap();
        fs::write(at(version).join("gateway.yaml"), ROOT).unwrap();
        fs::write(at(version).join("routes.d/a.yaml"), service(&format!("a{version}"))).unwrap();
    }
    symlink("1", at("..data")).unwrap();
    symlink("..data/gateway.yaml", at("gateway.yaml")).unwrap();
    symlink("..data/routes.d", at("routes.d")).unwrap();
    let path = at("gateway.yaml");
    let site = Site::start_at(folder, path);
    site.watch(NEVER);
    for version in ["2", "3", "1"] {
        symlink(version, site.path("..data_tmp")).unwrap();
        fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
        site.until(&[&format!("a{version}")]).await;
    }
    site.write("1/routes.d/a.yaml", &service("inside"));
    site.until(&["inside"]).await;
}

#[tokio::test]
async fn a_file_behind_a_link() {
    let site = Site::start(&[]);
    fs::create_dir(site.path("elsewhere")).unwrap();
    site.write("elsewhere/x", &service("a"));
    symlink(site.path("elsewhere/x"), site.path("routes.d/a.yaml")).unwrap();
    site.watch(NEVER);
    site.until(&["a"]).await;
    site.write("elsewhere/x", &service("b"));
    site.until(&["b"]).await;
}

#[tokio::test]
async fn a_folder_that_is_made_anew() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    site.watch(NEVER);
    for name in ["b", "c"] {
        fs::remove_dir_all(site.path("routes.d")).unwrap();
        fs::create_dir(site.path("routes.d")).unwrap();
        site.write("routes.d/x.yaml", &service(name));
        site.until(&[name]).await;
        // The new folder is watched, not the old one.
        let again = format!("{name}{name}");
        site.write("routes.d/x.yaml", &service(&again));
        site.until(&[&again]).await;
    }
}

#[tokio::test]
async fn all_folders_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let write = |at: &Path, name: &str| {
        fs::create_dir_all(at.join("routes.d")).unwrap();
        fs::write(at.join("gateway.yaml"), ROOT).unwrap();
        fs::write(at.join("routes.d/a.yaml"), service(name)).unwrap();
    };
    let conf = folder.path().join("conf");
    write(&conf, "a");
    let site = Site::start_at(folder, conf.join("gateway.yaml"));
    site.watch(NEVER);
    for name in ["b", "c", "d"] {
        fs::remove_dir_all(&conf).unwrap();
        write(&conf, name);
        site.until(&[name]).await;
        let again = format!("{name}{name}");
        fs::write(conf.join("routes.d/a.yaml"), service(&again)).unwrap();
        site.until(&[&again]).await;
    }
    // Moved away, with another in its place.
    write(&site.path("next"), "e");
    fs::rename(&conf, site.path("old")).unwrap();
    fs::rename(site.path("next"), &conf).unwrap();
    site.until(&["e"]).await;
}

#[tokio::test]
async fn a_burst_of_writes_is_few_reloads() {
    let site = Site::start(&[]);
    site.watch(NEVER);
    site.write("routes.d/a.yaml", &service("begin"));
    site.until(&["begin"]).await;
    let before = *site.live.subscribe().borrow();
    for round in 0..100 {
        site.write("routes.d/a.yaml", &service(&format!("a{round}")));
        tokio::task::yield_now().await;
    }
    site.until(&["a99"]).await;
    let reloads = *site.live.subscribe().borrow() - before;
    assert!((1..=5).contains(&reloads), "{reloads}");
}

#[tokio::test]
async fn the_poll_sees_what_nobody_told() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    let live = Arc::clone(&site.live);
    tokio::spawn(async move { live.follow_changes(None, &Notify::new(), Duration::from_millis(10)).await });
    site.write("routes.d/a.yaml", &service("b"));
    site.until(&["b"]).await;
    let status = site.live.status();
    assert!(!status.watching);
    assert_eq!(status.last_reload.unwrap().cause, Cause::Poll);
}

/// Half of a change is none.
#[tokio::test]
async fn the_poll_waits_for_a_file_at_rest() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a"))]);
    assert!(!site.live.has_lasting_change().await);
    site.write("routes.d/a.yaml", "");
    let mut looking = Box::pin(site.live.has_lasting_change());
    // It has seen the empty file when it waits for the second look.
    assert!(tokio::time::timeout(QUIET / 2, &mut looking).await.is_err());
    site.write("routes.d/a.yaml", &service("a"));
    assert!(!looking.await);
    site.write("routes.d/a.yaml", &service("b"));
    assert!(site.live.has_lasting_change().await);
}

#[tokio::test]
async fn the_task_stops_when_it_is_dropped() {
    let site = Site::start(&[]);
    let task = tokio::spawn(Arc::clone(&site.live).watch());
    site.write("routes.d/a.yaml", &service("a"));
    site.until(&["a"]).await;
    assert!(site.live.status().watching);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(Arc::strong_count(&site.live), 1);
}
