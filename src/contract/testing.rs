//! What unit tests of filters and handlers share.

use std::net::{IpAddr, Ipv4Addr};

use super::{AsyncFilter, Compiler, Filter, Known, Settings, Step};
use crate::clock;
use crate::context::{Context, RequestId};
use crate::head::{HeaderName, HeaderValue, Headers, Method, RequestBuf};
use crate::identity::Identity;
use crate::limits::Limits;
use crate::yaml::{Node, Place, Sources, parse};
use std::sync::Arc;

/// Parses settings as they stand behind the name of a filter.
pub fn node(text: &str) -> Node {
    let mut sources = Sources::new();
    let file = sources.add("test.yaml", text);
    parse(&sources, file).expect("a test writes sound YAML")
}

/// Builds a filter, or gives the messages and hints of all problems.
pub fn step<S: Settings>(text: &str) -> Result<Step, Vec<String>> {
    step_knowing::<S>(text, &Arc::default())
}

/// The same with consumers, issuers and roles.
pub fn step_knowing<S: Settings>(text: &str, identity: &Arc<Identity>) -> Result<Step, Vec<String>> {
    let mut compiler =
        Compiler::at(Place::UNKNOWN, "test".to_owned(), &Known { identity: Arc::clone(identity), ..Known::default() });
    let built = super::build::<S>(&node(text), &mut compiler);
    outcome(built, compiler)
}

/// The same with limits that know more than one filter.
pub fn step_on<S: Settings>(text: &str, limits: &Arc<Limits>) -> Result<Step, Vec<String>> {
    let known = Known { limits: Arc::clone(limits), ..Known::default() };
    let mut compiler = Compiler::at(Place::UNKNOWN, "test".to_owned(), &known);
    let built = super::build::<S>(&node(text), &mut compiler);
    outcome(built, compiler)
}

/// What was built, unless a problem was reported.
pub fn outcome<T>(built: Option<T>, compiler: Compiler) -> Result<T, Vec<String>> {
    let problems = compiler.finish().problems;
    let line = |problem: crate::yaml::Problem| match problem.hint {
        Some(hint) => format!("{}; {hint}", problem.message),
        None => problem.message,
    };
    if problems.is_empty() {
        Ok(built.expect("nothing was reported"))
    } else {
        Err(problems.into_iter().map(line).collect())
    }
}

pub fn filter<S: Settings>(text: &str) -> Arc<dyn Filter> {
    match step::<S>(text) {
        Ok(Step::Sync(filter)) => filter,
        Ok(Step::Async(_) | Step::Body(_) | Step::Stream(_)) => panic!("{} is no sync filter", S::NAME),
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// A filter that knows consumers, issuers and roles.
pub fn filter_knowing<S: Settings>(text: &str, identity: &Arc<Identity>) -> Arc<dyn Filter> {
    match step_knowing::<S>(text, identity) {
        Ok(Step::Sync(filter)) => filter,
        Ok(Step::Async(_) | Step::Body(_) | Step::Stream(_)) => panic!("{} is no sync filter", S::NAME),
        Err(problems) => panic!("{problems:#?}"),
    }
}

pub fn async_filter<S: Settings>(text: &str) -> Arc<dyn AsyncFilter> {
    match step::<S>(text) {
        Ok(Step::Async(filter)) => filter,
        Ok(Step::Sync(_) | Step::Body(_) | Step::Stream(_)) => panic!("{} is no async filter", S::NAME),
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// The problems of settings that must not be accepted, in one text.
pub fn refused<S: Settings>(text: &str) -> String {
    match step::<S>(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(problems) => problems.join("\n"),
    }
}

/// A request with these fields.
pub fn request(method: Method, target: &str, fields: &[(&str, &str)]) -> RequestBuf {
    let mut request = RequestBuf::new(method, target);
    request.host = "api.example.com".to_owned();
    for (name, value) in fields {
        request.append(&HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    request
}

pub fn get(target: &str) -> RequestBuf {
    request(Method::GET, target, &[])
}

/// A client at 192.0.2.1, over HTTP.
pub fn context() -> Context {
    Context::detached(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), RequestId::from_bits(1), clock::now())
}

/// All values of the field `name`.
pub fn values(head: &dyn Headers, name: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    head.each(&name, &mut |value| seen.push(String::from_utf8_lossy(value).into_owned()));
    seen
}
