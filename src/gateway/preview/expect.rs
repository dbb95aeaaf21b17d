//! The `tests:` of a configuration.

use std::fmt::Write as _;

use super::change::{shown, shown_target, target};
use super::{Ask, CLIENT, Outcome, Preview, StepVerdict, preview};
use crate::config::{Expect, Test};
use crate::gateway::Gateway;
use crate::head::{HeaderName, Headers};
use crate::yaml::{Located, Named, Place, Problem};

/// A test that did not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where the test stands.
    pub place: Place,
    /// One line: the request and the differences.
    pub summary: String,
    /// Several lines: the request, what was expected and came instead, what the filters did.
    pub message: String,
}

/// Runs every test of the configuration; what failed, in the order of the files.
pub fn run_tests(gateway: &Gateway) -> Vec<Failure> {
    gateway.tests.iter().filter_map(|test| run(gateway, test)).collect()
}

/// Like [`run_tests`], as problems of the configuration: a reload whose tests fail is refused.
pub fn check_tests(gateway: &Gateway) -> Vec<Problem> {
    let failures = run_tests(gateway).into_iter();
    failures.map(|failure| Problem::new(failure.place, format!("this test fails: {}", failure.summary))).collect()
}

/// The request of a test.
pub(in crate::gateway) fn ask(test: &Test) -> Result<Ask, (Place, String)> {
    let mut ask =
        Ask::parse(&test.request, test.from.map_or(CLIENT, |from| from.0)).map_err(|why| (test.request.place, why))?;
    for (name, value) in test.headers.iter() {
        ask.add(name, value).map_err(|why| (name.place, why))?;
    }
    if let Some(body) = &test.body {
        ask.set_body(body.clone().into());
    }
    Ok(ask)
}

fn run(gateway: &Gateway, test: &Test) -> Option<Failure> {
    let ask = match ask(test) {
        Ok(ask) => ask,
        Err((place, message)) => return Some(Failure { place, summary: message.clone(), message }),
    };
    let from = ask.from;
    let preview = preview(gateway, ask);
    let differences = compare(&test.expect, &preview);
    if differences.is_empty() {
        return None;
    }
    let mut message = format!("{} from {from}", test.request.value);
    let mut summary = test.request.value.clone();
    for Difference { what, expected, got } in differences {
        let _ = write!(summary, "; {what}: expected {expected}, got {got}");
        let _ = write!(message, "\n   {what}\n     expected {expected}\n     got      {got}");
    }
    let _ = write!(message, "\n   what happened\n{}", story(gateway, &preview));
    Some(Failure { place: test.request.place, summary, message })
}

struct Difference {
    what: String,
    expected: String,
    got: String,
}

fn compare(expect: &Expect, preview: &Preview) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut check = |what: &str, expected: Option<&str>, got: Option<&str>| {
        if let Some(expected) = expected.filter(|expected| Some(*expected) != got) {
            let got = got.unwrap_or("nothing").to_owned();
            differences.push(Difference { what: what.to_owned(), expected: expected.to_owned(), got });
        }
    };
    let text = |located: &'_ Option<Located<String>>| located.as_ref().map(|located| located.value.clone());
    let (upstream, request) = match &preview.outcome {
        Outcome::Upstream { name, one_of, request } => {
            // Where the turn decides, any of them is right.
            let expected = text(&expect.upstream);
            let name = one_of.iter().find(|one| Some(&***one) == expected.as_deref()).unwrap_or(name);
            (Some(&**name), Some(request))
        }
        Outcome::Reply(_) => (None, None),
    };
    let status = preview.response.status.as_u16().to_string();
    check("status", expect.status.as_ref().map(|status| status.value.to_string()).as_deref(), Some(&status));
    check("code", text(&expect.code).as_deref(), preview.code().map(|code| code.name));
    check("route", text(&expect.route).as_deref(), preview.route.as_ref().map(|route| &*route.name));
    check("upstream", text(&expect.upstream).as_deref(), upstream);
    check("target", text(&expect.target).as_deref(), request.map(target).as_deref());
    fields("header", &expect.headers, Some(&preview.response), &mut differences);
    fields(
        "upstream header",
        &expect.upstream_headers,
        request.map(|request| request as &dyn Headers),
        &mut differences,
    );
    differences
}

/// Compares fields; several of one name count as one list.
fn fields(
    what: &str,
    expected: &Named<Option<Located<String>>>,
    head: Option<&dyn Headers>,
    differences: &mut Vec<Difference>,
) {
    for (name, expected) in expected.iter() {
        let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let expected = expected.as_ref().map(|expected| expected.as_bytes());
        let show = |value: Option<&[u8]>| value.map_or("nothing".to_owned(), |value| shown(field.as_str(), value));
        let got = match head.map(|head| joined(head, &field)) {
            Some(got) if got.as_deref() == expected => continue,
            Some(got) if show(got.as_deref()) == show(expected) => "another value".to_owned(),
            Some(got) => show(got.as_deref()),
            None => "no request to an upstream".to_owned(),
        };
        differences.push(Difference { what: format!("{what} {}", name.value), expected: show(expected), got });
    }
}

fn joined(head: &dyn Headers, name: &HeaderName) -> Option<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = Vec::new();
    head.each(name, &mut |value| values.push(value.to_vec()));
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

/// One line for the route, for each filter, and for the end.
fn story(gateway: &Gateway, preview: &Preview) -> String {
    let mut story = String::new();
    match &preview.route {
        Some(route) => {
            let _ = write!(story, "     route {} ({})", route.name, gateway.sources.locate(route.place));
        }
        None => story.push_str("     no route"),
    }
    for step in &preview.steps {
        let verdict = match step.verdict {
            StepVerdict::Continue => "lets it go on".to_owned(),
            StepVerdict::Replied(status) => format!("answers {}", status.as_u16()),
            StepVerdict::Rejected(code, status) => format!("refuses it: {} {}", status.as_u16(), code.name),
        };
        let _ = write!(story, "\n     {} ({}): {verdict}", step.name, gateway.sources.locate(step.place));
    }
    let _ = match &preview.outcome {
        Outcome::Upstream { name, request, .. } => {
            write!(story, "\n     upstream {name} is sent {}", shown_target(request, &gateway.hidden))
        }
        Outcome::Reply(reply) => match reply.code {
            Some(code) => write!(story, "\n     answer {} {}", reply.status.as_u16(), code.name),
            None => write!(story, "\n     answer {}", reply.status.as_u16()),
        },
    };
    story
}
