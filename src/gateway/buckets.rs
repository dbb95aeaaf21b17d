//! Whether limits that share a bucket agree about it, and rates of consumers are for buckets there are.

use std::collections::HashMap;

use super::chains::Buckets;
use super::compile::all;
use crate::config::load::Config;
use crate::contract::BucketUse;
use crate::identity::OwnRatesSettings;
use crate::yaml::{Key, Problem};

/// The only filter that own rates are for, where it counts by caller.
const RATE_LIMIT: &str = "rate_limit";

/// Reports limits that use one bucket in different ways, and own rates for a bucket that no filter has, or that has no use for them.
pub fn check(buckets: &Buckets, config: &Config, problems: &mut Vec<Problem>) {
    let mut first: HashMap<&str, &BucketUse> = HashMap::new();
    for (_, bucket) in &buckets.uses {
        let known = *first.entry(&bucket.name).or_insert(bucket);
        if known.terms != bucket.terms {
            let message =
                format!("bucket `{}` has {} here, and {} there", bucket.name.value, bucket.terms, known.terms);
            let problem = Problem::new(bucket.name.place, message).with_related("there", known.name.place);
            problems.push(problem.with_hint("give the bucket the same terms everywhere, or each limit its own bucket"));
        }
    }
    if !buckets.has_unreadable {
        own_rates(buckets, config, problems);
    }
}

fn own_rates(buckets: &Buckets, config: &Config, problems: &mut Vec<Problem>) {
    for consumer in all(config, |fragment| &fragment.consumers, &config.root.consumers) {
        let of_keys = consumer.keys.iter().filter_map(|key| key.rates.as_ref());
        let named = consumer.rates.iter().chain(of_keys).flat_map(OwnRatesSettings::buckets);
        problems.extend(named.filter_map(|bucket| problem(bucket, buckets)));
    }
}

fn problem(bucket: &Key, buckets: &Buckets) -> Option<Problem> {
    let broken = buckets.broken.iter().map(String::as_str);
    let of_rates = buckets.uses.iter().filter(|(_, known)| known.takes_rates).map(|(_, known)| known.name.as_str());
    let known = of_rates.chain(broken);
    if known.clone().any(|known| *known == *bucket.text) {
        return None;
    }
    let other = buckets.uses.iter().find(|(_, known)| *known.name.value == *bucket.text);
    let Some((filter, known)) = other else {
        let mut names: Vec<&str> = known.collect();
        names.sort_unstable();
        names.dedup();
        return Some(Problem::unknown(bucket.place, "bucket", &bucket.text, names.into_iter()));
    };
    let message = if *filter == RATE_LIMIT {
        format!("bucket `{}` does not go by rates of consumers", bucket.text)
    } else {
        format!("bucket `{}` is that of a `{filter}`, which has no rates", bucket.text)
    };
    let problem = Problem::new(bucket.place, message).with_related("it is here", known.name.place);
    Some(problem.with_hint("they are for `rate_limit`s that count by `consumer` or `key`"))
}
