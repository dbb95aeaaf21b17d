//! Configuration text: whatever the bytes are, it loads, or it fails with problems that can be shown. What loads also
//! takes requests.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use tollgate::chain::Stop;
use tollgate::clock;
use tollgate::config::load::{Attached, Config};
use tollgate::config::{Fragment, Root};
use tollgate::context::{Context, RequestId};
use tollgate::gateway::{self, Gateway, Matched, Route, Services};
use tollgate::handlers::Action;
use tollgate::head::{HeaderName, HeaderValue, Headers, Method, RequestBuf, ResponseBuf, StatusCode, is_path};
use tollgate::observe::metrics::Metrics;
use tollgate::yaml::{FileId, Lookup, Node, Problem, Sources, decode, interpolate, parse};

/// What a fragment is put into.
const ROOT: &str =
    "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nupstreams: { own: { targets: [{ address: 127.0.0.1:1 }] } }\n";

static EMPTY_ROOT: LazyLock<Root> = LazyLock::new(|| {
    let (mut sources, lookup) = (Sources::new(), Values);
    let id = sources.add("root.yaml", ROOT);
    let node = parse(&sources, id).and_then(|node| interpolate(&node, &lookup)).expect("valid YAML");
    decode(&node).expect("a valid configuration")
});

fuzz_target!(|text: &str| -> Corpus {
    let mut sources = Sources::new();
    let id = sources.add("fuzz.yaml", text);
    let node = match parse(&sources, id) {
        Ok(node) => node,
        Err(problems) => {
            show(&sources, &problems);
            return Corpus::Keep;
        }
    };
    match interpolate(&node, &Values) {
        Ok(node) => {
            sources.hide(&node);
            typed(&sources, &node);
        }
        Err(problems) => show(&sources, &problems),
    }
    Corpus::Keep
});

fn typed(sources: &Sources, node: &Node) {
    match decode::<Root>(node) {
        Ok(root) => compiled(sources, config(root, Vec::new())),
        Err(problems) => show(sources, &problems),
    }
    match decode::<Fragment>(node) {
        Ok(fragment) => compiled(sources, config(EMPTY_ROOT.clone(), vec![fragment])),
        Err(problems) => show(sources, &problems),
    }
}

fn config(root: Root, fragments: Vec<Fragment>) -> Config {
    Config { root, fragments, base: PathBuf::new(), attached: Attached::new() }
}

fn compiled(sources: &Sources, config: Config) {
    let services = Services::new(Metrics::new(1_000));
    match gateway::compile(&config, sources.clone(), String::new(), None, &services) {
        Ok(gateway) => serve(&gateway),
        Err((sources, problems)) => show(&sources, &problems),
    }
}

/// Every problem can be shown, to people and to machines, on lines of their own, without control characters and without
/// the values that were put in.
fn show(sources: &Sources, problems: &[Problem]) {
    assert!(!problems.is_empty(), "a failure without a problem");
    for problem in problems {
        let text = sources.render(problem);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        let report = sources.report(problem);
        let hint = report.hint.as_deref().unwrap_or_default();
        assert!(!report.message.contains('\n') && !hint.contains('\n'), "{report:?}");
        if !sources.text(problem.place.file).contains(SECRET) {
            assert!(!text.contains(SECRET), "a value that was put in is shown: {text}");
            assert!(!report.message.contains(SECRET) && !hint.contains(SECRET), "{report:?}");
        }
    }
}

fn serve(gateway: &Gateway) {
    for (method, host, target) in
        [(Method::GET, "", "/"), (Method::POST, "a.example.com", "/api/v1/a/b?x=1"), (Method::OPTIONS, "b", "/a/b/c/")]
    {
        let mut request = RequestBuf { host: host.to_owned(), ..RequestBuf::new(method, target) };
        request.append(&HeaderName::from_static("origin"), HeaderValue::from_static("https://a.example.com"));
        request.append(&HeaderName::from_static("access-control-request-method"), HeaderValue::from_static("PUT"));
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut context = Context::detached(peer, RequestId::from_bits(1), clock::now());
        let found = match gateway.find(&request, &mut context) {
            Matched::Route(route) => route,
            Matched::Refused(_) => gateway.fallback(),
        };
        // The others too: seldom does a request happen to match what was made up.
        for route in std::iter::once(found).chain(gateway.routes().iter().take(8)) {
            walk(route, request.clone(), context.clone());
        }
    }
}

fn walk(route: &Route, mut request: RequestBuf, mut context: Context) {
    let mut reached = 0;
    let stop = route.chain.advance(&mut reached, &mut request, &mut context);
    assert!(is_path(&request.path), "{:?} is sent to the upstream", request.path);
    if let (Stop::End, Action::Answer(handler)) = (stop, &route.action) {
        let _ = handler.answer(&request, &context);
    }
    assert!(reached <= route.chain.links().len());
    route.chain.respond(reached, &request, &mut ResponseBuf::new(StatusCode::OK), &context);
}

/// Stands for what the environment and secret files hold.
const SECRET: &str = "Hidden-4711";

struct Values;

impl Lookup for Values {
    fn random(&self, name: &str) -> Result<String, String> {
        Ok(format!("random-{name}-secret"))
    }

    fn env(&self, name: &str) -> Option<String> {
        match name.len() {
            1 => Some(SECRET.to_owned()),
            2 => Some("8".to_owned()),
            3 => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &str, _: FileId) -> Result<String, String> {
        if path.len() == 1 { Ok(format!("{SECRET}\n")) } else { Err("there is none".to_owned()) }
    }
}
