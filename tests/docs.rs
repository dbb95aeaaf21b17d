//! The documentation runs: every configuration in it loads, passes its own tests, and fits the published schema.
//!
//! In `README.md`, `docs/` and the pages at the head of each filter and handler, a block marked `yaml` is a complete
//! `gateway.yaml`, and one marked `yaml fragment` an included file. Other blocks (`yaml part`, `text`, `sh`) are not run.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may end its process")]

#[path = "docs/schema.rs"]
mod schema;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate::cli::{fragment_schema, root_schema};
use tollgate::config::load::{Environment, Overrides, load};
use tollgate::filters::FILTERS;
use tollgate::gateway::{Gateway, Services, compile, preview};
use tollgate::handlers::HANDLERS;
use tollgate::observe::metrics::Metrics;
use tollgate::reply::Code;
use tollgate::yaml::{Sources, parse};

/// What a fragment is loaded with.
const MINIMAL_ROOT: &str = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\ninclude: [fragment.yaml]\n";
/// Variables that the documentation speaks of.
const VARIABLES: [(&str, &str); 7] = [
    ("DEPLOY_WEBHOOK_SECRET", "a secret of the pipeline that nobody uses"),
    ("GATEWAY_PORT", "8000"),
    ("GITHUB_WEBHOOK_SECRET", "a secret of GitHub that nobody uses"),
    ("JWT_SECRET", "a secret of sixty-four bytes that nobody uses for anything real!"),
    ("REGISTRY_TOKEN", "a token that nobody uses"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_a secret of Stripe that nobody uses"),
    ("TASKS_TOKEN", "a-token"),
];

/// A block of YAML in a page.
struct Block {
    page: PathBuf,
    line: usize,
    fragment: bool,
    text: String,
}

/// The blocks of a page. In Rust source only what stands in `//!` counts.
fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let is_source = page.extension().is_some_and(|extension| extension == "rs");
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        let line = if is_source {
            let Some(comment) = line.strip_prefix("//!") else { continue };
            comment.strip_prefix(' ').unwrap_or(comment)
        } else {
            line
        };
        match (&mut open, line) {
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, "```yaml" | "```yaml fragment") => {
                let fragment = line.ends_with("fragment");
                open = Some(Block { page: page.to_owned(), line: index + 1, fragment, text: String::new() });
            }
            (None, _) => {}
        }
    }
    blocks
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `folder` with this extension.
fn files(folder: &Path, extension: &str, deep: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && deep {
            found.extend(files(&path, extension, deep));
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The pages of the filters and handlers that are registered.
fn own_pages() -> Vec<PathBuf> {
    let filters = FILTERS.iter().map(|row| format!("src/filters/{}.rs", row.name));
    let handlers = HANDLERS.iter().map(|row| format!("src/handlers/{}.rs", row.name));
    filters.chain(handlers).map(|page| repository().join(page)).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![repository().join("README.md")];
    pages.extend(files(&repository().join("docs"), "md", true));
    pages.extend(own_pages());
    pages
}

/// Loads a configuration as `tollgate check` would.
fn gateway(path: &Path, variables: &[(&str, &str)]) -> Result<Gateway, String> {
    let variables: HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let loaded = load(path, &Environment::Fixed(variables), &Overrides::new());
    let render = |sources: &Sources, problems: Vec<tollgate::yaml::Problem>| {
        problems.iter().map(|problem| sources.render(problem)).collect::<Vec<_>>().join("\n")
    };
    let config = loaded.config.map_err(|problems| render(&loaded.sources, problems))?;
    compile(&config, loaded.sources, loaded.hash, None, &Services::new(Metrics::new(100)))
        .map_err(|(sources, problems)| render(&sources, problems))
}

/// What is wrong with a block.
fn mistakes(block: &Block) -> Option<String> {
    if cfg!(not(feature = "plugins")) && block.text.contains("plugin:") {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    if block.fragment {
        fs::write(&path, MINIMAL_ROOT).unwrap();
        fs::write(folder.path().join("fragment.yaml"), &block.text).unwrap();
    } else {
        fs::write(&path, &block.text).unwrap();
        // What an example includes need not be there.
        fs::create_dir(folder.path().join("routes.d")).unwrap();
        write_certificates(folder.path());
        copy_plugins(folder.path());
    }
    let gateway = match gateway(&path, &VARIABLES) {
        Ok(gateway) => gateway,
        Err(problems) => return Some(problems),
    };
    let failures = preview::run_tests(&gateway);
    if !failures.is_empty() {
        return Some(failures.into_iter().map(|failure| failure.message).collect::<Vec<_>>().join("\n"));
    }
    let schema = if block.fragment { fragment_schema() } else { root_schema() };
    schema::validate(&schema, &json(&block.text)).err()
}

/// The certificates that examples name.
fn write_certificates(folder: &Path) {
    for (name, host) in [("site", "www.example.com"), ("api", "api.example.com"), ("ca", "ca.example.com")] {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        fs::write(folder.join(name).with_extension("pem"), made.cert.pem()).unwrap();
        fs::write(folder.join(name).with_extension("key"), made.signing_key.serialize_pem()).unwrap();
    }
}

/// The plugins that examples name.
fn copy_plugins(folder: &Path) {
    fs::create_dir(folder.join("plugins")).unwrap();
    for plugin in files(&repository().join("plugins"), "wasm", false) {
        fs::copy(&plugin, folder.join("plugins").join(plugin.file_name().unwrap())).unwrap();
    }
}

fn json(text: &str) -> serde_json::Value {
    let mut sources = Sources::new();
    let file = sources.add("block.yaml", text);
    schema::to_json(&parse(&sources, file).unwrap())
}

#[test]
fn every_configuration_in_the_documentation_loads_and_passes_its_tests() {
    let blocks: Vec<Block> = pages().iter().flat_map(|page| blocks(page)).collect();
    assert!(blocks.len() >= 10, "only {} blocks", blocks.len());
    let mut all = Vec::new();
    for block in &blocks {
        if let Some(mistakes) = mistakes(block) {
            let page = block.page.strip_prefix(repository()).unwrap();
            all.push(format!("{}:{}\n{mistakes}", page.display(), block.line));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n\n"));
}

#[test]
fn every_filter_and_handler_has_a_page_with_a_configuration_and_a_test() {
    for page in own_pages() {
        let tested = blocks(&page).iter().any(|block| block.text.contains("\ntests:"));
        assert!(tested, "{}: no ```yaml block with `tests:` in its //! page", page.display());
    }
}

/// The reference names every code, filter, handler, and every key of the schema.
#[test]
fn the_reference_is_complete() {
    let page = fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    for code in Code::ALL {
        let row = format!("| `{}` | {} | {} |", code.name, code.status.as_u16(), code.meaning);
        assert!(page.contains(&row), "docs/configuration.md lacks the row\n{row}");
    }
    let filters = FILTERS.iter().map(|row| row.name);
    for name in filters.chain(HANDLERS.iter().map(|row| row.name)) {
        assert!(page.contains(&format!("| `{name}` |")), "docs/configuration.md has no row for `{name}`");
    }
    let schema = root_schema();
    let mut own = vec![&schema];
    let types = [
        "Listener",
        "TokenServiceSettings",
        "AttemptSettings",
        "VerifySettings",
        "UserSettings",
        "Admin",
        "Defaults",
        "Limits",
        "Log",
        "AccessLog",
        "Metrics",
        "Upstream",
        "Target",
        "Timeouts",
        "Retry",
        "Route",
        "Match",
        "Condition",
        "Test",
        "Expect",
    ];
    own.extend(types.map(|name| schema.pointer(&format!("/definitions/{name}")).unwrap()));
    for keys in own.iter().filter_map(|schema| schema.get("properties")?.as_object()) {
        for key in keys.keys() {
            let word = regex::Regex::new(&format!(r"\b{key}\b")).unwrap();
            assert!(word.is_match(&page), "docs/configuration.md does not speak of `{key}`");
        }
    }
}

#[test]
fn the_shipped_configuration_passes_its_tests_and_fits_the_schemas() {
    let gateway = gateway(&repository().join("gateway.yaml"), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let failures: Vec<String> = preview::run_tests(&gateway).into_iter().map(|failure| failure.message).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let read = |path: &Path| json(&fs::read_to_string(path).unwrap());
    schema::validate(&root_schema(), &read(&repository().join("gateway.yaml"))).unwrap();
    for path in files(&repository().join("routes.d"), "yaml", false) {
        schema::validate(&fragment_schema(), &read(&path)).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}

/// What the loader refuses for its keys and types, an editor should underline too.
#[test]
fn the_schema_refuses_what_the_loader_refuses_for_its_shape() {
    for name in [
        "unknown_key_top",
        "unknown_key_nested",
        "unknown_key_in_route",
        "unknown_filter",
        "unknown_handler",
        "missing_key",
        "missing_version",
        "missing_route_name",
        "missing_unit",
        "bad_duration",
        "bad_size",
        "bad_enum",
        "bad_condition",
        "two_handlers",
        "no_handler",
        "string_for_list",
        "list_for_map",
        "map_for_list",
        "number_for_string",
        "string_for_number",
        "bool_for_number",
        "word_for_bool",
        "nothing_for_map",
        "out_of_range_of_type",
        "use_of_list",
        "two_keys_in_filter",
        "number_as_filter",
        "settings_of_filter",
        "document_is_a_list",
        "several_mistakes",
        "bad_bind",
        "bad_bind_port",
    ] {
        let path = repository().join("tests/bad_config").join(name).with_extension("yaml");
        let document = json(&fs::read_to_string(path).unwrap());
        assert!(schema::validate(&root_schema(), &document).is_err(), "the schema accepts {name}");
    }
}

#[test]
fn a_reference_may_stand_for_any_scalar() {
    let text = "version: ${A}\nthreads: ${B}\nlisteners: [{ bind: \"${C}\" }]\nerrors: ${D}\ndefaults: { timeout: \"${E}\" }\n";
    schema::validate(&root_schema(), &json(text)).unwrap();
}

#[test]
fn the_readme_names_every_filter_and_handler_in_the_registrys_words() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let filters = FILTERS.iter().map(|entry| (entry.name, entry.summary));
    for (name, summary) in filters.chain(HANDLERS.iter().map(|entry| (entry.name, entry.summary))) {
        let row = format!("| `{name}` | {summary} |");
        assert!(readme.contains(&row), "README.md lacks the row\n{row}");
    }
}
