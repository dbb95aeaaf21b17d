//! Whether the `tests:` of a configuration can be run at all: a name that nothing has would never be met.

use super::preview;
use crate::config::{Expect, Test};
use crate::head::HeaderName;
use crate::reply::Code;
use crate::yaml::{Located, Problem};

/// What tests may name.
pub struct Names<'a> {
    pub routes: Vec<&'a str>,
    pub upstreams: Vec<&'a str>,
}

pub fn check(tests: &[&Test], names: &Names<'_>, problems: &mut Vec<Problem>) {
    for test in tests {
        if let Err((place, message)) = preview::ask(test) {
            problems.push(Problem::new(place, message));
        }
        let expect = &test.expect;
        if is_empty(expect) {
            let problem = Problem::new(test.request.place, "this test expects nothing");
            problems
                .push(problem.with_hint("write `expect: { status: 200 }`, or what else must become of the request"));
        }
        if let Some(status) = expect.status.as_ref().filter(|status| !(100..=599).contains(&status.value)) {
            problems.push(Problem::new(status.place, format!("{} is no status; it is 100 to 599", status.value)));
        }
        let mut known = |what: &str, name: &Option<Located<String>>, names: &[&str]| {
            if let Some(name) = name.as_ref().filter(|name| !names.contains(&name.value.as_str())) {
                problems.push(Problem::unknown(name.place, what, &name.value, names.iter().copied()));
            }
        };
        known("route", &expect.route, &names.routes);
        known("upstream", &expect.upstream, &names.upstreams);
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name).collect();
        known("code", &expect.code, &codes);
        for (name, _) in expect.headers.iter().chain(expect.upstream_headers.iter()) {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                problems.push(Problem::new(name.place, format!("`{}` is no header name", name.value)));
            }
        }
    }
}

fn is_empty(expect: &Expect) -> bool {
    let Expect { status, code, route, upstream, target, headers, upstream_headers } = expect;
    let texts = [code, route, upstream, target];
    status.is_none() && texts.iter().all(|text| text.is_none()) && headers.is_empty() && upstream_headers.is_empty()
}
