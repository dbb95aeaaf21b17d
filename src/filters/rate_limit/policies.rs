//! What clients with rates of their own are told about them. Many have the same ones: each is put into words once.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::context::Policy;
use crate::limits::fields::FieldsSetting;
use crate::rates::{RATES_MAX, Rates};

/// Most policies that are remembered. Beyond them all are forgotten: whoever manages keys chooses how many there are.
const KNOWN_MAX: usize = 1024;

/// Count and period of each rate: all that a policy says of it. The bits of the count, which is never computed with here.
type Words = [(u64, u64); RATES_MAX];

type Known = HashMap<Words, Option<Arc<Policy>>>;

pub struct OwnPolicies {
    fields: FieldsSetting,
    /// What the limit is called in `RateLimit-Policy`.
    word: String,
    /// Read without a lock: requests on all cores look here.
    known: ArcSwap<Known>,
}

impl OwnPolicies {
    pub fn new(fields: FieldsSetting, word: String) -> Self {
        Self { fields, word, known: ArcSwap::default() }
    }

    /// The policy of these rates. `None` when clients are told nothing.
    pub fn of(&self, rates: &Rates) -> Option<Arc<Policy>> {
        let words = words(rates);
        if let Some(policy) = self.known.load().get(&words) {
            return policy.clone();
        }
        let policy = self.fields.policy_of(&self.word, rates);
        self.known.rcu(|known| {
            let mut next = if known.len() >= KNOWN_MAX { Known::default() } else { Known::clone(known) };
            next.insert(words, policy.clone());
            next
        });
        policy
    }
}

fn words(rates: &Rates) -> Words {
    let mut words = Words::default();
    for (word, rate) in words.iter_mut().zip(rates.as_slice()) {
        *word = (rate.count.to_bits(), rate.period.as_secs());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(texts: &[&str]) -> Rates {
        Rates::new(texts.iter().map(|text| text.parse().unwrap()), None).unwrap()
    }

    #[test]
    fn equal_rates_share_a_policy_and_others_do_not() {
        let policies = OwnPolicies::new(FieldsSetting::All, "reads".to_owned());
        let of = |texts: &[&str]| policies.of(&rates(texts)).unwrap();
        let first = of(&["60/min"]);
        assert!(Arc::ptr_eq(&first, &of(&["60/min"])));
        for other in [&["61/min"][..], &["60/hour"], &["60/min", "60/hour"]] {
            assert!(!Arc::ptr_eq(&first, &of(other)), "{other:?}");
        }
        assert_eq!(first.standard.as_deref().unwrap(), "\"reads-minute\";q=60;w=60");
        assert_eq!(OwnPolicies::new(FieldsSetting::None, String::new()).of(&rates(&["1/s"])), None);
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let policies = OwnPolicies::new(FieldsSetting::All, "reads".to_owned());
        for count in 1..=2 * KNOWN_MAX + 1 {
            assert!(policies.of(&rates(&[&format!("{count}/min")])).is_some());
            assert!(policies.known.load().len() <= KNOWN_MAX);
        }
    }
}
