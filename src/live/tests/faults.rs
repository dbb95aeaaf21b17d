//! What is wrong stays out, what is right goes in.

use super::*;

fn three() -> Site {
    Site::start(&[
        ("routes.d/a.yaml", &service("a")),
        ("routes.d/b.yaml", &service("b")),
        ("routes.d/c.yaml", &service("c")),
    ])
}

#[tokio::test]
async fn a_bad_file_keeps_its_last_good_content_while_another_applies() {
    let site = three();
    site.write("routes.d/a.yaml", &service("a").replace("upstreams:", "upstreems:"));
    site.write("routes.d/b.yaml", &service("b2"));
    let outcome = site.reload().await;
    assert_eq!(outcome.effect, Effect::Partly);
    assert_eq!(outcome.files.iter().map(|file| &*file.file).collect::<Vec<_>>(), ["routes.d/a.yaml"]);
    assert_eq!(site.routes(), ["a", "b2", "c"]);
    let file = site.file("routes.d/a.yaml");
    assert_eq!((file.ok, file.runs), (false, Runs::LastGood));
    assert_eq!(problem_lines(&file), [("routes.d/a.yaml".to_owned(), 1)]);
    assert!(file.problems[0].text.contains("did you mean `upstreams`?"), "{}", file.problems[0].text);
    assert!(site.file("routes.d/b.yaml").ok);
    assert!(site.metric("tollgate_config_file_errors{file=\"routes.d/a.yaml\"} 1"));
    assert!(site.metric("tollgate_reloads_total{result=\"failed\"} 1"));

    // It stays out while others go on changing, and is in again when it is right.
    site.write("routes.d/c.yaml", &service("c2"));
    assert_eq!(site.reload().await.effect, Effect::Partly);
    assert_eq!(site.routes(), ["a", "b2", "c2"]);
    site.write("routes.d/a.yaml", &service("a2"));
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["a2", "b2", "c2"]);
    assert!(site.live.status().files.iter().all(|file| file.ok && file.problems.is_empty()));
    assert!(site.metric("tollgate_config_file_errors{file=\"routes.d/a.yaml\"} 0"));
}

#[tokio::test]
async fn a_mistake_that_is_undone_leaves_no_trace() {
    let site = three();
    site.write("routes.d/a.yaml", "routes: 1");
    let outcome = site.reload().await;
    assert_eq!((outcome.effect, outcome.generation), (Effect::Refused, 1));
    site.write("routes.d/a.yaml", &service("a"));
    let outcome = site.reload().await;
    assert_eq!((outcome.effect, outcome.files.len()), (Effect::Applied, 0));
}

#[tokio::test]
async fn mistakes_of_several_kinds_are_told_at_once() {
    let site = three();
    site.write("routes.d/a.yaml", "routes: {\n");
    site.write("routes.d/b.yaml", &route("b", "nobody"));
    site.write("routes.d/c.yaml", &service("c2"));
    site.write("routes.d/d.yaml", "{]");
    assert_eq!(site.reload().await.effect, Effect::Partly);
    assert_eq!(site.routes(), ["a", "b", "c2"]);
    for (name, runs) in [("a", Runs::LastGood), ("b", Runs::LastGood), ("c", Runs::Current), ("d", Runs::LeftOut)] {
        let file = site.file(&format!("routes.d/{name}.yaml"));
        assert_eq!((file.runs, file.problems.is_empty()), (runs, runs == Runs::Current), "{name}");
    }
}

#[tokio::test]
async fn who_removes_what_another_needs_is_held_and_the_rest_applies() {
    let site = Site::start(&[
        ("routes.d/a.yaml", &service("a")),
        ("routes.d/b.yaml", &route("b", "a")),
        ("routes.d/c.yaml", &service("c")),
    ]);
    site.write("routes.d/a.yaml", &service("other"));
    site.write("routes.d/c.yaml", &service("c2"));
    assert_eq!(site.reload().await.effect, Effect::Partly);
    assert_eq!(site.routes(), ["a", "b", "c2"]);
    let file = site.file("routes.d/a.yaml");
    assert_eq!((file.runs, problem_lines(&file)), (Runs::LastGood, vec![("routes.d/b.yaml".to_owned(), 2)]));
    assert!(site.file("routes.d/b.yaml").ok && site.file("routes.d/c.yaml").ok);
    // With both ends changed it is right.
    site.write("routes.d/b.yaml", &route("b", "other"));
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["other", "b", "c2"]);
}

#[tokio::test]
async fn a_removed_file_that_another_needs_refuses_everything() {
    let site = Site::start(&[("routes.d/a.yaml", &service("a")), ("routes.d/b.yaml", &route("b", "a"))]);
    site.remove("routes.d/a.yaml");
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(site.routes(), ["a", "b"]);
    assert_eq!(site.file("routes.d/a.yaml").runs, Runs::LastGood);
    assert_eq!(site.file("routes.d/b.yaml").problems.len(), 1);
}

#[tokio::test]
async fn a_newcomer_that_takes_a_name_is_left_out_whatever_its_place() {
    let site = Site::start(&[("routes.d/b.yaml", &service("b"))]);
    // The loader reads it first, and finds the second of the two in `b`.
    site.write("routes.d/a.yaml", &service("b"));
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(site.file("routes.d/a.yaml").runs, Runs::LeftOut);
    assert!(site.file("routes.d/b.yaml").ok);
}

#[tokio::test]
async fn a_bad_root_file_falls_back_and_fragments_go_on() {
    let site = three();
    site.write("gateway.yaml", "version: 1\nlistener: []\n");
    site.write("routes.d/a.yaml", &service("a2"));
    assert_eq!(site.reload().await.effect, Effect::Partly);
    assert_eq!(site.routes(), ["a2", "b", "c"]);
    assert_eq!(site.file("gateway.yaml").runs, Runs::LastGood);
    // The root file is still wrong.
    site.write("routes.d/b.yaml", &service("b2"));
    site.write("routes.d/d.yaml", &service("d"));
    assert_eq!(site.reload().await.effect, Effect::Partly);
    assert_eq!(site.routes(), ["a2", "b2", "c", "d"]);
    site.write("gateway.yaml", ROOT);
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert!(site.live.status().files.iter().all(|file| file.ok));
}

#[tokio::test]
async fn a_vanished_root_file_changes_nothing() {
    let site = three();
    site.remove("gateway.yaml");
    site.write("routes.d/a.yaml", &service("a2"));
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(site.routes(), ["a", "b", "c"]);
    assert!(site.file("gateway.yaml").problems[0].report.message.contains("cannot read this file"));
    assert_eq!(site.reload().await.effect, Effect::Unchanged);
    site.write("gateway.yaml", ROOT);
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["a2", "b", "c"]);
}

#[tokio::test]
async fn a_vanished_include_folder_changes_nothing() {
    let site = three();
    fs::rename(site.folder.path().join("routes.d"), site.folder.path().join("away")).unwrap();
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(site.routes(), ["a", "b", "c"]);
    fs::rename(site.folder.path().join("away"), site.folder.path().join("routes.d")).unwrap();
    assert_eq!(site.reload().await.effect, Effect::Applied);
}

#[tokio::test]
async fn a_failing_test_refuses_everything() {
    let site = three();
    let failing = format!("{}tests: [{{ request: GET /fail, expect: {{ status: 200 }} }}]\n", service("a2"));
    site.write("routes.d/a.yaml", &failing);
    site.write("routes.d/b.yaml", &service("b2"));
    let outcome = site.reload().await;
    assert_eq!((outcome.effect, outcome.generation, outcome.files.len()), (Effect::Refused, 1, 2));
    assert_eq!(site.routes(), ["a", "b", "c"]);
    assert_eq!(problem_lines(&site.file("routes.d/a.yaml")), [("routes.d/a.yaml".to_owned(), 5)]);
    assert_eq!(site.file("routes.d/b.yaml").runs, Runs::LastGood);
    site.write("routes.d/a.yaml", &failing.replace("fail", "pass"));
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["a2", "b2", "c"]);
}

#[tokio::test]
async fn what_cannot_be_read_falls_back() {
    let site = three();
    let path = site.folder.path().join("routes.d/a.yaml");
    fs::write(&path, b"routes: [] # \xff\n").unwrap();
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert!(site.file("routes.d/a.yaml").problems[0].text.contains("not UTF-8"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    site.write("routes.d/b.yaml", &service("b2"));
    assert_eq!(site.reload().await.effect, Effect::Partly);
    assert!(site.file("routes.d/a.yaml").problems[0].text.contains("not a regular file"));
    assert_eq!(site.routes(), ["a", "b2", "c"]);
    // An empty file is right, and another thing than one that cannot be read.
    fs::remove_dir(&path).unwrap();
    site.write("routes.d/a.yaml", "");
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["b2", "c"]);
}

#[tokio::test]
async fn a_missing_folder_of_the_new_root_is_seen_when_it_comes() {
    let site = three();
    site.write("gateway.yaml", &ROOT.replace("routes.d/*.yaml", "routes.d/*.yaml, more/*.yaml"));
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(site.file("gateway.yaml").problems.len(), 1);
    fs::create_dir(site.folder.path().join("more")).unwrap();
    site.write("more/d.yaml", &service("d"));
    assert_eq!(site.reload().await.effect, Effect::Applied);
    assert_eq!(site.routes(), ["d", "a", "b", "c"]);
    // The same with a file that is named as a whole, while the root file is wrong in yet another way.
    site.write("gateway.yaml", &ROOT.replace(".yaml]", ".yaml, e.yaml]\nlimit: 1"));
    assert_eq!(site.reload().await.effect, Effect::Refused);
    site.write("e.yaml", &service("e"));
    assert_eq!(site.reload().await.effect, Effect::Refused);
    assert_eq!(site.live.status().reloads_failed, 3);
}
