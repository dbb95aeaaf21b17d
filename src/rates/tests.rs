use super::*;
use crate::yaml::{Sources, decode, parse};

#[derive(Debug, Deserialize)]
struct Settings {
    rates: RatesSettings,
    burst: Option<Located<u64>>,
}

fn compile(text: &str) -> Result<Rates, Vec<String>> {
    let mut sources = Sources::new();
    let file = sources.add("gateway.yaml", text);
    let settings: Settings = decode(&parse(&sources, file).unwrap()).unwrap();
    let mut problems = Vec::new();
    let rates = settings.rates.compile(settings.burst.as_ref(), &mut problems);
    let brief = |problem: &Problem| format!("{} {}", problem.place.column, problem.message);
    rates.ok_or_else(|| problems.iter().map(brief).collect())
}

#[test]
fn rates_are_sorted_and_the_burst_is_of_the_shortest() {
    let rates = compile("{ rates: [1000/hour, 60/min], burst: 5 }").unwrap();
    let of = |count, seconds, capacity| Rate { count, period: Duration::from_secs(seconds), capacity };
    assert_eq!(rates.as_slice(), [of(60.0, 60, 5.0), of(1000.0, 3600, 1000.0)]);
    assert_eq!(rates.capacity_min(), 5.0);
    assert_eq!(rates.scaled(0.5).as_slice(), [of(30.0, 60, 2.5), of(500.0, 3600, 500.0)]);
    assert!(compile("{ rates: [1/s, 1/min, 1/hour, 1/day] }").is_ok());
    assert!(compile("{ rates: [1000000000/s], burst: 1000000000 }").is_ok());
    assert!(compile("{ rates: [1/s], burst: 1 }").is_ok());
}

#[test]
fn what_is_no_limit_is_refused() {
    let refused = |text: &str| compile(text).unwrap_err();
    assert_eq!(refused("{ rates: [] }"), ["10 there is no rate"]);
    assert_eq!(refused("{ rates: [1/s, 60/min, 2/s] }"), ["24 `2/s` has the period of `1/s`"]);
    assert_eq!(
        refused("{ rates: [1/s, 1/min, 1/hour, 1/day, 5/day] }"),
        ["38 a limit has at most 4 rates", "38 `5/day` has the period of `1/day`"]
    );
    assert_eq!(refused("{ rates: [1000000001/s] }"), ["11 `1000000001/s` is more than 1000000000"]);
    assert_eq!(refused("{ rates: [1/s], burst: 0 }"), ["24 `burst` must be 1 to 1000000000, not 0"]);
    assert_eq!(refused("{ rates: [1/s], burst: 1000000001 }").len(), 1);
}

#[test]
fn the_time_for_tokens_is_never_too_short() {
    let rate = |count, seconds| Rate { count, period: Duration::from_secs(seconds), capacity: 1.0 };
    assert_eq!(rate(100.0, 60).time_for(1.0), Duration::from_millis(600));
    assert_eq!(rate(3.0, 1).time_for(1.0), Duration::from_nanos(333_333_333));
    assert_eq!(rate(1e9, 1).time_for(0.3), Duration::from_nanos(1));
    assert_eq!(rate(1.0, 86_400).time_for(1e9), Duration::from_secs(86_400_000_000_000));
    assert_eq!(rate(0.0, 1).time_for(1.0), Duration::MAX);
    assert_eq!(rate(0.0, 1).time_for(0.0), Duration::ZERO);
}
