use crate::yaml::{FileId, Lookup, Problem, Sources, interpolate, parse};

struct Env(&'static str);

impl Lookup for Env {
    fn random(&self, name: &str) -> Result<String, String> {
        Ok(format!("random-{name}"))
    }

    fn env(&self, _: &str) -> Option<String> {
        Some(self.0.to_owned())
    }
    fn file(&self, _: &str, _: FileId) -> Result<String, String> {
        Err("none".to_owned())
    }
}

/// What is said of the value of `a` in `text`, in which every variable is `value`.
fn said(text: &str, value: &'static str, message: &str, hint: &str) -> (String, Option<String>) {
    let mut sources = Sources::new();
    let file = sources.add("gateway.yaml", text);
    let node = parse(&sources, file).and_then(|node| interpolate(&node, &Env(value))).unwrap();
    sources.hide(&node);
    let place = node.get("a").unwrap().place;
    let problem = Problem::new(place, message).with_hint(hint).with_related(message, place);
    let report = sources.report(&problem);
    assert!(sources.render(&problem).contains(&report.message.split(';').next().unwrap().to_owned()));
    (report.message, report.hint)
}

#[test]
fn a_message_of_the_compiler_does_not_quote_what_was_put_in() {
    let of = |message| said("a: \"${ADDR}\"", "user:Hunter2@host", message, "write host:port");
    for message in
        ["`user:Hunter2@host` has no port", "`hunter2@host` is no port", "target `http://user:Hunter2@host` is bad"]
    {
        let (shown, hint) = of(message);
        assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
        assert!(shown.contains('…'), "{shown}");
        assert_eq!(hint.as_deref(), Some("write host:port"));
    }
}

#[test]
fn a_message_that_quotes_it_in_another_way_is_made_vague() {
    let (shown, hint) = said("a: \"${RE}\"", "(hunter2", "bad: error at (hunter2", "write \\(hunter2");
    assert_eq!(shown.split(';').next(), Some("the value of ${RE} is not allowed here"));
    assert_eq!(hint, None);
    assert!(!shown.contains("hunter2"));
}

#[test]
fn what_the_file_says_itself_is_shown() {
    let (shown, _) = said("a: \"Bearer ${T} {nosuch}\"", "hunter2", "unknown variable `{nosuch}`", "");
    assert!(shown.starts_with("unknown variable `{nosuch}`"), "{shown}");
    let (shown, _) = said("a: \"Bearer ${T}\"", "x{nosuch}y", "unknown variable `{nosuch}`", "");
    assert!(shown.starts_with("unknown variable `…`"), "{shown}");
}

#[test]
fn a_value_that_the_file_holds_is_shown() {
    let (shown, hint) = said("a: b:c", "", "`c` is no port", "write b:80");
    assert!(shown.starts_with("`c` is no port"), "{shown}");
    assert_eq!(hint.as_deref(), Some("write b:80"));
}

#[test]
fn five_characters_in_common_are_chance_and_six_are_not() {
    let (shown, _) = said("a: \"${T}\"", "xx port", "no port", "");
    assert!(shown.starts_with("no port"), "{shown}");
    let (shown, _) = said("a: \"${T}\"", "xno port", "no port", "");
    assert!(shown.starts_with("the value of"), "{shown}");
}
