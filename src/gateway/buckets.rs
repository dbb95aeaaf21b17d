//! Whether limits that share a bucket agree about it, and rates of consumers are for buckets there are.

use std::collections::HashMap;

use super::compile::all;
use crate::config::load::Config;
use crate::contract::BucketUse;
use crate::identity::OwnRatesSettings;
use crate::yaml::Problem;

/// Reports limits that use one bucket in different ways, and own rates for a bucket that no filter has, or that has no use for them.
pub fn check(uses: &[BucketUse], config: &Config, problems: &mut Vec<Problem>) {
    // A filter that could not be built may be the one that has the bucket.
    let is_complete = problems.is_empty();
    let mut first: HashMap<&str, &BucketUse> = HashMap::new();
    for bucket in uses {
        let known = *first.entry(&bucket.name).or_insert(bucket);
        if known.terms != bucket.terms {
            let message =
                format!("bucket `{}` has {} here, and {} there", bucket.name.value, bucket.terms, known.terms);
            let problem = Problem::new(bucket.name.place, message).with_related("there", known.name.place);
            problems.push(problem.with_hint("give the bucket the same terms everywhere, or each limit its own bucket"));
        }
    }
    if is_complete {
        own_rates(&first, config, problems);
    }
}

fn own_rates(known: &HashMap<&str, &BucketUse>, config: &Config, problems: &mut Vec<Problem>) {
    for consumer in all(config, |fragment| &fragment.consumers, &config.root.consumers) {
        let of_keys = consumer.keys.iter().filter_map(|key| key.rates.as_ref());
        for bucket in consumer.rates.iter().chain(of_keys).flat_map(OwnRatesSettings::buckets) {
            match known.get(&*bucket.text) {
                Some(found) if found.takes_rates => {}
                Some(found) => {
                    let message = format!("bucket `{}` does not go by rates of consumers", bucket.text);
                    let problem = Problem::new(bucket.place, message).with_related("the bucket", found.name.place);
                    problems.push(problem.with_hint("they are for `rate_limit`s that count by `consumer` or `key`"));
                }
                None => {
                    let taking = known.iter().filter(|(_, bucket)| bucket.takes_rates).map(|(name, _)| *name);
                    problems.push(Problem::unknown(bucket.place, "bucket", &bucket.text, taking));
                }
            }
        }
    }
}
