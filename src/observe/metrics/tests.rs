mod webhooks;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use http::Method;

use super::*;

/// Samples by everything before the value, after a check that each is announced by HELP and TYPE.
fn parse(text: &str) -> HashMap<String, f64> {
    let mut announced = Vec::new();
    let mut samples = HashMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{line}");
            assert!(!announced.contains(&name), "{name} twice");
            announced.push(name);
        } else if !line.starts_with("# TYPE ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(announced.last().is_some_and(|last| name.starts_with(last)), "{line}");
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} twice");
        }
    }
    samples
}

fn finish(route: &RouteMetrics, method: &Method, status: u16) {
    route.finished(method, status, Duration::from_millis(1), 3, 5);
}

#[test]
fn a_route_is_counted_by_method_and_class() {
    let metrics = Metrics::new(10);
    let route = metrics.route("tasks");
    finish(&route, &Method::GET, 200);
    finish(&route, &Method::GET, 204);
    finish(&route, &Method::GET, 599);
    finish(&route, &Method::GET, 600);
    finish(&route, &Method::GET, 99);
    finish(&route, &Method::from_bytes(b"PURGE").unwrap(), 100);
    route.refused("RATE_LIMITED");
    route.refused("RATE_LIMITED");
    route.refused("UNAUTHORIZED");
    let seen = parse(&metrics.render());
    for (series, value) in [
        ("tollgate_requests_total{method=\"GET\",route=\"tasks\",status=\"2xx\"}", 2.0),
        ("tollgate_requests_total{method=\"GET\",route=\"tasks\",status=\"5xx\"}", 1.0),
        ("tollgate_requests_total{method=\"GET\",route=\"tasks\",status=\"other\"}", 2.0),
        ("tollgate_requests_total{method=\"other\",route=\"tasks\",status=\"1xx\"}", 1.0),
        ("tollgate_request_bytes_total{route=\"tasks\"}", 18.0),
        ("tollgate_response_bytes_total{route=\"tasks\"}", 30.0),
        ("tollgate_refused_total{code=\"RATE_LIMITED\",route=\"tasks\"}", 2.0),
        ("tollgate_refused_total{code=\"UNAUTHORIZED\",route=\"tasks\"}", 1.0),
        ("tollgate_requests_in_flight{route=\"tasks\"}", 0.0),
        ("tollgate_metrics_series_capped", 0.0),
    ] {
        assert_eq!(seen.get(series), Some(&value), "{series}");
    }
}

#[test]
fn a_duration_at_a_bound_is_within_it() {
    let metrics = Metrics::new(10);
    let route = metrics.route("r");
    for micros in [1_000, 1_001, 30_000_000, 30_000_001] {
        route.finished(&Method::GET, 200, Duration::from_micros(micros), 0, 0);
    }
    let seen = parse(&metrics.render());
    let bucket = |bound: &str| seen[&format!("tollgate_request_duration_seconds_bucket{{route=\"r\",le=\"{bound}\"}}")];
    assert_eq!([bucket("0.001"), bucket("0.0025"), bucket("10"), bucket("30"), bucket("+Inf")], [1., 2., 2., 3., 4.]);
    assert_eq!(seen["tollgate_request_duration_seconds_count{route=\"r\"}"], 4.0);
    assert!((seen["tollgate_request_duration_seconds_sum{route=\"r\"}"] - 60.002_002).abs() < 1e-9);
}

#[test]
fn a_reload_keeps_the_counts_of_what_stays_and_drops_the_rest() {
    let metrics = Metrics::new(10);
    let (stays, goes) = (metrics.route("stays"), metrics.route("goes"));
    finish(&stays, &Method::GET, 200);
    finish(&goes, &Method::GET, 200);
    let stays_anew = metrics.route("stays");
    assert!(Arc::ptr_eq(&stays, &stays_anew));
    let last_request = goes.begin();
    drop((stays, goes));
    let seen = parse(&metrics.render());
    assert_eq!(seen["tollgate_requests_in_flight{route=\"goes\"}"], 1.0, "a request in flight holds its route");
    drop(last_request);
    let text = metrics.render();
    assert!(!text.contains("goes"), "{text}");
    assert_eq!(parse(&text)["tollgate_requests_total{method=\"GET\",route=\"stays\",status=\"2xx\"}"], 1.0);
    let comes_back = metrics.route("goes");
    finish(&comes_back, &Method::GET, 200);
    let seen = parse(&metrics.render());
    assert_eq!(seen["tollgate_requests_total{method=\"GET\",route=\"goes\",status=\"2xx\"}"], 1.0);
}

#[test]
fn beyond_the_cap_names_share_one_until_there_is_room() {
    let metrics = Metrics::new(2);
    let (first, target) = (metrics.route("first"), metrics.upstream("u", "192.0.2.1:80"));
    assert_eq!(parse(&metrics.render())["tollgate_metrics_series_capped"], 0.0, "the limit itself fits");
    let (second, third) = (metrics.route("second"), metrics.route("third"));
    let capped = metrics.upstream("v", "192.0.2.2:80");
    finish(&second, &Method::GET, 200);
    finish(&third, &Method::GET, 200);
    capped.retried(RetryReason::Connect);
    assert!(Arc::ptr_eq(&first, &metrics.route("first")), "a name that has a place keeps it");
    let text = metrics.render();
    let seen = parse(&text);
    assert_eq!(seen["tollgate_metrics_series_capped"], 1.0);
    assert_eq!(seen["tollgate_requests_total{method=\"GET\",route=\"(other)\",status=\"2xx\"}"], 2.0);
    assert_eq!(seen["tollgate_upstream_retries_total{reason=\"connect\",upstream=\"(other)\"}"], 1.0);
    assert!(!text.contains("\"second\"") && !text.contains("192.0.2.2"), "{text}");
    drop((first, second, third, capped, target));
    assert_eq!(parse(&metrics.render())["tollgate_metrics_series_capped"], 0.0);
    let _second = metrics.route("second");
    assert!(metrics.render().contains("route=\"second\""));
}

#[test]
fn guards_count_down_under_a_panic() {
    let metrics = Metrics::new(10);
    let (route, listener) = (metrics.route("r"), metrics.listener("127.0.0.1:8000"));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guards = (route.begin(), listener.accepted());
        let seen = parse(&metrics.render());
        assert_eq!(seen["tollgate_requests_in_flight{route=\"r\"}"], 1.0);
        assert_eq!(seen["tollgate_connections{listener=\"127.0.0.1:8000\"}"], 1.0);
        panic!("in a request");
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"in a request"));
    let seen = parse(&metrics.render());
    assert_eq!(seen["tollgate_requests_in_flight{route=\"r\"}"], 0.0);
    assert_eq!(seen["tollgate_connections{listener=\"127.0.0.1:8000\"}"], 0.0);
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new(10);
    let _route = metrics.route("a\"b\\c\nd");
    assert!(metrics.render().contains("tollgate_requests_in_flight{route=\"a\\\"b\\\\c\\nd\"} 0\n"));
}

#[test]
fn targets_are_told_apart_even_when_their_labels_join_to_the_same_text() {
    let metrics = Metrics::new(10);
    let (one, other) = (metrics.upstream("a", "10.0.0.1:80"), metrics.upstream("a1", "0.0.0.1:80"));
    one.responded(200, Duration::from_millis(2));
    one.responded(200, Duration::from_millis(2));
    other.responded(200, Duration::from_millis(2));
    let seen = parse(&metrics.render());
    assert_eq!(seen["tollgate_upstream_requests_total{status=\"2xx\",target=\"10.0.0.1:80\",upstream=\"a\"}"], 2.0);
    assert_eq!(seen["tollgate_upstream_requests_total{status=\"2xx\",target=\"0.0.0.1:80\",upstream=\"a1\"}"], 1.0);
}

#[test]
fn targets_of_one_upstream_share_its_totals() {
    let metrics = Metrics::new(10);
    let (one, other) = (metrics.upstream("u", "192.0.2.1:80"), metrics.upstream("u", "192.0.2.2:80"));
    let kinds = ["connect", "timeout", "reset", "protocol", "other", "tls"];
    for kind in [
        UpstreamError::Connect,
        UpstreamError::Timeout,
        UpstreamError::Reset,
        UpstreamError::Protocol,
        UpstreamError::Other,
        UpstreamError::Tls,
    ] {
        one.failed(kind);
    }
    one.retried(RetryReason::Status);
    other.retried(RetryReason::Status);
    other.retry_refused();
    one.connected(false);
    one.connected(true);
    other.connected(true);
    other.responded(200, Duration::from_millis(2));
    let seen = parse(&metrics.render());
    assert_eq!(seen["tollgate_upstream_retries_total{reason=\"status\",upstream=\"u\"}"], 2.0);
    assert_eq!(seen["tollgate_upstream_retries_total{reason=\"reset\",upstream=\"u\"}"], 0.0);
    assert_eq!(seen["tollgate_upstream_retries_refused_total{upstream=\"u\"}"], 1.0);
    assert_eq!(seen["tollgate_upstream_connections_total{reused=\"true\",upstream=\"u\"}"], 2.0);
    assert_eq!(seen["tollgate_upstream_connections_total{reused=\"false\",upstream=\"u\"}"], 1.0);
    assert_eq!(seen["tollgate_upstream_duration_seconds_count{upstream=\"u\"}"], 1.0);
    for kind in kinds {
        let series =
            format!("tollgate_upstream_errors_total{{kind=\"{kind}\",target=\"192.0.2.1:80\",upstream=\"u\"}}");
        assert_eq!(seen[&series], 1.0);
    }
    drop((one, other));
    assert!(!metrics.render().contains("upstream=\"u\""));
}

#[test]
fn the_gateway_tells_about_its_configuration() {
    let metrics = Metrics::new(10);
    assert!(!metrics.render().contains("tollgate_config_info"));
    metrics.config_loaded("aaa", UNIX_EPOCH + Duration::from_secs(7));
    metrics.config_loaded("bbb", UNIX_EPOCH + Duration::from_millis(8_500));
    metrics.config_file_errors([("gone.yaml", 1)]);
    metrics.config_file_errors([("bad.yaml", 2), ("good.yaml", 0)]);
    metrics.reloaded(true);
    metrics.reloaded(false);
    metrics.malformed("HOST");
    metrics.count_access_log_dropped(|| 9);
    metrics.count_audit_log_dropped(|| 8);
    let route = metrics.route("tasks");
    route.decided("auth", "api_key", "ok");
    route.decided("auth", "api_key", "ok");
    route.decided("require", "api_key", "scope");
    let listener = metrics.listener(":80");
    listener.refused("too_many");
    let text = metrics.render();
    let seen = parse(&text);
    for (series, value) in [
        ("tollgate_config_info{hash=\"bbb\"}", 1.0),
        ("tollgate_config_loaded_timestamp_seconds", 8.5),
        ("tollgate_config_file_errors{file=\"bad.yaml\"}", 2.0),
        ("tollgate_config_file_errors{file=\"good.yaml\"}", 0.0),
        ("tollgate_reloads_total{result=\"ok\"}", 1.0),
        ("tollgate_reloads_total{result=\"failed\"}", 1.0),
        ("tollgate_malformed_requests_total{reason=\"HOST\"}", 1.0),
        ("tollgate_access_log_dropped_total", 9.0),
        ("tollgate_audit_log_dropped_total", 8.0),
        ("tollgate_auth_total{filter=\"auth\",kind=\"api_key\",reason=\"ok\",route=\"tasks\"}", 2.0),
        ("tollgate_auth_total{filter=\"require\",kind=\"api_key\",reason=\"scope\",route=\"tasks\"}", 1.0),
        ("tollgate_connections_refused_total{listener=\":80\",reason=\"too_many\"}", 1.0),
        (concat!("tollgate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(seen.get(series), Some(&value), "{series}");
    }
    assert!(!text.contains("aaa") && !text.contains("gone.yaml"));
}

#[test]
fn samples_are_in_order() {
    let metrics = Metrics::new(10);
    let _routes = ["c", "a", "b"].map(|name| metrics.route(name));
    let text = metrics.render();
    let names: Vec<_> = text.lines().filter(|line| line.starts_with("tollgate_requests_in_flight{")).collect();
    assert_eq!(names.len(), 3);
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn the_process_is_described() {
    let seen = parse(&Metrics::new(1).render());
    assert!(seen["process_resident_memory_bytes"] > 1e6);
    assert!(seen["process_open_fds"] >= 3.0);
    assert!(seen["process_max_fds"] >= seen["process_open_fds"]);
    assert!(seen["process_cpu_seconds_total"] >= 0.0);
    let age =
        crate::clock::wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - seen["process_start_time_seconds"];
    assert!((-2.0..86_400.0).contains(&age), "{age}");
}

#[test]
fn names_that_come_and_go_on_many_threads_leave_nothing_behind() {
    let metrics = Metrics::new(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..2000 {
                    let route = metrics.route(if round % 2 == 0 { "even" } else { "odd" });
                    finish(&route, &Method::GET, 200);
                    route.refused(if round % 3 == 0 { "A" } else { "B" });
                }
            });
        }
        scope.spawn(|| (0..50).for_each(|_| drop(metrics.render())));
    });
    let _all = ["a", "b", "c"].map(|name| metrics.route(name));
    let text = metrics.render();
    assert!(!text.contains("even") && !text.contains("odd"));
    for name in ["a", "b", "c"] {
        assert!(text.contains(&format!("in_flight{{route=\"{name}\"}}")), "every place was given back");
    }
}
