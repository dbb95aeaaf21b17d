//! What was promised, against what came of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use super::crowd::Told;
use super::service::Arrival;

/// How often what happened.
#[derive(Debug, Default)]
pub struct Figures {
    pub messages: usize,
    pub acknowledged: usize,
    /// Of these, with the 200 of one that is known.
    pub known: usize,
    /// Tries that were cut off.
    pub cut: usize,
    pub refused: BTreeMap<String, usize>,
    /// Messages that the service has done.
    pub delivered: usize,
    /// Times that a service did what it had done: the same message of the inbox again, marked by its attempt.
    pub again: usize,
    /// Messages that are in the inbox once more because their sender was not told that they are: marked by their key.
    pub stored_again: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, acknowledged, known, cut, refused, delivered, again, stored_again } = self;
        write!(
            f,
            "{messages} messages, {acknowledged} acknowledged ({known} of them as known), {cut} tries cut off, refused \
             {refused:?}; {delivered} delivered, {again} times the same one again, {stored_again} stored again"
        )
    }
}

impl Figures {
    /// Checks that nothing is lost and that what came twice is marked. `may_be_dead`: those that are dead in the inbox.
    pub fn of(told: &Told, arrivals: &[Arrival], may_be_dead: impl Fn(&str) -> bool) -> Self {
        let mut by_name = BTreeMap::<&str, Vec<&Arrival>>::new();
        for arrival in arrivals {
            by_name.entry(&arrival.name).or_default().push(arrival);
        }
        let mut figures = Self {
            messages: told.messages.len(),
            acknowledged: told.acknowledged,
            cut: told.cut,
            refused: told.refused.clone(),
            ..Self::default()
        };
        let mut keys = HashSet::new();
        for (name, sent) in &told.messages {
            assert_eq!(sent.acknowledged.len(), 1, "{name}: whoever is told so stops sending");
            figures.known += usize::from(sent.acknowledged == [200]);
            let arrivals = by_name.remove(&**name).unwrap_or_else(|| panic!("{name} is lost: {sent:?}"));
            let done: Vec<_> = arrivals.iter().filter(|arrival| arrival.is_done).collect();
            assert!(!done.is_empty() || may_be_dead(name), "{name} is lost: {sent:?}, {arrivals:?}");
            for id in &sent.ids {
                assert!(arrivals.iter().any(|arrival| arrival.id == *id), "{id} of {name} is lost: {arrivals:?}");
            }
            let ids: BTreeSet<&str> = arrivals.iter().map(|arrival| &*arrival.id).collect();
            let acknowledged = sent.ids.len();
            assert!(ids.len() <= acknowledged + sent.unsure, "{name} was stored again: {sent:?}, {arrivals:?}");
            let marks: BTreeSet<(&str, u32)> = arrivals.iter().map(|one| (&*one.id, one.attempt)).collect();
            assert_eq!(marks.len(), arrivals.len(), "{name} came again without a mark: {arrivals:?}");
            assert!(arrivals.iter().all(|one| one.key == arrivals[0].key), "{name} has two keys: {arrivals:?}");
            assert!(keys.insert(&*arrivals[0].key), "{name} has the key of another one");
            let ids_done: BTreeSet<&str> = done.iter().map(|arrival| &*arrival.id).collect();
            figures.delivered += usize::from(!done.is_empty());
            figures.again += done.len() - ids_done.len();
            figures.stored_again += ids.len() - 1;
        }
        assert!(by_name.is_empty(), "nobody sent {:?}", by_name.keys());
        figures
    }
}
