mod reference;

use super::*;
use crate::head::{Headers, RequestBuf};

/// A route in short: `[GET,PUT] [host] /path`, and what is chained on.
fn spec(path: &str) -> MatchSpec {
    MatchSpec {
        hosts: Vec::new(),
        methods: Vec::new(),
        path: PathPattern::parse(path).unwrap(),
        trailing_slash: TrailingSlash::Ignore,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

impl MatchSpec {
    fn method(mut self, method: &str) -> Self {
        self.methods.push(method.parse().unwrap());
        self
    }
    fn host(mut self, host: &str) -> Self {
        self.hosts.push(HostPattern::parse(host).unwrap());
        self
    }
    fn strict(mut self) -> Self {
        self.trailing_slash = TrailingSlash::Strict;
        self
    }
    fn header(mut self, name: &'static str, value: ValueMatch) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }
    fn query(mut self, name: &str, value: ValueMatch) -> Self {
        self.query.push((name.to_owned(), value));
        self
    }
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Exact(text.to_owned())
}

fn table(specs: Vec<MatchSpec>) -> Table {
    Table::build(specs).unwrap_or_else(|ties| panic!("{ties:?}"))
}

fn get(target: &str) -> RequestBuf {
    RequestBuf::new(Method::GET, target)
}

fn at(host: &str, target: &str) -> RequestBuf {
    RequestBuf { host: host.to_owned(), ..get(target) }
}

fn with(target: &str, name: &'static str, value: &'static str) -> RequestBuf {
    let mut request = get(target);
    request.append(&HeaderName::from_static(name), crate::head::HeaderValue::from_static(value));
    request
}

fn find(table: &Table, request: &RequestBuf) -> Found {
    table.find(request, &request.method, &mut Captures::default())
}

/// The index of the route, or `None` when there is none.
fn route(table: &Table, request: &RequestBuf) -> Option<usize> {
    match find(table, request) {
        Found::Route(route) => Some(route),
        Found::MethodNotAllowed(_) | Found::NotFound => None,
    }
}

fn captured(pattern: &str, path: &str) -> Option<Vec<Option<String>>> {
    let table = table(vec![spec(pattern)]);
    let mut captures = Captures::default();
    let request = get(path);
    let found = table.find(&request, &Method::GET, &mut captures);
    let names = table.parameters(0).iter().enumerate();
    (found == Found::Route(0)).then(|| names.map(|(i, _)| captures.get(i, path).map(str::to_owned)).collect())
}

#[test]
fn parameters_capture_their_segments() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(captured("/a/{x}/b/{y}", "/a/1/b/%20"), Some(vec![some("1"), some("%20")]));
    assert_eq!(captured("/a/{x}/b/{y}", "/a/1/c/2"), None);
    assert_eq!(captured("/a/{x}", "/a"), None);
    assert_eq!(captured("/a/{x}", "/a/"), None);
    assert_eq!(captured("/a/{x}", "/a/1/2"), None);
    assert_eq!(captured("/a/{x}", "/a/1/"), Some(vec![some("1")]));
    assert_eq!(captured("/a/{x?}", "/a/1"), Some(vec![some("1")]));
    assert_eq!(captured("/a/{x?}", "/a"), Some(vec![None]));
    assert_eq!(captured("/{x?}", "/"), Some(vec![None]));
    assert_eq!(captured("/f/{*x}", "/f"), Some(vec![some("")]));
    assert_eq!(captured("/f/{*x}", "/f/"), Some(vec![some("")]));
    assert_eq!(captured("/f/{*x}", "/f/a/b/"), Some(vec![some("a/b/")]));
    assert_eq!(captured("/f/{*x}", "/fa"), None);
    assert_eq!(captured("/{a}/{*x}", "/f/g"), Some(vec![some("f"), some("g")]));
    assert_eq!(captured("/{*x}", "/"), Some(vec![some("")]));
}

#[test]
fn captures_hold_nothing_of_a_branch_that_was_left() {
    let table = table(vec![spec("/{a}/{b}/x"), spec("/{*all}")]);
    let mut captures = Captures::default();
    assert_eq!(table.find(&get("/1/2/y"), &Method::GET, &mut captures), Found::Route(1));
    assert_eq!((captures.get(0, "/1/2/y"), captures.get(1, "/1/2/y")), (Some("1/2/y"), None));
    // And nothing of the lookup before.
    assert_eq!(table.find(&get("/1/2/x"), &Method::GET, &mut captures), Found::Route(0));
    assert_eq!((captures.get(0, "/1/2/x"), captures.get(1, "/1/2/x")), (Some("1"), Some("2")));
    assert_eq!(captures.get(2, "/1/2/x"), None);
}

#[test]
fn the_most_specific_path_wins_in_any_order() {
    let paths = ["/{*r}", "/a/{*r}", "/{x}/b", "/a/{x}", "/a/b", "/a"];
    for turn in 0..paths.len() {
        let mut order = paths;
        order.rotate_left(turn);
        let table = table(order.iter().map(|path| spec(path)).collect());
        let wins = |target: &str| route(&table, &get(target)).map(|route| order[route]);
        assert_eq!(wins("/a/b"), Some("/a/b"));
        assert_eq!(wins("/a/c"), Some("/a/{x}"));
        assert_eq!(wins("/c/b"), Some("/{x}/b"));
        assert_eq!(wins("/a/b/c"), Some("/a/{*r}"));
        assert_eq!(wins("/a"), Some("/a"));
        assert_eq!(wins("/"), Some("/{*r}"));
    }
}

#[test]
fn siblings_of_any_number_and_length_are_told_apart() {
    for count in [1, 2, 3, 40] {
        let path = |length: usize| format!("/{}/{}", "k".repeat(length), "z".repeat(length));
        let table = table((1..=count).map(|length| spec(&path(length))).collect());
        for length in 1..=count {
            assert_eq!(route(&table, &get(&path(length))), Some(length - 1));
            assert_eq!(route(&table, &get(&format!("{}z", path(length)))), None);
        }
        assert_eq!(route(&table, &get(&path(count + 1))), None);
    }
}

#[test]
fn a_more_specific_path_that_refuses_is_passed_over() {
    let table = table(vec![
        spec("/a/b").method("POST"),
        spec("/a/{x}").header("x-k", ValueMatch::Present),
        spec("/{x}/b").method("GET"),
    ]);
    assert_eq!(route(&table, &get("/a/b")), Some(2));
    assert_eq!(route(&table, &with("/a/b", "x-k", "1")), Some(1));
    assert_eq!(route(&table, &RequestBuf::new(Method::POST, "/a/b")), Some(0));
}

#[test]
fn hosts_rank_before_paths() {
    let table = table(vec![
        spec("/a"),
        spec("/{*r}").host("*.b.c"),
        spec("/{*r}").host("*.a.b.c"),
        spec("/{*r}").host("x.a.b.c").host("y.c"),
    ]);
    for (host, wanted) in [
        ("x.a.b.c", Some(3)),
        ("y.c", Some(3)),
        ("z.a.b.c", Some(2)),
        ("z.z.a.b.c", Some(2)),
        ("a.b.c", Some(1)),
        ("q.b.c", Some(1)),
        ("b.c", Some(0)),
        (".b.c", Some(0)),
        ("qb.c", Some(0)),
        ("", Some(0)),
        ("x.a.b.c.", Some(3)),
    ] {
        assert_eq!(route(&table, &at(host, "/a")), wanted, "{host}");
    }
    assert_eq!(route(&table, &at("b.c", "/other")), None);
}

#[test]
fn a_host_longer_than_dns_allows_is_no_name() {
    let table = table(vec![spec("/").host("*.c"), spec("/")]);
    let host = |bytes: usize| format!("{}.c", "a".repeat(bytes - 2));
    assert_eq!(route(&table, &at(&host(253), "/")), Some(0));
    assert_eq!(route(&table, &at(&host(254), "/")), Some(1));
}

#[test]
fn more_conditions_win_then_a_named_method() {
    let table = table(vec![
        spec("/a"),
        spec("/a").method("GET"),
        spec("/a").query("q", ValueMatch::Present),
        spec("/a").query("q", ValueMatch::Present).header("x-k", exact("1")),
    ]);
    assert_eq!(route(&table, &RequestBuf::new(Method::PUT, "/a")), Some(0));
    assert_eq!(route(&table, &get("/a")), Some(1));
    assert_eq!(route(&table, &get("/a?q")), Some(2));
    assert_eq!(route(&table, &with("/a?q=1", "x-k", "1")), Some(3));
    assert_eq!(route(&table, &with("/a?q=1", "x-k", "2")), Some(2));
}

#[test]
fn method_not_allowed_lists_the_union_and_only_when_nothing_accepts() {
    let table = table(vec![
        spec("/a").method("PUT").method("GET"),
        spec("/{x}").method("GET").method("PURGE"),
        spec("/a").method("DELETE").host("h"),
        spec("/a").method("PATCH").header("x-k", ValueMatch::Present),
    ]);
    let post = |host: &str, target: &str| {
        let request = RequestBuf { host: host.to_owned(), ..RequestBuf::new(Method::POST, target) };
        find(&table, &request)
    };
    let not_allowed = |allow: &str| Found::MethodNotAllowed(allow.to_owned());
    assert_eq!(post("", "/a"), not_allowed("GET, PURGE, PUT"));
    assert_eq!(post("h", "/a"), not_allowed("DELETE, GET, PURGE, PUT"));
    assert_eq!(post("", "/b"), not_allowed("GET, PURGE"));
    assert_eq!(post("", "/b/c"), Found::NotFound);
    assert_eq!(find(&table, &RequestBuf::new("PURGE".parse().unwrap(), "/a")), Found::Route(1));
    assert_eq!(find(&table, &RequestBuf::new("purge".parse().unwrap(), "/b")), not_allowed("GET, PURGE"));
}

#[test]
fn the_method_to_look_up_is_not_the_one_of_the_request() {
    let table = table(vec![spec("/a").method("PUT")]);
    let preflight = RequestBuf::new(Method::OPTIONS, "/a");
    assert_eq!(table.find(&preflight, &Method::PUT, &mut Captures::default()), Found::Route(0));
    assert_eq!(find(&table, &preflight), Found::MethodNotAllowed("PUT".to_owned()));
}

#[test]
fn a_trailing_slash_is_ignored_or_taken_at_its_word() {
    for pattern in ["/a", "/a/"] {
        let table = table(vec![spec(pattern)]);
        assert_eq!((route(&table, &get("/a")), route(&table, &get("/a/"))), (Some(0), Some(0)));
    }
    let table = table(vec![
        spec("/a").strict(),
        spec("/b/").strict(),
        spec("/").strict(),
        spec("/c/{x?}").strict(),
        spec("/d/{*x}").strict(),
        spec("/e").strict(),
        spec("/e/").strict(),
    ]);
    let cases = [
        ("/a", Some(0)),
        ("/a/", None),
        ("/b/", Some(1)),
        ("/b", None),
        ("/", Some(2)),
        ("/c", Some(3)),
        ("/c/", None),
        ("/c/1", Some(3)),
        ("/c/1/", None),
        ("/d", Some(4)),
        ("/d/", Some(4)),
        ("/d/1/", Some(4)),
        ("/e", Some(5)),
        ("/e/", Some(6)),
    ];
    for (target, wanted) in cases {
        assert_eq!(route(&table, &get(target)), wanted, "{target}");
    }
}

#[test]
fn header_conditions_look_at_the_first_value() {
    let route =
        |wanted: ValueMatch, request: &RequestBuf| route(&table(vec![spec("/").header("x-k", wanted)]), request);
    let (one, none) = (with("/", "x-k", "v1"), get("/"));
    assert_eq!((route(ValueMatch::Present, &one), route(ValueMatch::Present, &none)), (Some(0), None));
    assert_eq!((route(ValueMatch::Absent, &one), route(ValueMatch::Absent, &none)), (None, Some(0)));
    assert_eq!((route(exact("v1"), &one), route(exact("V1"), &one), route(exact(""), &none)), (Some(0), None, None));
    let regex = |text| ValueMatch::regex(text).unwrap();
    assert_eq!((route(regex("v[0-9]"), &one), route(regex("v"), &one), route(regex("1"), &one)), (Some(0), None, None));
    assert_eq!((route(regex("x|v1"), &one), route(regex("v|x1"), &one)), (Some(0), None));
    let mut two = with("/", "x-k", "v2");
    two.append(&HeaderName::from_static("x-k"), crate::head::HeaderValue::from_static("v1"));
    assert_eq!((route(exact("v1"), &two), route(exact("v2"), &two)), (None, Some(0)));
    let mut binary = get("/");
    binary.append(&HeaderName::from_static("x-k"), crate::head::HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!((route(regex(".*"), &binary), route(ValueMatch::Present, &binary)), (None, Some(0)));
}

#[test]
fn a_regular_expression_cannot_leave_its_anchors() {
    assert!(ValueMatch::regex("a)|(b").unwrap_err().contains("bad regular expression `a)|(b`"));
    assert!(ValueMatch::regex("(").is_err());
    assert!(ValueMatch::regex(r"\w{1000}{100}").is_err());
}

#[test]
fn query_conditions_are_decoded_once() {
    let route = |target: &str| route(&table(vec![spec("/").query("a b", exact("x+/%41"))]), &get(target));
    assert_eq!(route("/?a%20b=x+%2F%2541"), Some(0));
    assert_eq!(route("/?z&a%20b=x%2b/%2541&a%20b=2"), Some(0));
    assert_eq!(route("/?a%20b=2&a%20b=x+/%2541"), None);
    assert_eq!(route("/?a+b=x+/%2541"), None);
    assert_eq!(route("/?a%20b=x%20/%2541"), None);
    assert_eq!(route("/"), None);
    let flag = |wanted: ValueMatch, target: &str| self::route(&table(vec![spec("/").query("f", wanted)]), &get(target));
    assert_eq!(flag(exact(""), "/?f"), Some(0));
    assert_eq!(flag(exact("%4"), "/?f=%4"), Some(0));
    assert_eq!(flag(exact("%zz"), "/?f=%zz"), Some(0));
    assert_eq!(flag(ValueMatch::Absent, "/?ff=1"), Some(0));
    assert_eq!(flag(ValueMatch::Absent, "/?%66=1"), None);
}

#[test]
fn segments_of_a_request_are_bounded() {
    let table = table(vec![spec("/{*r}")]);
    assert_eq!(route(&table, &get(&"/a".repeat(256))), Some(0));
    assert_eq!(route(&table, &get(&format!("{}/", "/a".repeat(256)))), Some(0));
    assert_eq!(route(&table, &get(&"/a".repeat(257))), None);
}

#[test]
fn what_is_no_path_matches_nothing() {
    let table = table(vec![spec("/{*r}"), spec("/{x}"), spec("/a/{x}/b")]);
    assert_eq!((route(&table, &get("*")), route(&table, &get(""))), (None, None));
    // Not normalised: a parameter still is no empty segment.
    assert_eq!(route(&table, &get("/a//b")), Some(0));
}

fn ties(specs: Vec<MatchSpec>) -> Vec<(usize, usize)> {
    Table::build(specs).err().unwrap_or_default().iter().map(|tie| (tie.first, tie.second)).collect()
}

#[test]
fn equal_routes_tie() {
    let present = || ValueMatch::Present;
    let pairs = [
        (spec("/a"), spec("/a")),
        (spec("/a"), spec("/a/")),
        (spec("/a/{x}"), spec("/a/{y}")),
        (spec("/a/{*x}"), spec("/a/{*y}")),
        (spec("/a/{x?}"), spec("/a")),
        (spec("/a/{x?}"), spec("/a/{y}")),
        (spec("/a").strict(), spec("/a")),
        (spec("/a").strict(), spec("/a/")),
        (spec("/{*x}").strict(), spec("/{*x}").strict()),
        (spec("/a").method("GET").method("PUT"), spec("/a").method("PUT").method("POST")),
        (spec("/a").method("PURGE"), spec("/a").method("PURGE")),
        (spec("/a").host("h").host("i"), spec("/a").host("j").host("i")),
        (spec("/a").host("*.h"), spec("/a").host("*.h")),
        (spec("/a").header("x-k", exact("1")), spec("/a").header("x-k", exact("1"))),
        (spec("/a").header("x-k", exact("1")), spec("/a").header("x-l", exact("2"))),
        (spec("/a").header("x-k", exact("1")), spec("/a").query("x-k", exact("2"))),
        (spec("/a").header("x-k", exact("1")), spec("/a").header("x-k", present())),
        (spec("/a").query("k", exact("1")), spec("/a").query("k", ValueMatch::regex("[0-9]").unwrap())),
    ];
    for (one, two) in pairs {
        let text = format!("{one:?}\n{two:?}");
        assert_eq!(ties(vec![spec("/other"), one, two]), [(1, 2)], "{text}");
    }
}

#[test]
fn what_no_request_can_share_or_one_rank_parts_does_not_tie() {
    let pairs = [
        (spec("/a"), spec("/b")),
        (spec("/a/{x}"), spec("/a/{*x}")),
        (spec("/a"), spec("/a/{*x}")),
        (spec("/a/{x}/c"), spec("/a/b/{x}")),
        (spec("/a").strict(), spec("/a/").strict()),
        (spec("/a").method("GET"), spec("/a").method("PUT")),
        (spec("/a").method("GET"), spec("/a")),
        (spec("/a").host("h"), spec("/a")),
        (spec("/a").host("x.h"), spec("/a").host("*.h")),
        (spec("/a").host("*.h"), spec("/a").host("*.x.h")),
        (spec("/a").header("x-k", exact("1")), spec("/a")),
        (spec("/a").header("x-k", exact("1")), spec("/a").header("x-k", exact("2"))),
        (spec("/a").query("k", exact("1")), spec("/a").query("k", exact("2"))),
        (spec("/a").query("k", ValueMatch::Absent), spec("/a").query("k", ValueMatch::Present)),
        (spec("/a").query("k", exact("x")), spec("/a").query("k", ValueMatch::regex("[0-9]").unwrap())),
    ];
    for (one, two) in pairs {
        let text = format!("{one:?}\n{two:?}");
        assert_eq!(ties(vec![one, two]), [], "{text}");
    }
    assert_eq!(ties(vec![spec("/a").host("h").host("h")]), []);
}

#[test]
fn a_tie_says_what_is_shared() {
    let specs = vec![
        spec("/a/{x}").host("*.h").method("GET").header("x-k", exact("1")),
        spec("/a/{y}").host("*.h").method("GET").query("q", exact("1")),
    ];
    let why = &Table::build(specs).unwrap_err()[0].why;
    assert_eq!(
        why,
        "`/a/{x}` and `/a/{y}` match the same GET requests on host `*.h`, each with one header or query condition, \
         and neither is more specific; part them by path, host, method, or a header or query condition"
    );
}

#[test]
fn many_copies_of_a_route_are_as_many_ties() {
    assert_eq!(ties(vec![spec("/a"); 2_000]).len(), 1_999);
}

#[test]
fn a_trace_names_the_winner_and_why_the_others_lost() {
    let table = table(vec![
        spec("/a/{x}"),
        spec("/a/b").method("POST"),
        spec("/a/b").host("h").header("x-k", exact("1")),
        spec("/a/b/").strict().query("q", ValueMatch::Present),
        spec("/a/b").host("i"),
        spec("/a/c"),
        spec("/x/y"),
        spec("/{*r}"),
    ]);
    let trace = table.trace(&at("h", "/a/b"), &Method::GET);
    let lines: Vec<(usize, bool, &str)> = trace.iter().map(|one| (one.route, one.won, one.why.as_str())).collect();
    assert_eq!(
        lines,
        [
            (0, true, "the most specific route that accepts the request"),
            (2, false, "header: `x-k` must be `1`"),
            (3, false, "slash: `/a/b/` is strict and ends with a slash"),
            (1, false, "method: the route accepts POST, not GET"),
            (7, false, "less specific than the chosen route: its path is more specific"),
            (4, false, "host: the route is for i, not `h`"),
            (5, false, "path: `/a/c` differs in one segment"),
        ]
    );
}

#[test]
fn a_trace_takes_hosts_as_the_table_does() {
    let table = table(vec![spec("/").host("*.b.c"), spec("/").host("b.c")]);
    for host in ["a.b.c", "b.c", ".b.c", "ab.c", "b.c.", ""] {
        let request = at(host, "/");
        let matched = table.trace(&request, &Method::GET).into_iter().filter(|one| !one.why.starts_with("host:"));
        assert_eq!(matched.map(|one| one.route).next(), route(&table, &request), "{host}");
    }
}

#[test]
fn a_table_without_routes_finds_nothing() {
    assert_eq!(find(&table(Vec::new()), &get("/")), Found::NotFound);
}
