//! Settings that have bounds, with or without a unit.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::Compiler;
use crate::yaml::Located;

impl Compiler {
    /// What is written of the setting `key`, or else its default. A value outside of the range is reported: what is built with it is
    /// never used.
    pub fn within<T: Copy + PartialOrd + Display>(
        &mut self,
        key: &str,
        written: Option<Located<T>>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        written.map_or(default, |written| written.within(key, range, &mut self.problems))
    }
}
