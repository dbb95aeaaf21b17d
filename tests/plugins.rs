//! The plugins of `plugins/`: their logic, that what is committed was made of its source, and that it loads.
//!
//! They are built anew where the tools for it are (`plugins/build --tools`, which `make test` runs); where they are not, that
//! is said and left out.
#![cfg(feature = "plugins")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may end its process")]

/// Where the tests beside it are run.
#[allow(
    dead_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a plugin ends itself, at the cost of one request"
)]
#[path = "../plugins/mask-pii/src/mask.rs"]
mod mask;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

const NAMES: [&str; 2] = ["country", "mask-pii"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins")
}

/// Every file below a folder, as `./country/country.c`.
fn files(folder: &Path, from: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, from));
        } else {
            found.insert(format!("./{}", path.strip_prefix(from).unwrap().display()));
        }
    }
    found
}

#[test]
fn what_is_committed_was_made_of_its_source() {
    let sums = fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
    let mut listed = BTreeSet::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let now: String =
            Sha256::digest(fs::read(folder().join(name)).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(now, sum, "{name} was changed: run plugins/build");
        listed.insert(name.to_owned());
    }
    let mut there = files(&folder(), &folder());
    there.retain(|name| !name.ends_with(".md") && name != "./SHA256SUMS" && name != "./build");
    assert_eq!(there, listed, "run plugins/build");
}

#[test]
fn nothing_is_said_of_where_it_was_built() {
    for name in NAMES {
        let file = fs::read(folder().join(name).with_extension("wasm")).unwrap();
        let text = String::from_utf8_lossy(&file);
        for place in ["/root", "/home", "/tmp", "/build", "registry"] {
            assert!(!text.contains(place), "{name}.wasm has {place}");
        }
        assert!(file.len() < 200_000, "{name}.wasm has {} bytes", file.len());
    }
}

fn check(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["plugin", "check"]).arg(file).args(arguments).output().unwrap()
}

#[test]
fn each_takes_a_configuration_that_is_right_and_says_what_is_wrong_with_another() {
    for (name, config, wrong) in [
        ("country", "DE, at US", None),
        ("country", r#" { "allow" : [ "DE", "US-CA" ], "region_header":"x-region","unknown":"allow" } "#, None),
        ("country", r#"{"deny":["DE"],"header":"x-country"}"#, None),
        ("country", "", Some("no configuration")),
        ("country", "{}", Some("JSON object or no country")),
        ("country", "DEU", Some("a code is DE, or US-CA")),
        ("country", "US-CA", Some("regions need `region_header`")),
        ("country", r#"{"allow":["DE"],"deny":["FR"]}"#, Some("either `allow` or `deny`")),
        ("country", r#"{"allow":["DE"],"unknown":"maybe"}"#, Some("`unknown` is allow or deny")),
        ("country", r#"{"allow":["DE"],"heade":"x"}"#, Some("an unknown key")),
        ("country", r#"{"allow":["DE"]} more"#, Some("something stands behind")),
        ("country", r#"{"allow":["DE"]"#, Some("JSON object")),
        ("mask-pii", "", None),
        ("mask-pii", r#"{"mask":["cards"],"patterns":[{"name":"staff","like":"EMP-####"}],"replacement":"***"}"#, None),
        ("mask-pii", r#"{"mask":["car"]}"#, Some("unknown variant `car`")),
        ("mask-pii", r#"{"mask":[]}"#, Some("nothing to do")),
        ("mask-pii", r#"{"masks":[]}"#, Some("unknown field `masks`")),
        ("mask-pii", r#"{"replacement":"\""}"#, Some("no quotes")),
        ("mask-pii", r##"{"patterns":[{"name":"card","like":"#"}]}"##, Some("each name once")),
        ("mask-pii", r#"{"patterns":[{"name":"a","like":""}]}"#, Some("a pattern has 1 to 64 characters")),
    ] {
        let output = check(&folder().join(name).with_extension("wasm"), &["--config", config]);
        let (told, problems) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let expected = if wrong.is_some() { 64 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{name} {config}: {told}{problems}");
        let is_told = wrong.is_none_or(|wrong| wrong.split(" or ").any(|words| told.contains(words)));
        assert!(is_told, "{name} {config}: {wrong:?} is not in {told}");
    }
}

/// Whether plugins can be built here; says so where they cannot.
fn can_build(what: &str) -> bool {
    let is_ready = Command::new(folder().join("build")).arg("--ready").status().is_ok_and(|status| status.success());
    if !is_ready {
        eprintln!("LEFT OUT: {what}: the tools are not here (plugins/build --tools fetches them)");
    }
    is_ready
}

fn build(arguments: &[&Path]) {
    let mut command = Command::new(folder().join("build"));
    let output = command.args(arguments).env("CARGO_TARGET_DIR", env!("CARGO_TARGET_TMPDIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The only block of a language in the page for authors.
fn block(language: &str) -> String {
    let page = fs::read_to_string(folder().join("../docs/plugins.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_plugins_of_the_page_build_and_load() {
    if !can_build("the plugins of docs/plugins.md are not built") {
        return;
    }
    let own = tempfile::tempdir().unwrap();
    fs::create_dir(own.path().join("src")).unwrap();
    fs::write(own.path().join("Cargo.toml"), block("toml")).unwrap();
    fs::write(own.path().join("src/lib.rs"), block("rust")).unwrap();
    build(&[Path::new("--cargo"), own.path()]);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm32-unknown-unknown/release/tenants.wasm");
    assert_eq!(check(&built, &["--config", "acme initech"]).status.code(), Some(0));
    assert_eq!(check(&built, &[]).status.code(), Some(64), "it refuses an empty list");

    fs::write(own.path().join("tenants.c"), block("c")).unwrap();
    fs::copy(folder().join("country/proxy_wasm.h"), own.path().join("proxy_wasm.h")).unwrap();
    build(&[Path::new("--c"), own.path()]);
    assert_eq!(check(&own.path().join("plugin.wasm"), &[]).status.code(), Some(0));
}

/// What a plugin takes from the host, and what it has for it.
fn surface(file: &Path) -> (Value, Value) {
    let output = check(file, &["--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    (json["imports"].clone(), json["exports"].clone())
}

#[test]
fn the_documented_command_builds_them() {
    if !can_build("the plugins are not built anew") {
        return;
    }
    let into = tempfile::tempdir().unwrap();
    build(&[Path::new("--into"), into.path()]);
    for name in NAMES {
        let file = format!("{name}.wasm");
        assert_eq!(surface(&into.path().join(&file)), surface(&folder().join(&file)), "{name}");
    }
}
