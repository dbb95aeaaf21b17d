//! Whether limits that share a bucket agree about it.

use std::collections::HashMap;

use crate::config::load::Config;
use crate::contract::BucketUse;
use crate::yaml::Problem;

/// Reports limits that use one bucket in different ways.
pub fn check(uses: &[BucketUse], _config: &Config, problems: &mut Vec<Problem>) {
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
}
