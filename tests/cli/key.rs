//! `tollgate key`: what it prints where, and what it does to files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tollgate::identity::Digest;

use super::{CHECK_FAILED, folder, stderr, stdout, tollgate};

const FILE: &str = "\
# The gateway of the shop.
version: 1
listeners: [{ bind: 127.0.0.1:8000 }]
consumers:
  # Our own.
  - name: shop   # owned by sales
    scopes: [read:tasks, write:tasks]
    keys:
      - { id: shop-1, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae } # old

# What it does.
routes:
  - { name: a, match: GET /a, respond: { body: a } }
";

/// The only line on standard output: the key.
fn made(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    let key = stdout(output).strip_suffix('\n').unwrap();
    assert!(!key.contains('\n'), "{key}");
    assert!(!stderr(output).contains(key), "the key is shown once");
    key.to_owned()
}

fn digest(key: &str) -> String {
    Digest::of(key.as_bytes()).unwrap().to_string()
}

fn hash(input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["key", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It need not read more than a key may have.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn written(folder: &Path) -> String {
    fs::read_to_string(folder.join("gateway.yaml")).unwrap()
}

#[test]
fn what_is_printed_can_be_pasted() {
    let folder = folder("");
    let options = ["key", "new", "--consumer", "till", "--scopes", "read:tasks,write:*", "--expires", "90d"];
    let output = tollgate(folder.path(), &[&options[..], &["--prefix", "gsp", "--id", "till-1"]].concat());
    let key = made(&output);
    assert!(key.starts_with("gsp_") && key.len() == 47, "{key}");
    let (_, yaml) = stderr(&output).split_once("consumers:").unwrap();
    assert!(yaml.contains("id: till-1") && yaml.contains(&digest(&key)) && yaml.contains(&key[..12]), "{yaml}");
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\nroutes: []\nconsumers:";
    fs::write(folder.path().join("gateway.yaml"), format!("{head}{yaml}")).unwrap();
    let check = tollgate(folder.path(), &["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}

#[test]
fn a_key_is_written_into_the_file_and_nothing_else_changes() {
    let folder = folder(FILE);
    let path = folder.path().join("gateway.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let options = ["key", "new", "--write", "gateway.yaml", "--consumer"];
    let own = made(&tollgate(
        folder.path(),
        &[&options[..], &["shop", "--id", "shop-2", "--scopes", "read:tasks", "--expires", "2099-01-01T00:00:00Z"]]
            .concat(),
    ));
    let other = made(&tollgate(folder.path(), &[&options[..], &["till", "--id", "till-1"]].concat()));
    let expected = FILE.replace(
        "} # old\n",
        &format!(
            "}} # old\n      - id: shop-2\n        sha256: {}\n        prefix: {}\n        \
             expires: 2099-01-01T00:00:00Z\n        scopes: [read:tasks]\n  - name: till\n    keys:\n      \
             - id: till-1\n        sha256: {}\n        prefix: {}\n",
            digest(&own),
            &own[..11],
            digest(&other),
            &other[..11]
        ),
    );
    assert_eq!(written(folder.path()), expected);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    let check = tollgate(folder.path(), &["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}

#[test]
fn ids_are_numbered_where_none_is_chosen() {
    let folder = folder(FILE);
    let options = ["key", "new", "--write", "gateway.yaml", "--consumer", "shop"];
    for _ in 0..2 {
        made(&tollgate(folder.path(), &options));
    }
    let text = written(folder.path());
    let ids: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- id: shop-20")).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[1], format!("{}-2", ids[0]));
    let taken = tollgate(folder.path(), &[&options[..], &["--id", "shop-1"]].concat());
    assert_eq!((taken.status.code(), stdout(&taken)), (Some(1), ""));
    assert!(stderr(&taken).contains("has a key `shop-1` already"), "{}", stderr(&taken));
}

#[test]
fn a_link_stays_a_link() {
    let folder = folder(FILE);
    let (target, link) = (folder.path().join("gateway.yaml"), folder.path().join("link.yaml"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    made(&tollgate(folder.path(), &["key", "new", "--write", "link.yaml", "--consumer", "shop"]));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_ne!(written(folder.path()), FILE);
}

#[test]
fn a_file_that_cannot_be_edited_line_by_line_is_left_alone() {
    let text = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\nroutes: []\nconsumers: [{ name: shop }]\n";
    let folder = folder(text);
    let output = tollgate(folder.path(), &["key", "new", "--consumer", "shop", "--write", "gateway.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let key = stdout(&output).trim();
    assert!(stderr(&output).contains("was not changed") && stderr(&output).contains(&digest(key)));
    assert_eq!(written(folder.path()), text);
}

#[test]
fn a_key_that_the_gateway_would_refuse_is_not_written() {
    let folder = folder(FILE);
    let options = ["key", "new", "--consumer", "shop", "--scopes", "admin:all", "--write", "gateway.yaml"];
    let output = tollgate(folder.path(), &options);
    assert_eq!((output.status.code(), stdout(&output)), (Some(CHECK_FAILED), ""));
    assert!(stderr(&output).contains("consumer `shop` does not have the scope `admin:all`"), "{}", stderr(&output));
    assert_eq!(written(folder.path()), FILE);
    let astray = tollgate(folder.path(), &["key", "new", "--consumer", "shop", "--write", "missing/keys.yaml"]);
    assert_eq!((astray.status.code(), stdout(&astray)), (Some(1), ""));
    fs::write(folder.path().join("gateway.yaml"), "consumers: [").unwrap();
    let broken = tollgate(folder.path(), &["key", "new", "--consumer", "shop", "--write", "gateway.yaml"]);
    assert_eq!((broken.status.code(), stdout(&broken)), (Some(1), ""));
    assert!(stderr(&broken).contains("gateway.yaml:1:"), "{}", stderr(&broken));
}

#[test]
fn a_file_that_is_not_there_is_made() {
    let folder = folder(FILE);
    made(&tollgate(folder.path(), &["key", "new", "--consumer", "kiosk", "--write", "new.yaml"]));
    let text = fs::read_to_string(folder.path().join("new.yaml")).unwrap();
    assert!(text.starts_with("consumers:\n  - name: kiosk\n"), "{text}");
}

#[test]
fn a_key_is_hashed_from_standard_input_only() {
    let key = "tg_9b5546ec0000000000000000000000000000000000";
    for end in ["", "\n", "\r\n"] {
        let output = hash(format!("{key}{end}").as_bytes());
        assert_eq!(stdout(&output), format!("sha256: {}\nprefix: tg_9b5546ec\n", digest(key)), "{end:?}");
        assert_eq!(stderr(&output), "");
    }
    let short = hash(b"hunter2\n");
    assert_eq!(stdout(&short), format!("sha256: {}\n", digest("hunter2")), "a short key shows no part of itself");
    assert!(stderr(&short).contains("may be guessed") && !stderr(&short).contains("hunter2"));
    assert_eq!(hash(&[b'k'; 1024]).status.code(), Some(0));
    for bad in [&b""[..], b"\n", b"a\nb\n", &[b'k'; 1025], &[b'k'; 100_000]] {
        assert_eq!((hash(bad).status.code(), hash(bad).stdout.len()), (Some(1), 0));
    }
    let folder = folder(FILE);
    assert_eq!(tollgate(folder.path(), &["key", "hash", key]).status.code(), Some(2));
}

#[test]
fn odd_options_are_refused() {
    let folder = folder(FILE);
    for options in [
        &["--consumer", ""][..],
        &["--consumer", "a b"],
        &["--consumer", "a", "--scopes", "read*"],
        &["--consumer", "a", "--scopes", "a,,b"],
        &["--consumer", "a", "--expires", "90"],
        &["--consumer", "a", "--expires", "tomorrow"],
        &["--consumer", "a", "--prefix", "a.b"],
        &[],
    ] {
        let output = tollgate(folder.path(), &[&["key", "new"][..], options].concat());
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{options:?}");
    }
    let over = tollgate(folder.path(), &["key", "new", "--consumer", "a", "--expires", "2020-01-01T00:00:00Z"]);
    assert_eq!((over.status.code(), stdout(&over)), (Some(1), ""));
}
