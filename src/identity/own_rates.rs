//! Rates that a consumer or a key has in place of those that filters say: as they are written, as the state store keeps
//! them, and compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rates::{COUNT_MAX, Own, OwnRates, RATES_MAX, Rates};
use crate::types::Rate;
use crate::yaml::{Key, Kind, Located, Node, Problem, decode};

/// Most buckets of one consumer or key.
const BUCKETS_MAX: usize = 64;
/// Longest name of a bucket, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Rates for every bucket, or for each bucket its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "Form", rename = "OwnRates")]
pub struct OwnRatesSettings(Node);

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code, reason = "describes the format; never built")]
enum Form {
    Every(Vec<Rate>),
    ByBucket(BTreeMap<String, Vec<Rate>>),
}

impl OwnRatesSettings {
    /// Compiles what is written. `None` when a problem was reported.
    pub fn compile(&self, problems: &mut Vec<Problem>) -> Option<OwnRates> {
        let node = &self.0;
        if matches!(node.kind, Kind::Seq(_)) {
            return list(node, problems).map(|every| OwnRates { every: Some(every), by_bucket: Box::default() });
        }
        let entries = node.entries();
        if entries.is_empty() || entries.len() > BUCKETS_MAX {
            let problem = Problem::new(node.place, "`rates` is a list of rates, or a map from buckets to such lists");
            let hint = format!("write [1000/min], or {{ reads: [1000/min] }}; at most {BUCKETS_MAX} buckets");
            problems.push(problem.with_hint(hint));
            return None;
        }
        let by_bucket: Vec<Option<(Box<str>, Own)>> = entries
            .iter()
            .map(|entry| list(&entry.value, problems).map(|rates| (Box::from(&*entry.key.text), rates)))
            .collect();
        by_bucket.into_iter().collect::<Option<_>>().map(|by_bucket| OwnRates { every: None, by_bucket })
    }

    /// The buckets that are named.
    pub fn buckets(&self) -> impl Iterator<Item = &Key> {
        self.0.entries().iter().map(|entry| &entry.key)
    }
}

fn list(node: &Node, problems: &mut Vec<Problem>) -> Option<Own> {
    let written: Vec<Located<Rate>> = match decode(node) {
        Ok(written) => written,
        Err(found) => {
            problems.extend(found);
            return None;
        }
    };
    match compiled(written.iter().map(|rate| rate.value)) {
        Ok(rates) => Some(rates),
        Err(message) => {
            problems.push(Problem::new(node.place, message).with_hint("write [1000/min, 10000/hour]"));
            None
        }
    }
}

fn compiled(rates: impl Iterator<Item = Rate> + Clone) -> Result<Own, String> {
    if let Some(large) = rates.clone().find(|rate| rate.count > COUNT_MAX) {
        return Err(format!("`{large}` is more than {COUNT_MAX}"));
    }
    let mut spans: Vec<_> = rates.clone().map(|rate| rate.per).collect();
    let count = spans.len();
    spans.sort_unstable();
    spans.dedup();
    if spans.len() < count {
        return Err("two rates are for the same span".to_owned());
    }
    let own = Rates::new(rates, None).map(|rates| Own { rates, is_of_key: false });
    own.ok_or_else(|| format!("a limit has 1 to {RATES_MAX} rates, not {count}"))
}

/// Those of a key where they count, and those of its consumer for the rest.
pub fn merged(key: Option<OwnRates>, consumer: Option<&Arc<OwnRates>>) -> Option<Arc<OwnRates>> {
    let Some(key) = key.map(OwnRates::of_key) else { return consumer.cloned() };
    let (Some(consumer), None) = (consumer, &key.every) else { return Some(Arc::new(key)) };
    let mut by_bucket = key.by_bucket.into_vec();
    for (name, rates) in &consumer.by_bucket {
        if !by_bucket.iter().any(|(own, _)| own == name) {
            by_bucket.push((name.clone(), rates.clone()));
        }
    }
    Some(Arc::new(OwnRates { every: consumer.every.clone(), by_bucket: by_bucket.into() }))
}

/// `rates` of a managed key, as the state store keeps it and as clients send and see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StoredRates {
    Every(Vec<String>),
    ByBucket(BTreeMap<String, Vec<String>>),
}

impl StoredRates {
    /// Reads what a client sent, or says what was expected.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let expected = "a list of rates such as [\"1000/min\"], or an object with such a list for each bucket";
        let stored = Self::deserialize(value).map_err(|_| expected.to_owned())?;
        stored.compile().map(|_| stored).map_err(|why| format!("{expected}; {why}"))
    }

    /// Compiled, as rates of the key alone; or what is wrong with them.
    pub fn compile(&self) -> Result<OwnRates, String> {
        self.compile_any().map(OwnRates::of_key)
    }

    fn compile_any(&self) -> Result<OwnRates, String> {
        let list = |texts: &[String]| {
            let rates: Result<Vec<Rate>, _> = texts.iter().map(|text| text.parse::<Rate>()).collect();
            rates.map_err(|error| error.to_string()).and_then(|rates| compiled(rates.into_iter()))
        };
        match self {
            Self::Every(texts) => Ok(OwnRates { every: Some(list(texts)?), by_bucket: Box::default() }),
            Self::ByBucket(buckets) if buckets.is_empty() || buckets.len() > BUCKETS_MAX => {
                Err(format!("1 to {BUCKETS_MAX} buckets, not {}", buckets.len()))
            }
            Self::ByBucket(buckets) => {
                let one = |(name, texts): (&String, &Vec<String>)| {
                    if name.is_empty() || name.len() > NAME_BYTES_MAX {
                        return Err(format!("the name of a bucket has 1 to {NAME_BYTES_MAX} characters"));
                    }
                    Ok((Box::from(name.as_str()), list(texts)?))
                };
                let by_bucket: Result<Box<[_]>, String> = buckets.iter().map(one).collect();
                Ok(OwnRates { every: None, by_bucket: by_bucket? })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::testing::node;

    fn own(text: &str) -> Result<OwnRates, String> {
        let mut problems = Vec::new();
        let settings: OwnRatesSettings = decode(&node(text)).unwrap();
        settings.compile(&mut problems).ok_or_else(|| problems.iter().map(|problem| &*problem.message).collect())
    }

    fn count(own: Option<&Own>) -> Option<f64> {
        own.map(|own| own.rates.as_slice()[0].count)
    }

    #[test]
    fn those_of_a_key_come_before_those_of_its_consumer() {
        let consumer = Arc::new(own("{ reads: [100/min], writes: [10/min] }").unwrap());
        let key = merged(Some(own("{ reads: [7/min] }").unwrap()), Some(&consumer)).unwrap();
        assert_eq!(
            (count(key.of("reads")), count(key.of("writes")), count(key.of("x"))),
            (Some(7.0), Some(10.0), None)
        );
        let key = merged(Some(own("[9/min]").unwrap()), Some(&consumer)).unwrap();
        assert_eq!((count(key.of("reads")), count(key.of("x"))), (Some(9.0), Some(9.0)));
        let every = Arc::new(own("[5/min]").unwrap());
        let key = merged(Some(own("{ reads: [7/min] }").unwrap()), Some(&every)).unwrap();
        assert_eq!((count(key.of("reads")), count(key.of("x"))), (Some(7.0), Some(5.0)));
        let is_of_key = |bucket: &str| key.of(bucket).unwrap().is_of_key;
        assert_eq!((is_of_key("reads"), is_of_key("x")), (true, false), "only what the key has itself");
        assert_eq!(count(merged(None, Some(&every)).unwrap().of("reads")), Some(5.0));
        assert_eq!(merged(None, None), None);
    }

    #[test]
    fn mistakes_are_reported() {
        for (text, expected) in [
            ("[]", "1 to 4 rates, not 0"),
            ("[1/s, 1/min, 1/hour, 1/day, 2/s]", "the same span"),
            ("[1/min, 2/min]", "the same span"),
            ("{}", "a list of rates, or a map"),
            ("7", "a list of rates, or a map"),
            ("{ reads: 7/min }", "list"),
            ("[0/min]", "allows nothing"),
            ("[1000000001/s]", "more than 1000000000"),
        ] {
            let found = own(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn managed_ones_have_the_same_two_forms() {
        let parse = |value: Value| StoredRates::parse(&value);
        let every = parse(serde_json::json!(["60/min", "1000/hour"])).unwrap();
        assert_eq!(serde_json::to_value(&every).unwrap(), serde_json::json!(["60/min", "1000/hour"]));
        assert_eq!(every.compile().unwrap(), own("[60/min, 1000/hour]").unwrap().of_key());
        let by_bucket = parse(serde_json::json!({ "reads": ["60/min"] })).unwrap();
        assert_eq!(by_bucket.compile().unwrap(), own("{ reads: [60/min] }").unwrap().of_key());
        for bad in ["[]", "{}", "7", "[60]", r#"["60"]"#, r#"["1/min", "2/min"]"#, r#"{"": ["1/min"]}"#, r#"{"a": []}"#]
        {
            assert!(parse(serde_json::from_str(bad).unwrap()).unwrap_err().contains("a list of rates"), "{bad}");
        }
    }
}
