use super::*;
use crate::contract::testing::{node, outcome};
use crate::yaml::Place;

fn compiled(schemas: &str, required: &[&str]) -> Result<Parameters, Vec<String>> {
    let node = node(schemas);
    let schemas = node.entries().iter();
    let named = schemas.map(|entry| (Located::new(entry.key.text.to_string(), entry.key.place), entry.value.clone()));
    let required: Vec<_> = required.iter().map(|name| Located::new((*name).to_owned(), Place::UNKNOWN)).collect();
    let mut compiler = Compiler::default();
    let parameters = Parameters::compile(&Named(named.collect()), "query", &required, &mut compiler);
    outcome(Some(parameters), compiler)
}

/// The mistakes in a query, in one text.
fn told(parameters: &Parameters, query: &str) -> String {
    let mut mistakes = Vec::new();
    parameters.check_query(query, true, &mut mistakes);
    let line = |mistake: &Mistake| format!("{} = {}: {}", mistake.field, mistake.value, mistake.expected);
    mistakes.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[test]
fn text_is_read_as_what_the_schema_says() {
    let parameters = compiled(
        "{ limit: { type: integer, minimum: 1, maximum: 100 }, ratio: { type: number }, all: { type: boolean }, q: { type: string, maxLength: 3 } }",
        &[],
    )
    .unwrap();
    for good in [
        "",
        "limit=1",
        "limit=100",
        "limit=%31",
        "ratio=0.5",
        "ratio=1e3",
        "ratio=-1",
        "all=true",
        "q=1",
        "q=a+b",
        "q=",
        "other=1&other=2",
    ] {
        assert_eq!(told(&parameters, good), "", "{good}");
    }
    for (bad, words) in [
        ("limit=0", "query.limit = 0: a number of at least 1"),
        ("limit=101", "query.limit = 101: a number of at most 100"),
        ("limit=1.0", "query.limit = \"1.0\": an integer"),
        ("limit=1e1", "query.limit = \"1e1\": an integer"),
        ("limit=", "query.limit = \"\": an integer"),
        ("limit", "query.limit = \"\": an integer"),
        ("limit=+5", "query.limit = \" 5\": an integer"),
        ("limit=0x10", "query.limit = \"0x10\": an integer"),
        ("limit=NaN", "query.limit = \"NaN\": an integer"),
        ("li%6Dit=0", "query.limit = 0: a number of at least 1"),
        ("limit=1&limit=2", "query.limit = \"(a list of 2 items)\": it to be there once"),
        ("limit=1&li%6dit=2", "query.limit = \"(a list of 2 items)\": it to be there once"),
        ("ratio=inf", "query.ratio = \"inf\": a number"),
        ("all=TRUE", "query.all = \"TRUE\": a boolean"),
        ("all=1", "query.all = \"1\": a boolean"),
        ("q=abcd", "query.q = \"abcd\": a string of at most 3 characters"),
        ("q=%F0%9F%98", "query.q = \"%F0%9F%98\": percent-encoded UTF-8"),
        ("q=%4", "query.q = \"%4\": percent-encoded UTF-8"),
        ("q=%zz", "query.q = \"%zz\": percent-encoded UTF-8"),
        ("limit=99999999999999999999999", "query.limit = 1e+23: a number of at most 100"),
    ] {
        assert_eq!(told(&parameters, bad), words, "{bad}");
    }
}

#[test]
fn leading_zeros_are_no_numbers_and_characters_are_counted() {
    let parameters = compiled("{ n: { type: integer }, q: { type: string, maxLength: 1 } }", &[]).unwrap();
    assert_eq!(told(&parameters, "n=007"), "query.n = \"007\": an integer");
    assert_eq!(told(&parameters, "q=%C3%A9"), "");
    let either = compiled("{ n: { type: [string, integer], maxLength: 2 } }", &[]).unwrap();
    assert_eq!(told(&either, "n=123"), "query.n = \"123\": a string of at most 2 characters");
}

#[test]
fn a_list_takes_a_parameter_several_times() {
    let parameters = compiled("{ id: { type: array, maxItems: 2, items: { type: integer } } }", &[]).unwrap();
    assert_eq!(told(&parameters, "id=1&id=2"), "");
    assert_eq!(told(&parameters, "id=1"), "");
    assert_eq!(told(&parameters, "id=1&id=x"), "query.id[1] = \"x\": an integer");
    assert_eq!(told(&parameters, "id=1&id=2&id=3"), "query.id = \"(a list of 3 items)\": a list of at most 2 items");
}

#[test]
fn required_parameters_have_to_be_there() {
    let parameters = compiled("{ q: { type: string } }", &["q"]).unwrap();
    assert_eq!(told(&parameters, "p=1"), "query.q = null: it to be there: it is required");
    assert_eq!(told(&parameters, "q"), "");
    assert_eq!(
        compiled("{ query: {} }", &["querry"]).err().unwrap(),
        ["unknown parameter `querry`; did you mean `query`?"]
    );
}

#[test]
fn unknown_parameters_can_be_refused() {
    let parameters = compiled("{ q: {} }", &[]).unwrap();
    let unknown = |query: &str| {
        let mut mistakes = Vec::new();
        parameters.check_query(query, false, &mut mistakes);
        mistakes.into_iter().map(|mistake| mistake.field).collect::<Vec<_>>()
    };
    assert_eq!(unknown("q=1&&q2=1&%71=1"), ["query.q2", "query.q"], "the second `q` is one too many");
    assert_eq!(unknown("q[]=1&Q=1&%ff=1"), ["query.q[]", "query.Q", "query.%ff"]);
    assert_eq!(unknown(&"a=1&".repeat(100)).len(), MISTAKES_MAX);
}

#[test]
fn path_parameters_are_decoded_and_may_be_left_out() {
    let parameters = compiled("{ id: { type: integer }, name: { pattern: '^[a-z é]+$' } }", &[]).unwrap();
    let told = |id: Option<&'static str>, name: Option<&'static str>| {
        let mut mistakes = Vec::new();
        parameters.check_path(|wanted| if wanted == "id" { id } else { name }, &mut mistakes);
        mistakes.len()
    };
    assert_eq!(told(Some("7"), Some("a%20%C3%A9")), 0);
    assert_eq!(told(None, None), 0);
    assert_eq!(told(Some("x"), Some("a+b")), 2, "a plus is a plus in a path");
    assert_eq!(told(Some("7"), Some("%ff")), 1);
}

#[test]
fn a_semicolon_does_not_hide_a_parameter_from_those_that_part_at_it() {
    let parameters = compiled("{ q: { type: string }, limit: { type: integer, maximum: 100 } }", &[]).unwrap();
    for hidden in ["q=a;limit=1000", "limit=1;limit=1000", "other=a;q=b", ";q=b", "q=a;debug=1"] {
        assert!(told(&parameters, hidden).contains("query = null: `;` to be written as %3B"), "{hidden}");
    }
    assert_eq!(told(&parameters, "q=a%3Blimit=1000&limit=1"), "");
    let none = compiled("{}", &[]).unwrap();
    assert_eq!(told(&none, "a;b"), "", "nothing is asked of it");
    let mut mistakes = Vec::new();
    none.check_query("a;b", false, &mut mistakes);
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
}
