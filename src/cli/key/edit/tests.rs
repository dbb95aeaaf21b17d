use super::*;
use crate::identity::{Digest, NewKey};

fn key() -> NewKey {
    let text = format!("tg_{}", "a".repeat(43));
    NewKey { visible: text.chars().take(11).collect(), digest: Digest::of(text.as_bytes()).unwrap(), text }
}

fn edited(text: &str, consumer: &str, scopes: &[&str]) -> Result<String, &'static str> {
    let key = key();
    let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let file = File::read(Path::new("gateway.yaml"), text).unwrap();
    let id = file.free_id("new");
    let paste = Paste { consumer, id, key: &key, scopes: &scopes, expires: None };
    file.with_key(&paste).map(|text| text.replace(&key.digest.to_string(), "HASH"))
}

#[test]
fn a_key_goes_behind_the_last_one_of_its_consumer() {
    let text = "# ours\nconsumers:\n  - name: shop   # the shop\n    keys:\n      # the old one\n      - id: old\n        \
                sha256: x\n        # to be removed\n\n  - name: other\n\n# end\nversion: 1\n";
    let expected = "# ours\nconsumers:\n  - name: shop   # the shop\n    keys:\n      # the old one\n      - id: old\n        \
                    sha256: x\n        # to be removed\n      - id: new\n        sha256: HASH\n        \
                    prefix: tg_aaaaaaaa\n        scopes: [read:x, \"*\"]\n\n  - name: other\n\n# end\nversion: 1\n";
    assert_eq!(edited(text, "shop", &["read:x", "*"]).unwrap(), expected);
}

#[test]
fn lists_that_are_not_indented_stay_so() {
    let text = "consumers:\n- name: shop\n  keys:\n  - { id: new, sha256: x }\nroutes: []";
    let expected = "consumers:\n- name: shop\n  keys:\n  - { id: new, sha256: x }\n  - id: new-2\n    sha256: HASH\n    \
                    prefix: tg_aaaaaaaa\nroutes: []";
    assert_eq!(edited(text, "shop", &[]).unwrap(), expected);
}

#[test]
fn a_consumer_without_keys_gets_some() {
    let text = "consumers:\n  - name: shop\n    roles:\n      - user\n  - name: other\n";
    let expected = "consumers:\n  - name: shop\n    roles:\n      - user\n    keys:\n      - id: new\n        \
                    sha256: HASH\n        prefix: tg_aaaaaaaa\n  - name: other\n";
    assert_eq!(edited(text, "shop", &[]).unwrap(), expected);
}

#[test]
fn a_consumer_that_is_not_there_is_added() {
    let text = "consumers:\n  - name: other\n    note: |\n      line\n\n      line\n\n# routes\nroutes: []\n";
    let expected = "consumers:\n  - name: other\n    note: |\n      line\n\n      line\n  - name: shop\n    \
                    scopes: [read:x]\n    keys:\n      - id: new\n        sha256: HASH\n        prefix: tg_aaaaaaaa\n\n\
                    # routes\nroutes: []\n";
    assert_eq!(edited(text, "shop", &["read:x"]).unwrap(), expected);
}

#[test]
fn a_file_without_consumers_gets_them_at_its_end() {
    let added = "consumers:\n  - name: shop\n    keys:\n      - id: new\n        sha256: HASH\n        \
                 prefix: tg_aaaaaaaa\n";
    for (text, before) in [
        ("version: 1\nroutes: []\n# end", "version: 1\nroutes: []\n# end\n\n"),
        ("", ""),
        ("# nothing yet\n", "# nothing yet\n\n"),
    ] {
        assert_eq!(edited(text, "shop", &[]).unwrap(), format!("{before}{added}"));
    }
    let windows = edited("version: 1\r\nroutes: []\r\n", "shop", &[]).unwrap();
    assert_eq!(windows, format!("version: 1\nroutes: []\n\n{added}").replace('\n', "\r\n"));
}

#[test]
fn what_cannot_be_extended_by_lines_is_left_alone() {
    for text in [
        "consumers: []\n",
        "consumers:\nroutes: []\n",
        "consumers: [{ name: shop }]\n",
        "consumers:\n  - { name: shop, keys: [] }\n",
        "consumers:\n  - name: shop\n    keys: [{ id: a, sha256: x }]\n",
        "consumers:\n  - name: shop\n    keys: []\n",
        "{ version: 1 }\n",
        "version: 1\n...\n",
        "consumers: &all\n  - name: shop\n    keys: &keys\n      - id: a\n  - name: other\n    keys: *keys\n",
        "consumers:\n  - &shop\n    name: shop\n  - *shop\n",
        "- a list\n",
    ] {
        assert!(edited(text, "shop", &[]).is_err(), "{text}\n{:?}", edited(text, "shop", &[]));
    }
}

#[test]
fn names_that_yaml_would_read_otherwise_are_quoted() {
    for name in ["true", "1", "1e5", "null", "~", "-", "*", "read:*,x", "a: b", "0x1f", "x #y", ""] {
        let scalar = super::super::paste::scalar(name);
        let read = parsed(&format!("[{scalar}]")).unwrap();
        assert_eq!(read.items()[0].as_str(), Some(name), "{scalar}");
    }
    assert_eq!(super::super::paste::scalar("read:tasks"), "read:tasks");
}
