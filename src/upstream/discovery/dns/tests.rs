use super::*;

fn at(priority: u16, weight: u16, port: u16, host: &str) -> Service {
    Service { priority, weight, port, host: host.to_owned() }
}

#[test]
fn the_lowest_priority_that_has_an_address_comes_first() {
    let services = [at(10, 5, 80, "a."), at(10, 1, 81, "a."), at(20, 0, 80, "b."), at(5, 1, 80, "gone.")];
    let addresses = HashMap::from([
        ("a.".to_owned(), vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()]),
        ("b.".to_owned(), vec!["10.0.0.2".parse().unwrap()]),
    ]);
    let found = endpoints(&services, &addresses);
    let shown: Vec<_> = found.iter().map(|it| (&*it.address, it.weight, it.backup)).collect();
    let expected = [
        ("10.0.0.1:80", 5, false),
        ("10.0.0.1:81", 1, false),
        ("[::1]:80", 5, false),
        ("[::1]:81", 1, false),
        ("10.0.0.2:80", 1, true),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn names_are_names() {
    for name in ["tasks", "tasks.internal", "_http._tcp.tasks.internal.", "a-b_c.d"] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", ".", "a..b", "10.0.0.1", "a b", "a:80", &"a".repeat(64)] {
        assert!(!is_name(name), "{name}");
    }
}
