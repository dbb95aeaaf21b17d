use super::*;
use crate::admin::limits::RateShown;

fn limit(bucket: &str, uses: Vec<Use>) -> LimitShown {
    LimitShown {
        bucket: bucket.to_owned(),
        kind: "rate_limit".to_owned(),
        terms: "60/min".to_owned(),
        per: Some("consumer".to_owned()),
        shared: false,
        callers: Some(3),
        uses_total: uses.len(),
        uses,
    }
}

fn used(place: &str, detail: Option<&str>, routes: &[&str], routes_total: usize) -> Use {
    Use {
        place: place.to_owned(),
        chain: None,
        mode: "enforce".to_owned(),
        detail: detail.map(str::to_owned),
        routes: routes.iter().map(|route| (*route).to_owned()).collect(),
        routes_total,
    }
}

#[test]
fn the_table_of_all_limits_stays_short_however_many_routes_there_are() {
    let uses =
        vec![used("a.yaml:1:1", None, &["r1", "r2"], 2), used("b.yaml:2:2", Some("cost 10"), &["r3", "r4"], 100)];
    let plain =
        LimitShown { shared: true, callers: None, per: None, ..limit("quota:x", vec![used("c:1:1", None, &["r"], 1)]) };
    let text = all(&All { limits: vec![limit("reads", uses), plain], total: 7 }, None);
    assert_eq!(
        text,
        "BUCKET   KIND        LIMIT             PER       MODE     COUNTED  CALLERS  ROUTES          PLACE\n\
         reads    rate_limit  60/min (cost 10)  consumer  enforce  here     3        r1, r2, r3 +99  a.yaml:1:1, b.yaml:2:2\n\
         quota:x  rate_limit  60/min            -         enforce  shared   -        r               c:1:1\n\
         and 5 more\n"
    );
    assert_eq!(all(&All { limits: Vec::new(), total: 0 }, None), "no route has a limit\n");
}

#[test]
fn callers_have_a_line_for_each_rate_and_cannot_write_elsewhere() {
    let rate = |rate: &str, limit: f64, used: f64| RateShown {
        rate: rate.to_owned(),
        limit,
        used,
        remaining: limit - used,
        full_in_seconds: 59.5,
    };
    let rates = vec![rate("60/min", 60.0, 59.5), rate("1000/hour", 1000.0, 60.0)];
    let figures =
        Figures::Rates { who: "key=\u{1b}[2Ja".to_owned(), rates, full_at: Some("2026-01-01T00:00:00Z".to_owned()) };
    let text = top(&Top { limit: limit("reads", Vec::new()), top: vec![figures] });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "rate_limit reads: 60/min per consumer",
            "WHO        RATE       USED  LEFT  LIMIT  FULL IN  FULL AT",
            "key=?[2Ja  60/min     59.5  0.5   60     60 s     2026-01-01T00:00:00Z",
            "           1000/hour  60    940   1000   60 s",
            "1 caller",
        ]
    );
}

#[test]
fn an_address_is_where_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.yaml");
    let configured = |admin: &str| {
        let listeners = "version: 1\nlisteners: [{ bind: 127.0.0.1:8000 }]\n";
        std::fs::write(&file, format!("{listeners}{admin}")).unwrap();
        configured(&file)
    };
    let address = |text: &str| Ok(text.parse().unwrap());
    assert_eq!(configured("admin: { bind: 127.0.0.1:9901 }"), address("127.0.0.1:9901"));
    assert_eq!(configured("admin: { bind: \"0.0.0.0:9901\" }"), address("127.0.0.1:9901"));
    assert_eq!(configured("admin: { bind: \"[::]:9901\" }"), address("[::1]:9901"));
    for (admin, expected) in [
        ("", "gateway.yaml has no `admin`"),
        ("admin: { bind: 127.0.0.1:0 }", "port 0"),
        ("admin: { bin: 127.0.0.1:9900 }", "unknown key `bin`"),
    ] {
        let message = configured(admin).unwrap_err();
        assert!(message.contains(expected) && message.ends_with("--admin 127.0.0.1:9900\n"), "{message}");
    }
}
