//! What happened, so that a simulation in which something no longer does is noticed.

macro_rules! seen {
    ($($name:ident),+ $(,)?) => {
        /// How often each thing happened.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Seen {
            $(pub(crate) $name: u64,)+
        }

        impl Seen {
            pub(crate) fn plus(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)+ }
            }

            /// Whether everything that can happen did, so often.
            pub(crate) fn is_everything_at_least(self, times: u64) -> bool {
                [$(self.$name),+].into_iter().all(|count| count >= times)
            }
        }
    };
}

seen! {
    away, writes_refused, renewals_refused, epochs_changed, resyncs, events_lost, heard_twice, deregistrations, drains, flushes,
    store_stalls, store_restarts, store_fresh, failovers, stalls, cuts, killed_all, durable, not_durable, lapsed, asked, probes,
    probes_passed, loaded, feed_checked,
}
