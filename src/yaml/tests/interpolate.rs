use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn substituted(text: &str, known: &Known) -> Node {
    interpolate(&tree(text), known).unwrap()
}

fn problems(text: &str, known: &Known) -> Vec<String> {
    brief(&interpolate(&tree(text), known).unwrap_err())
}

fn value(text: &str, known: &Known) -> String {
    substituted(&format!("a: {text}"), known).get("a").unwrap().as_str().unwrap().to_owned()
}

#[test]
fn references_are_replaced() {
    let mut known = known(&[("PORT", "8080"), ("EMPTY", ""), ("NEST", "${PORT}")]);
    known.files.insert("/run/secrets/x", "one\ntwo\n");
    known.files.insert("crlf", "one\r\n\r\n");
    assert_eq!(value("0.0.0.0:${PORT}", &known), "0.0.0.0:8080");
    assert_eq!(value("${PORT}${PORT:-1}-${NONE:-2}", &known), "80808080-2");
    assert_eq!(value("'${EMPTY:-7}|${EMPTY}|${NONE:-}'", &known), "7||");
    assert_eq!(value("'${file:/run/secrets/x}'", &known), "one\ntwo");
    assert_eq!(value("'${file:crlf}'", &known), "one\r\n");
    assert_eq!(value("${NEST}", &known), "${PORT}");
    assert_eq!(value("$${PORT} $PORT $$ ${PORT}$", &known), "${PORT} $PORT $$ 8080$");
}

#[test]
fn a_secret_is_made_up_by_name_and_can_be_a_default() {
    let known = known(&[("SET", "x"), ("EMPTY", "")]);
    assert_eq!(value("${random:jwt}", &known), "random-jwt");
    assert_eq!(value("'<${NONE:-${random:jwt}}>'", &known), "<random-jwt>");
    assert_eq!(value("'${EMPTY:-${random:a}}${SET:-${random:b}}}'", &known), "random-ax}");
    for bad in ["${random:}", "${random:1x}", "${A:-${random:}}", "${A:-x${random:jwt}}", "${A:-${B:-c}}"] {
        assert_eq!(problems(&format!("a: '{bad}'"), &known).len(), 1, "{bad}");
    }
}

#[test]
fn all_mistakes_are_reported() {
    let text = "a: ${A}${B}\nb: ['${file:none}', '${', '${1X}', '${A:-${B}}', '${}', '${file:}']\n${K}: x\n";
    assert_eq!(
        problems(text, &Known::default()),
        [
            "1:4 the variable `A` is not set | set A, or write ${A:-default}",
            "1:4 the variable `B` is not set | set B, or write ${B:-default}",
            "2:5 cannot read the file `none`: no such file",
            "2:21 `${` without a closing `}` | write `$${` for a literal `${`",
            "2:27 `1X` is no name of a variable | write ${NAME}, ${NAME:-default}, ${file:path} or ${random:name}; `$${` for a literal `${`",
            "2:36 reference inside the default of `A` | a default is a literal text, or `${random:name}`",
            "2:50 `` is no name of a variable | write ${NAME}, ${NAME:-default}, ${file:path} or ${random:name}; `$${` for a literal `${`",
            "2:57 `${file:…}` needs the path of a file | write ${file:/run/secrets/name}",
            "3:1 reference in the key `${K}` | `${…}` is replaced in values only",
        ]
    );
}

#[test]
fn substituted_values_take_the_type_that_is_wanted() {
    #[derive(Debug, serde::Deserialize)]
    struct Settings {
        port: u16,
        on: bool,
        share: f64,
        text: String,
        maybe: Option<i32>,
    }
    let known = known(&[("P", "8080"), ("T", "true"), ("F", "0.5")]);
    let text = "port: ${P}\non: ${T}\nshare: ${F}\ntext: ${P}\nmaybe: \"${M:--3}\"\n";
    let settings: Settings = decode(&substituted(text, &known)).unwrap();
    assert_eq!((settings.port, settings.on, settings.text.as_str()), (8080, true, "8080"));
    assert_eq!((settings.share, settings.maybe), (0.5, Some(-3)));
}

#[test]
fn an_escape_alone_is_no_substitution() {
    #[derive(Debug, serde::Deserialize)]
    struct Settings {
        #[serde(rename = "n")]
        _n: u8,
    }
    let node = substituted("n: $${X}", &Known::default());
    assert!(matches!(&node.get("n").unwrap().kind, Kind::Str(text) if !text.substituted()));
    assert_eq!(
        brief(&decode::<Settings>(&node).unwrap_err()),
        ["1:4 expected a whole number, 0 or more, found a string"]
    );
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "decoded, never read")]
enum Choice {
    One,
    Two(u8),
}

#[derive(Debug, serde::Deserialize)]
#[serde(try_from = "String")]
struct Picky;

impl TryFrom<String> for Picky {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Err(format!("`{text}` ({}) is bad", text.to_uppercase()))
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
struct PickyMap;

impl TryFrom<BTreeMap<String, String>> for PickyMap {
    type Error = String;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, String> {
        Err(format!("{map:?} is bad"))
    }
}

#[test]
fn no_message_holds_a_substituted_value() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "decoded, never read")]
    struct Settings {
        number: u8,
        boolean: bool,
        nonzero: std::num::NonZeroU8,
        list: Vec<String>,
        choice: Choice,
        needs: Choice,
        picky: Picky,
        picky_map: PickyMap,
        period: crate::types::Period,
        network: crate::types::Network,
        letter: char,
    }
    let secret = "hunter2";
    let known = known(&[("S", secret), ("TWO", "two"), ("ZERO", "0"), ("BIG", "99977")]);
    let text = "number: ${BIG}\nboolean: ${S}\nnonzero: ${ZERO}\nlist: ${S}\nchoice: ${S}\nneeds: ${TWO}\npicky: ${S}\n\
                picky_map: { a: \"${S}\" }\nperiod: ${S}\nnetwork: ${S}\nletter: ${S}\n";
    let node = substituted(text, &known);
    let problems = decode::<Settings>(&node).unwrap_err();
    assert_eq!(problems.len(), 11, "{:#?}", brief(&problems));
    let all = format!("{problems:?} {node:?}").to_lowercase();
    assert!(!all.contains(secret) && !all.contains("99977"), "{all}");
    assert!(brief(&problems).iter().all(|text| text.contains('$')), "{:#?}", brief(&problems));
}

#[test]
fn results_are_bounded() {
    struct Big(usize);
    impl Lookup for Big {
        fn random(&self, name: &str) -> Result<String, String> {
            Ok(format!("random-{name}"))
        }

        fn env(&self, _: &str) -> Option<String> {
            Some("x".repeat(self.0))
        }
        fn file(&self, _: &str, _: FileId) -> Result<String, String> {
            Err(String::new())
        }
    }
    let mib = 1024 * 1024;
    assert!(interpolate(&tree("a: ${A}"), &Big(mib)).is_ok());
    let problem = |text: &str, bytes| brief(&interpolate(&tree(text), &Big(bytes)).unwrap_err()).remove(0);
    assert_eq!(problem("a: ${A}", mib + 1), "1:4 the value of ${A} is above 1 MiB");
    let sixteen = "- ${A}\n".repeat(16);
    assert!(interpolate(&tree(&sixteen), &Big(mib)).is_ok());
    assert!(problem(&(sixteen + "- ${A}\n"), mib).starts_with("17:3 all substituted values together"));
}

proptest! {
    #[test]
    fn no_value_makes_it_panic(text in "[$\\{\\}A-C:\\-file/é]{0,40}") {
        let node = Node::new(Place::UNKNOWN, Kind::Str(Text::plain(text.as_str())));
        if let Ok(node) = interpolate(&node, &known(&[("A", "1")])) {
            prop_assert!(matches!(node.kind, Kind::Str(_)));
        }
    }
}
