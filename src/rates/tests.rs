use super::*;

fn compiled(texts: &[&str], burst: Option<u64>) -> Option<Rates> {
    Rates::new(texts.iter().map(|text| text.parse::<types::Rate>().unwrap()), burst)
}

#[test]
fn rates_are_sorted_and_the_burst_is_of_the_shortest() {
    let rates = compiled(&["1000/hour", "60/min"], Some(5)).unwrap();
    let of = |count, seconds, capacity| Rate { count, period: Duration::from_secs(seconds), capacity };
    assert_eq!(rates.as_slice(), [of(60.0, 60, 5.0), of(1000.0, 3600, 1000.0)]);
    assert_eq!(rates.capacity_min(), 5.0);
    assert_eq!(rates.scaled(0.5).as_slice(), [of(30.0, 60, 2.5), of(500.0, 3600, 500.0)]);
    assert!(compiled(&["1/s", "1/min", "1/hour", "1/day"], None).is_some());
    assert!(compiled(&[], None).is_none() && compiled(&["1/s"; 5], None).is_none());
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
