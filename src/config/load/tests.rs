use super::*;
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

const ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\n";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn read_all(folder: &TempDir) -> Loaded {
    load(&folder.path().join("gateway.yaml"), &Environment::Fixed(HashMap::new()), &Overrides::new())
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.files.iter().map(|file| loaded.sources.name(file.id)).collect()
}

fn problems(loaded: &Loaded) -> Vec<String> {
    let problems = loaded.config.as_ref().err().into_iter().flatten();
    problems.map(|problem| format!("{}: {}", loaded.sources.locate(problem.place), problem.message)).collect()
}

#[test]
fn included_files_come_sorted_and_once_and_hidden_ones_do_not_come() {
    let root = format!("{ROOT}include: [routes.d/*.yaml, routes.d/b.yaml, \"more/?.yaml\"]\n");
    let folder = folder(&[
        ("gateway.yaml", &root),
        ("routes.d/b.yaml", ""),
        ("routes.d/a.yaml", ""),
        ("routes.d/.hidden.yaml", "nonsense: 1"),
        ("routes.d/a.yaml~", "nonsense: 1"),
        ("more/1.yaml", ""),
        ("more/10.yaml", "nonsense: 1"),
    ]);
    let loaded = read_all(&folder);
    assert_eq!(problems(&loaded), [] as [String; 0]);
    assert_eq!(names(&loaded), ["gateway.yaml", "more/1.yaml", "routes.d/a.yaml", "routes.d/b.yaml"]);
    assert_eq!(loaded.config.unwrap().fragments.len(), 3);
}

#[test]
fn a_pattern_may_match_nothing_but_its_folder_must_be_there() {
    let found =
        folder(&[("gateway.yaml", &format!("{ROOT}include: [routes.d/*.yaml]\n")), ("routes.d/readme.txt", "")]);
    assert_eq!(problems(&read_all(&found)), [] as [String; 0]);
    let missing = folder(&[("gateway.yaml", &format!("{ROOT}include: [routes.d/*.yaml]\n"))]);
    assert_eq!(
        problems(&read_all(&missing)),
        ["gateway.yaml:3:11: cannot include `routes.d/*.yaml`: there is no such file"]
    );
}

#[test]
fn mistakes_of_all_files_are_reported_together() {
    let root = format!("{ROOT}include: [a.yaml, b.yaml]\n");
    let folder = folder(&[("gateway.yaml", &root), ("a.yaml", "routs: []\n"), ("b.yaml", "limits: {}\nrouts: []\n")]);
    assert_eq!(
        problems(&read_all(&folder)),
        [
            "a.yaml:1:1: unknown key `routs`",
            "b.yaml:1:1: only gateway.yaml may carry `limits`",
            "b.yaml:2:1: unknown key `routs`",
        ]
    );
}

#[test]
fn files_of_references_are_relative_to_the_file_that_names_them() {
    let root = format!("{ROOT}include: [sub/a.yaml]\nlog: {{ level: \"${{file:level.txt}}\" }}\n");
    let fragment = "upstreams: { a: { targets: [{ address: \"${file:address.txt}\" }] } }\n";
    let folder = folder(&[
        ("gateway.yaml", &root),
        ("level.txt", "warn\n"),
        ("sub/a.yaml", fragment),
        ("sub/address.txt", "127.0.0.1:1\n"),
    ]);
    let config = read_all(&folder).config.unwrap();
    assert_eq!(config.root.log.level, "warn");
    assert_eq!(config.fragments[0].upstreams[0].1.targets[0].address.value, "127.0.0.1:1");
}

#[test]
fn variables_come_from_the_environment_that_is_given() {
    let folder = folder(&[("gateway.yaml", &format!("{ROOT}threads: ${{THREADS}}\n"))]);
    let path = folder.path().join("gateway.yaml");
    let variables = HashMap::from([("THREADS".to_owned(), "7".to_owned())]);
    let loaded = load(&path, &Environment::Fixed(variables), &Overrides::new());
    assert_eq!(loaded.config.unwrap().root.threads.unwrap().value, 7);
    assert_eq!(problems(&read_all(&folder)), ["gateway.yaml:3:10: the variable `THREADS` is not set"]);
}

#[test]
fn an_override_stands_for_what_a_file_holds_or_leaves_it_out() {
    let root = format!("{ROOT}include: [a.yaml]\n");
    let folder = folder(&[("gateway.yaml", &root), ("a.yaml", "nonsense: 1\n")]);
    let path = folder.path().join("gateway.yaml");
    let with = |text: Option<&str>| {
        let overrides = Overrides::from([(folder.path().join("a.yaml"), text.map(str::to_owned))]);
        load(&path, &Environment::Fixed(HashMap::new()), &overrides)
    };
    assert!(read_all(&folder).config.is_err());
    assert_eq!(with(Some("routes: []\n")).config.unwrap().fragments.len(), 1);
    assert_eq!(with(None).config.unwrap().fragments.len(), 0);
}

#[test]
fn the_hash_tells_texts_and_names_apart() {
    let hash = |name: &str, text: &str| {
        let file = ReadFile { path: name.into(), id: Sources::new().add(name, text), text: text.to_owned() };
        hash(&[file])
    };
    let one = hash("a", "b");
    assert_eq!((one.len(), &one), (16, &hash("a", "b")));
    assert!(one != hash("a", "c") && one != hash("b", "b") && one != hash("ab", ""));
}

#[test]
fn a_file_is_read_up_to_its_largest_size() {
    let folder = folder(&[("gateway.yaml", "")]);
    let path = folder.path().join("gateway.yaml");
    let mut text = format!("{ROOT}#");
    text.push_str(&" ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() - text.len()));
    fs::write(&path, &text).unwrap();
    assert_eq!(problems(&read_all(&folder)), [] as [String; 0]);
    text.push(' ');
    fs::write(&path, &text).unwrap();
    assert_eq!(problems(&read_all(&folder)), ["gateway.yaml: cannot read this file: it is larger than 16777216 bytes"]);
}

#[test]
fn a_socket_is_not_read() {
    let folder = folder(&[]);
    let path = folder.path().join("gateway.yaml");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(problems(&read_all(&folder)), ["gateway.yaml: cannot read this file: it is not a regular file"]);
    drop(socket);
}

fn matches(pattern: &str, text: &str) -> bool {
    wildcard(pattern.as_bytes(), text.as_bytes())
}

#[test]
fn wildcards_stand_for_runs_and_for_single_characters() {
    for (pattern, text, expected) in [
        ("*.yaml", "a.yaml", true),
        ("*.yaml", ".yaml", true),
        ("*.yaml", "a.yml", false),
        ("*.yaml", "a.yaml~", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("?.yaml", "a.yaml", true),
        ("?.yaml", "ab.yaml", false),
        ("*", "", true),
        ("**", "abc", true),
        ("", "a", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

/// The definition, without cleverness.
fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| matches_by_definition(rest, &text[skipped..])),
        (Some((b'?', pattern)), Some((_, text))) => matches_by_definition(pattern, text),
        (Some((wanted, pattern)), Some((byte, text))) => wanted == byte && matches_by_definition(pattern, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn wildcards_match_as_defined(pattern in "[ab*?]{0,7}", text in "[ab]{0,8}") {
        prop_assert_eq!(matches(&pattern, &text), matches_by_definition(pattern.as_bytes(), text.as_bytes()));
    }
}
