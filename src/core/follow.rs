//! Following the store's events without missing one.
//!
//! Each event carries a number, given together with the write that it tells of. A reader first notes the number of the last
//! event, then has everything loaded, then follows: as merges can be repeated and reordered, nothing falls between. From
//! then on the numbers must be contiguous. A gap means that events were trimmed before they were read; a number that was seen
//! already means that the store lost its latest ones (a failover) or all of them (a flush). Either way everything is loaded
//! anew.

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Follower {
    last: Option<u64>,
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is the next one.
    Apply,
    /// Apply it as well, but events before it were lost: note the position again and have everything loaded.
    Resync,
}

impl Follower {
    /// The last event has this number (0 when there never was one), and everything up to it is being loaded.
    pub fn positioned(&mut self, last: u64) {
        self.last = Some(last);
    }

    /// An event has come.
    #[must_use]
    pub fn entry(&mut self, number: u64) -> Step {
        let expected = self.last.map(|last| last.saturating_add(1));
        self.last = Some(number);
        if expected == Some(number) { Step::Apply } else { Step::Resync }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_numbers_are_applied_and_anything_else_is_a_loss() {
        let mut follower = Follower::default();
        assert_eq!(follower.entry(7), Step::Resync, "nobody noted where to start");
        follower.positioned(41);
        assert_eq!((follower.entry(42), follower.entry(43)), (Step::Apply, Step::Apply));
        assert_eq!(follower.entry(45), Step::Resync, "44 was trimmed");
        assert_eq!(follower.entry(46), Step::Apply);
        assert_eq!(follower.entry(44), Step::Resync, "a failover lost 44 to 46");
        assert_eq!(follower.entry(1), Step::Resync, "flushed");
    }
}
