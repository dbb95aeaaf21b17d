use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn message<T: FromStr<Err = ParseError> + fmt::Debug>(text: &str) -> String {
    text.parse::<T>().unwrap_err().to_string()
}

#[test]
fn periods() {
    for (text, millis) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000)] {
        assert_eq!(text.parse::<Period>().unwrap().0, Duration::from_millis(millis), "{text}");
    }
    assert_eq!(message::<Period>("30"), "`30` has no unit; write 30s, 250ms, 5m or 24h");
    assert_eq!(message::<Period>("30x"), "`30x` has the unknown unit `x`; write 30s, 250ms, 5m or 24h");
    for text in ["", "s", "1.5s", "-1s", " 1s", "1 s", "1S", "+1s", "1s "] {
        assert!(text.parse::<Period>().is_err(), "{text:?}");
    }
    assert_eq!(format!("{}", u64::MAX), "18446744073709551615");
    assert!("18446744073709551615ms".parse::<Period>().is_ok());
    assert!(message::<Period>("18446744073709551616ms").contains("is too large"));
    assert!(message::<Period>("18446744073709552s").contains("is too large"));
    assert_eq!(Period(Duration::from_secs(48 * 3600)).to_string(), "2d");
    assert_eq!(Period(Duration::ZERO).to_string(), "0ms");
}

#[test]
fn sizes() {
    for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
        assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
        assert_eq!(Size(bytes).to_string(), text);
    }
    assert_eq!(message::<Size>("64"), "`64` has no unit; write 64KiB, 1MiB, 2GiB or 512B");
    for text in ["64KB", "64k", "1.5MiB", "17179869184GiB"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    assert!("17179869183GiB".parse::<Size>().is_ok());
}

#[test]
fn rates() {
    for (text, count, seconds) in
        [("10/s", 10, 1), ("100/min", 100, 60), ("1000/hour", 1000, 3600), ("1/day", 1, 86_400)]
    {
        let rate: Rate = text.parse().unwrap();
        assert_eq!((rate.count, rate.per), (count, Duration::from_secs(seconds)));
        assert_eq!(rate.to_string(), text);
    }
    assert_eq!(message::<Rate>("100"), "`100` does not say per what time; write 100/min, 10/s, 1000/hour or 10000/day");
    assert_eq!(message::<Rate>("0/s"), "`0/s` allows nothing; the count is at least 1");
    for text in ["100/m", "/s", "+1/s", "1.5/s", "18446744073709551616/s", "1/s/s"] {
        assert!(text.parse::<Rate>().is_err(), "{text}");
    }
}

#[test]
fn percentages() {
    for (text, value) in [("0%", 0.0), ("20%", 20.0), ("0.5%", 0.5), ("100%", 100.0)] {
        assert_eq!(text.parse::<Percent>().unwrap(), Percent(value));
    }
    assert_eq!("20%".parse::<Percent>().unwrap().fraction(), 0.2);
    assert_eq!(
        ["0%", "0.5%", "33.33333%", "100%"].map(|text| text.parse::<Percent>().unwrap().millionths()),
        [0, 5_000, 333_333, 1_000_000]
    );
    assert_eq!(message::<Percent>("20"), "`20` has no `%`; write 20%, from 0% to 100%");
    assert_eq!(message::<Percent>("100.1%"), "`100.1%` is above 100%; write 20%, from 0% to 100%");
    for text in ["%", "-1%", "nan%", "inf%", "1e1%", ".5%", "1.2.3%"] {
        assert!(text.parse::<Percent>().is_err(), "{text}");
    }
}

#[test]
fn seconds_are_rounded_up() {
    assert_eq!([0, 1, 999, 1000, 1001].map(|ms| seconds_up(Duration::from_millis(ms))), [0, 1, 1, 1, 2]);
}

#[test]
fn networks() {
    for (text, shown) in [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("2001:db8::", "2001:db8::/128")]
    {
        assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
    }
    assert_eq!(
        message::<Network>("10.1.0.0/8"),
        "`10.1.0.0/8` has bits set behind its prefix; write 10.0.0.0/8, or 10.1.0.0 for the one address"
    );
    for text in ["10.0.0.0/33", "10.0.0", "::/129", "", "host/8"] {
        assert!(message::<Network>(text).contains("is no IP network"), "{text}");
    }
    assert!("10.0.0.0/32".parse::<Network>().is_ok());
}

#[test]
fn secrets_stay_secret() {
    let secret: Secret = "hunter2".parse().unwrap();
    assert_eq!(secret.expose(), "hunter2");
    assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "[redacted] [redacted] Some([redacted])");
    assert!("".parse::<Secret>().is_err());
}

#[test]
fn only_strings_decode() {
    assert!(serde_json::from_str::<Period>("30").is_err());
    assert!(serde_json::from_str::<Size>("30").is_err());
    assert!(serde_json::from_str::<Percent>("0.2").is_err());
    assert_eq!(serde_json::from_str::<Period>("\"30s\"").unwrap().0.as_secs(), 30);
}

#[test]
fn schemas_accept_what_decodes() {
    let schema = serde_json::to_value(schemars::schema_for!(Period)).unwrap();
    assert_eq!(schema["pattern"], r"^([0-9]+(ms|s|m|h|d))$|\$\{");
    assert_eq!(schema["type"], "string");
    assert!(schema["description"].is_string());
}

proptest! {
    #[test]
    fn periods_round_trip(millis: u64) {
        let period = Period(Duration::from_millis(millis));
        prop_assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
    }

    #[test]
    fn sizes_round_trip(bytes: u64) {
        prop_assert_eq!(Size(bytes).to_string().parse::<Size>().unwrap(), Size(bytes));
    }

    #[test]
    fn rates_round_trip(count in 1..=u64::MAX, unit in 0..4_usize) {
        let rate = Rate { count, per: Duration::from_secs([1, 60, 3_600, 86_400][unit]) };
        prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
    }

    #[test]
    fn percentages_round_trip(value in 0.0..=100.0_f64) {
        // Very small fractions are written without an exponent too.
        prop_assert_eq!(Percent(value).to_string().parse::<Percent>().unwrap(), Percent(value));
    }

    #[test]
    fn no_text_makes_them_panic(text in "\\PC{0,20}|[0-9]{0,25}[a-zA-Z%/.:]{0,5}") {
        let _ = text.parse::<Period>();
        let _ = text.parse::<Size>();
        let _ = text.parse::<Rate>();
        let _ = text.parse::<Percent>();
        let _ = text.parse::<Network>();
    }
}
