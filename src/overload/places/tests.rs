use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::super::{Bounds, Overload};
use super::*;

fn overload(workers: usize, in_flight_max: u32) -> Arc<Overload> {
    let overload = Overload::new(workers);
    set(&overload, Some(in_flight_max));
    overload
}

fn set(overload: &Overload, in_flight_max: Option<u32>) {
    overload.follow(&Bounds { in_flight_max, ..Bounds::default() });
}

fn in_flight(overload: &Overload) -> i64 {
    overload.places.in_flight(overload.places.max.load(Ordering::Relaxed))
}

/// Takes places for requests of this priority until there is none.
fn fill(worker: &Arc<Worker>, priority: Priority) -> Vec<Place> {
    std::iter::from_fn(|| worker.admit(priority).ok()).map(Option::unwrap).collect()
}

#[test]
fn the_limit_is_let_in_and_one_more_is_not() {
    for max in [1, 2, 7, 100, 5000] {
        for workers in [1, 2, 9] {
            let overload = overload(workers, max);
            let all: Vec<_> = (0..workers).map(|index| overload.worker(index)).collect();
            let mut held = Vec::new();
            for number in 0..max as usize {
                held.push(all[number % workers].admit(Priority::Critical).unwrap());
            }
            for worker in &all {
                assert_eq!(worker.admit(Priority::Critical).err(), Some(Reason::InFlight), "{max} of {workers}");
            }
            assert_eq!(in_flight(&overload), i64::from(max));
            held.pop();
            // Whoever gave it back, any other finds it.
            let last = all[workers - 1].admit(Priority::Critical).unwrap();
            assert!(all[0].admit(Priority::Critical).is_err());
            drop((held, last));
            assert_eq!(in_flight(&overload), 0);
        }
    }
}

#[test]
fn each_priority_has_its_part_and_the_least_goes_first() {
    let overload = overload(3, 100);
    let worker = overload.worker(1);
    let mut held = Vec::new();
    for (priority, part) in
        [(Priority::Low, 70), (Priority::Normal, 90), (Priority::High, 98), (Priority::Critical, 100)]
    {
        held.extend(fill(&worker, priority));
        assert_eq!(held.len(), part, "{priority:?}");
        assert_eq!(in_flight(&overload), i64::try_from(part).unwrap());
    }
    held.truncate(69);
    assert!(worker.admit(Priority::Low).is_ok());
}

#[test]
fn a_limit_of_one_lets_any_priority_in() {
    let worker = overload(2, 1).worker(0);
    for priority in Priority::ALL {
        let place = worker.admit(priority).unwrap();
        assert!(place.is_some());
        assert!(worker.admit(Priority::Critical).is_err());
    }
}

#[test]
fn without_a_limit_nobody_needs_a_place() {
    let overload = Overload::new(2);
    assert!(overload.worker(0).admit(Priority::Low).unwrap().is_none());
}

#[test]
fn a_limit_that_changes_keeps_what_is_in_flight() {
    let overload = overload(2, 10);
    let workers = [overload.worker(0), overload.worker(1)];
    let mut held = fill(&workers[0], Priority::Critical);
    set(&overload, Some(4));
    assert_eq!(in_flight(&overload), 10);
    held.truncate(4);
    assert!(workers.iter().all(|worker| worker.admit(Priority::Critical).is_err()), "four of four");
    held.truncate(3);
    held.extend(fill(&workers[1], Priority::Critical));
    assert_eq!(held.len(), 4);
    set(&overload, None);
    assert!(workers[0].admit(Priority::Low).unwrap().is_none());
    held.truncate(2);
    set(&overload, Some(8));
    held.extend(fill(&workers[0], Priority::Critical));
    assert_eq!(held.len(), 8, "the two from before count");
    drop(held);
    assert_eq!(in_flight(&overload), 0);
}

#[test]
fn it_is_never_exceeded_by_threads_that_hurry() {
    const THREADS: usize = 4;
    const MAX: usize = 9;
    let overload = overload(THREADS, u32::try_from(MAX).unwrap());
    let (inside, most, begin) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(THREADS));
    thread::scope(|scope| {
        for index in 0..THREADS {
            let worker = overload.worker(index);
            let (inside, most, begin) = (&inside, &most, &begin);
            scope.spawn(move || {
                begin.wait();
                let mut held = Vec::new();
                for round in 0..20_000_usize {
                    if let Ok(place) = worker.admit(Priority::Critical) {
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        held.push(place);
                    }
                    if round % 3 == index % 3 || held.len() > 5 {
                        for place in held.drain(..) {
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                }
                inside.fetch_sub(held.len(), Ordering::SeqCst);
            });
        }
    });
    assert!((1..=MAX).contains(&most.into_inner()));
    assert_eq!(in_flight(&overload), 0);
    assert_eq!(fill(&overload.worker(0), Priority::Critical).len(), MAX, "none was lost");
}
