//! How important a request is: what is shed first.

/// From the least important to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work that can wait: batches, prefetches.
    Low,
    /// Everything that nobody said anything about.
    #[default]
    Normal,
    /// What people wait for.
    High,
    /// What must work when nothing else does.
    Critical,
}

impl Priority {
    /// Every priority, with its word.
    pub const ALL: [(&'static str, Self); 4] =
        [("low", Self::Low), ("normal", Self::Normal), ("high", Self::High), ("critical", Self::Critical)];

    /// The priority called so, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, priority)| *priority)
    }

    /// What the urgency of RFC 9218 §4.1 asks for: 0 is the most urgent, 3 the default, 7 background work.
    #[must_use]
    pub const fn of_urgency(urgency: u8) -> Self {
        match urgency {
            0 | 1 => Self::High,
            2..=4 => Self::Normal,
            _ => Self::Low,
        }
    }

    /// How many of `limit` requests at once may be under way so that one more of this priority joins them: the rest is
    /// reserved for more important ones. Rounded up, so that small limits refuse nobody entirely.
    #[must_use]
    pub const fn share(self, limit: u32) -> u32 {
        let percent = match self {
            Self::Low => 70,
            Self::Normal => 90,
            Self::High => 95,
            Self::Critical => 100,
        };
        // At most the limit itself, and so within its type.
        (limit as u64 * percent).div_ceil(100) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_and_urgencies() {
        for (word, priority) in Priority::ALL {
            assert_eq!(Priority::parse(&word.to_uppercase()), Some(priority));
        }
        assert_eq!(Priority::parse("urgent"), None);
        assert_eq!(Priority::of_urgency(3), Priority::default(), "no urgency is 3");
        assert_eq!([0, 4, 5, 7].map(Priority::of_urgency), [Priority::High, Priority::Normal, Priority::Low, Priority::Low]);
    }

    #[test]
    fn shares_of_a_hundred() {
        assert_eq!(Priority::ALL.map(|(_, priority)| priority.share(100)), [70, 90, 95, 100]);
        assert_eq!(Priority::ALL.map(|(_, priority)| priority.share(1)), [1; 4]);
    }

    proptest! {
        #[test]
        fn the_more_important_see_more_of_a_limit_and_nobody_more_than_all(limit in 1u32..) {
            let shares = Priority::ALL.map(|(_, priority)| priority.share(limit));
            prop_assert!(shares.is_sorted() && shares[0] >= 1 && shares[3] == limit, "{shares:?}");
        }
    }
}
