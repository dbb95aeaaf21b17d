//! Any run of operations does what a plain map would.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{Space, Store};
use super::{Bench, OTHER, SPACE};

/// One operation, on one of a few keys so that they meet.
#[derive(Clone, Debug)]
enum Act {
    Get,
    Put(u8, Option<u64>),
    Insert(u8, Option<u64>),
    Replace(u8, u8),
    Exchange(u8, u8, Option<u64>),
    Take,
    List(usize),
    Pass(u64),
}

fn act() -> impl Strategy<Value = (bool, u8, Act)> {
    let end = proptest::option::of(0_u64..6);
    let act = prop_oneof![
        Just(Act::Get),
        (0_u8..4, end.clone()).prop_map(|(value, end)| Act::Put(value, end)),
        (0_u8..4, end.clone()).prop_map(|(value, end)| Act::Insert(value, end)),
        (0_u8..4, 0_u8..4, end).prop_map(|(old, new, end)| Act::Exchange(old, new, end)),
        (0_u8..4, 0_u8..4).prop_map(|(old, new)| Act::Replace(old, new)),
        Just(Act::Take),
        (0_usize..6).prop_map(Act::List),
        (0_u64..4).prop_map(Act::Pass),
    ];
    (any::<bool>(), 0_u8..5, act)
}

/// The plain map: values and the milliseconds at which they end.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(&'static str, String), (u8, Option<u64>)>,
    now: u64,
}

impl Model {
    fn forget_ended(&mut self) {
        let now = self.now;
        self.entries.retain(|_, (_, end)| end.is_none_or(|end| now < end));
    }

    fn end(&self, after: Option<u64>) -> Option<u64> {
        after.map(|after| self.now + after)
    }
}

async fn run(bench: &Bench, acts: Vec<(bool, u8, Act)>) -> Result<(), TestCaseError> {
    let store: &dyn Store = &*bench.store;
    let mut model = Model::default();
    for (other, key, act) in acts {
        let space: Space = if other { OTHER } else { SPACE };
        let key = format!("k{key}");
        let place = (space.0, key.clone());
        model.forget_ended();
        let there = model.entries.get(&place).copied();
        match act {
            Act::Get => {
                let got = store.get(space, &key).await.unwrap();
                prop_assert_eq!(got, there.map(|(value, _)| vec![value]));
            }
            Act::Put(value, after) => {
                store.put(space, &key, vec![value], after.and_then(|after| bench.clock.later(after))).await.unwrap();
                model.entries.insert(place, (value, model.end(after)));
            }
            Act::Insert(value, after) => {
                let end = after.and_then(|after| bench.clock.later(after));
                let won = store.insert(space, &key, vec![value], end).await.unwrap();
                prop_assert_eq!(won, there.is_none());
                if won {
                    model.entries.insert(place, (value, model.end(after)));
                }
            }
            Act::Replace(old, new) => {
                let won = store.replace(space, &key, &[old], vec![new]).await.unwrap();
                prop_assert_eq!(won, there.is_some_and(|(value, _)| value == old));
                if let Some((_, end)) = there.filter(|_| won) {
                    model.entries.insert(place, (new, end));
                }
            }
            Act::Exchange(old, new, after) => {
                let end = after.and_then(|after| bench.clock.later(after));
                let won = store.exchange(space, &key, &[old], vec![new], end).await.unwrap();
                prop_assert_eq!(won, there.is_some_and(|(value, _)| value == old));
                if won {
                    model.entries.insert(place, (new, model.end(after)));
                }
            }
            Act::Take => {
                let taken = store.take(space, &key).await.unwrap();
                prop_assert_eq!(taken, model.entries.remove(&place).map(|(value, _)| vec![value]));
            }
            Act::List(limit) => {
                let listed = store.list(space, Some(&key), limit).await.unwrap();
                let listed: Vec<_> = listed.into_iter().map(|entry| (entry.key, entry.value)).collect();
                let expected = model.entries.iter().filter(|((of, name), _)| *of == space.0 && *name > key);
                let expected = expected.take(limit).map(|((_, name), (value, _))| (name.clone(), vec![*value]));
                prop_assert_eq!(listed, expected.collect::<Vec<_>>());
            }
            Act::Pass(milliseconds) => {
                bench.clock.forward(milliseconds);
                model.now += milliseconds;
            }
        }
    }
    Ok(())
}

fn checked(bench: &Bench, acts: Vec<(bool, u8, Act)>) -> Result<(), TestCaseError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(bench, acts))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn memory_is_like_a_map(acts in proptest::collection::vec(act(), 0..60)) {
        checked(&Bench::memory(), acts)?;
    }
}

proptest! {
    // Each write waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_file_is_like_a_map(acts in proptest::collection::vec(act(), 0..60)) {
        checked(&Bench::file(), acts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn redis_is_like_a_map(acts in proptest::collection::vec(act(), 0..60)) {
        checked(&Bench::redis(), acts)?;
    }
}
