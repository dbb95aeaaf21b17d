//! Webhooks, messages that come again, inboxes.

use super::*;

fn webhooks(provider: &str, result: &str) -> String {
    format!("tollgate_webhooks_total{{provider=\"{provider}\",result=\"{result}\",route=\"hooks\"}}")
}

fn accepted(provider: &str, outcome: &str) -> String {
    format!("tollgate_webhooks_accepted_total{{outcome=\"{outcome}\",provider=\"{provider}\",route=\"hooks\"}}")
}

#[test]
fn webhooks_are_counted_by_provider_and_result() {
    let metrics = Metrics::new(10);
    let route = metrics.route("hooks");
    assert!(!metrics.render().contains("tollgate_webhooks"), "nothing before the first one");
    for (provider, result) in [
        ("github", "accepted"),
        ("github", "accepted"),
        ("github", "signature_invalid"),
        ("stripe", "accepted"),
        ("git\"hub", "disabled"),
    ] {
        route.webhook(provider, result);
    }
    route.webhook_answered("github", true);
    route.webhook_answered("github", false);
    route.webhook_answered("stripe", true);
    let seen = parse(&metrics.render());
    let expected = [
        (webhooks("github", "accepted"), 2.0),
        (webhooks("github", "signature_invalid"), 1.0),
        (webhooks("stripe", "accepted"), 1.0),
        (webhooks("git\\\"hub", "disabled"), 1.0),
        (accepted("github", "delivered"), 1.0),
        (accepted("github", "failed"), 1.0),
        (accepted("stripe", "delivered"), 1.0),
    ];
    let of_webhooks = seen.iter().filter(|(series, _)| series.starts_with("tollgate_webhooks_"));
    let of_webhooks: HashMap<String, f64> = of_webhooks
        .filter(|(series, _)| series.contains('{'))
        .map(|(series, value)| (series.clone(), *value))
        .collect();
    assert_eq!(of_webhooks, expected.into_iter().collect());
}

#[test]
fn providers_beyond_the_bound_share_a_name() {
    let metrics = Metrics::new(10);
    let route = metrics.route("hooks");
    for number in 0..70 {
        route.webhook(&format!("p{number}"), "accepted");
    }
    route.webhook("p3", "accepted");
    let seen = parse(&metrics.render());
    assert_eq!(seen[&webhooks("p63", "accepted")], 1.0);
    assert_eq!(seen[&webhooks("p3", "accepted")], 2.0);
    assert_eq!(seen[&webhooks("(other)", "accepted")], 6.0);
    assert!(!seen.contains_key(&webhooks("p64", "accepted")));
}

#[test]
fn two_threads_count_a_new_provider_once() {
    let metrics = Metrics::new(10);
    let route = metrics.route("hooks");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for number in 0..100 {
                    route.webhook(&format!("p{}", number % 10), "accepted");
                }
            });
        }
    });
    let seen = parse(&metrics.render());
    for number in 0..10 {
        assert_eq!(seen[&webhooks(&format!("p{number}"), "accepted")], 80.0);
    }
}

#[test]
fn inboxes_show_what_they_hold_and_what_became_of_it() {
    let metrics = Metrics::new(0);
    let inbox = metrics.inbox("hooks");
    assert!(Arc::ptr_eq(&inbox, &metrics.inbox("hooks")));
    for _ in 0..3 {
        inbox.stored();
    }
    inbox.refused("full");
    inbox.delivered(Duration::from_secs(86_400));
    inbox.delivered(Duration::from_millis(5));
    inbox.retried();
    inbox.dead();
    let sample = InboxSample {
        inbox: "hooks".to_owned(),
        messages: vec![("ready", 7), ("dead", 1)],
        bytes: 4096,
        oldest: Some(Duration::from_millis(1500)),
        is_paused: true,
    };
    metrics
        .show_inboxes(move || vec![sample.clone(), InboxSample { inbox: "idle".to_owned(), ..InboxSample::default() }]);
    let text = metrics.render();
    let seen = parse(&text);
    let expected = [
        ("stored_total{inbox=\"hooks\"}", 3.0),
        ("refused_total{inbox=\"hooks\",reason=\"full\"}", 1.0),
        ("delivered_total{inbox=\"hooks\"}", 2.0),
        ("retried_total{inbox=\"hooks\"}", 1.0),
        ("dead_total{inbox=\"hooks\"}", 1.0),
        ("delivery_seconds_bucket{inbox=\"hooks\",le=\"0.005\"}", 1.0),
        ("delivery_seconds_bucket{inbox=\"hooks\",le=\"21600\"}", 1.0),
        ("delivery_seconds_bucket{inbox=\"hooks\",le=\"86400\"}", 2.0),
        ("messages{inbox=\"hooks\",standing=\"ready\"}", 7.0),
        ("messages{inbox=\"hooks\",standing=\"dead\"}", 1.0),
        ("bytes{inbox=\"hooks\"}", 4096.0),
        ("oldest_seconds{inbox=\"hooks\"}", 1.5),
        ("oldest_seconds{inbox=\"idle\"}", 0.0),
        ("paused{inbox=\"hooks\"}", 1.0),
        ("paused{inbox=\"idle\"}", 0.0),
    ];
    for (series, value) in expected {
        assert_eq!(seen.get(&format!("tollgate_inbox_{series}")), Some(&value), "{series}: {text}");
    }
    drop(inbox);
    assert!(!metrics.render().contains("tollgate_inbox_stored_total"), "the counts of a name go with its last holder");
}

#[test]
fn messages_that_come_again_show_how_it_goes_with_the_store() {
    let metrics = Metrics::new(10);
    assert!(!metrics.render().contains("tollgate_replay"));
    let without = [("local", 3), ("allow", 0), ("deny", 2)];
    let store = StoreSample { is_up: false, errors: 4, without };
    metrics.show_replay(move || ReplaySample { store, noted: 12, untold: 5 });
    let seen = parse(&metrics.render());
    for (series, value) in [
        ("store_up", 0.0),
        ("store_errors_total", 4.0),
        ("without_store_total{policy=\"local\"}", 3.0),
        ("without_store_total{policy=\"deny\"}", 2.0),
        ("noted", 12.0),
        ("untold_total", 5.0),
    ] {
        assert_eq!(seen.get(&format!("tollgate_replay_{series}")), Some(&value), "{series}");
    }
}
