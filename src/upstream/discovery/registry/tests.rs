use super::*;
use crate::state::{Limits, Memory};

fn instance(id: &str, ttl: u64) -> Instance {
    let ttl = Duration::from_secs(ttl);
    Instance {
        service: "tasks".to_owned(),
        id: id.to_owned(),
        address: "10.0.0.1:80".parse().unwrap(),
        weight: 2,
        ttl,
        expires: clock::wall() + ttl,
    }
}

fn discovery() -> Discovery {
    let discovery = Discovery::default();
    discovery.attach(Arc::new(Memory::new(Limits::default())));
    discovery
}

#[tokio::test]
async fn an_instance_is_there_until_it_is_taken_back() {
    let discovery = discovery();
    assert_eq!(discovery.register(&instance("a", 60)).await.unwrap(), Registration::New);
    assert_eq!(discovery.register(&instance("a", 60)).await.unwrap(), Registration::Again);
    // Neighbours in the order of keys.
    let other = |service: &str| Instance { service: service.to_owned(), ..instance("a", 60) };
    for service in ["task", "tasks-2", "tasks.b"] {
        discovery.register(&other(service)).await.unwrap();
    }
    let found = discovery.instances("tasks").await.unwrap();
    assert_eq!(found.iter().map(|it| (&*it.service, &*it.id)).collect::<Vec<_>>(), [("tasks", "a")]);
    assert!(discovery.deregister("tasks", "a").await.unwrap());
    assert!(!discovery.deregister("tasks", "a").await.unwrap());
    assert!(discovery.instances("tasks").await.unwrap().is_empty());
    assert_eq!(discovery.register(&instance("a", 60)).await.unwrap(), Registration::New, "it may come back");
}

#[tokio::test]
async fn what_is_lost_with_the_store_stays_until_its_time_is_over() {
    let discovery = discovery();
    let mut registered = Registered::new(&Arc::from("tasks"), &discovery);
    discovery.register(&instance("a", 60)).await.unwrap();
    discovery.register(&instance("b", 60)).await.unwrap();
    registered.look().await.unwrap();
    assert_eq!(registered.known.len(), 2);
    discovery.deregister("tasks", "a").await.unwrap();
    registered.look().await.unwrap();
    assert_eq!(registered.known.keys().collect::<Vec<_>>(), ["b"], "what was taken back is gone at once");
    let now = clock::wall();
    registered.take(Vec::new(), now);
    assert_eq!(registered.known.len(), 1, "the store lost it");
    registered.take(Vec::new(), now + Duration::from_secs(61));
    assert!(registered.known.is_empty());
}

#[tokio::test]
async fn there_are_no_more_than_an_upstream_takes() {
    let discovery = discovery();
    for number in 0..TARGETS_MAX {
        assert_eq!(discovery.register(&instance(&format!("{number:04}"), 600)).await.unwrap(), Registration::New);
    }
    assert_eq!(discovery.register(&instance("more", 600)).await.unwrap(), Registration::Full);
    assert_eq!(discovery.register(&instance("0000", 600)).await.unwrap(), Registration::Again);
    discovery.deregister("tasks", "0000").await.unwrap();
    assert_eq!(discovery.register(&instance("more", 600)).await.unwrap(), Registration::New);
}

#[tokio::test]
async fn those_that_left_hide_nobody() {
    let discovery = discovery();
    let store = discovery.store().unwrap();
    for number in 1..INSTANCES_MAX {
        let left = instance(&format!("{number:04}"), 600);
        let mark = Record { gone: true, ..Record::of(&left) };
        store.put(SPACE, &key("tasks", &left.id), mark.into_bytes().unwrap(), Some(left.expires)).await.unwrap();
    }
    let there = || async {
        let found = discovery.instances("tasks").await.unwrap();
        found.into_iter().map(|instance| instance.id).collect::<Vec<_>>()
    };
    assert_eq!(discovery.register(&instance("y", 600)).await.unwrap(), Registration::New);
    assert_eq!(there().await, ["y"]);
    assert_eq!(discovery.register(&instance("z", 600)).await.unwrap(), Registration::Full, "it would not be seen");
    assert_eq!(discovery.register(&instance("0001", 600)).await.unwrap(), Registration::New, "it comes back");
    discovery.deregister("tasks", "y").await.unwrap();
    assert_eq!(discovery.register(&instance("y", 600)).await.unwrap(), Registration::New);
    assert_eq!(there().await, ["0001", "y"]);
}
