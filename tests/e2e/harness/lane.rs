//! Which way plain requests take through the gateway under test.

use super::metrics::Metrics;

/// Says which lane all gateways of a run use that do not say it themselves: `full`, or nothing.
const VARIABLE: &str = "VERTICE_TEST_LANE";

/// A way through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What is plain takes the express lane, as it does unless an operator says otherwise.
    Express,
    /// Everything takes Pingora's.
    Full,
}

impl Lane {
    /// The lane of gateways whose test does not care.
    #[expect(clippy::disallowed_methods, reason = "a knob of the tests themselves")]
    pub(crate) fn of_this_run() -> Self {
        match std::env::var(VARIABLE).as_deref() {
            Ok("full") => Self::Full,
            Ok("") | Err(_) => Self::Express,
            Ok(other) => panic!("{VARIABLE} is {other:?}; only \"full\" means something"),
        }
    }

    /// What a gateway is started with.
    pub(super) fn variable(self) -> Option<(String, String)> {
        (self == Self::Full).then(|| ("VERTICE_GATEWAY__EXPRESS".to_owned(), "false".to_owned()))
    }
}

impl Metrics {
    /// How many of a service's requests have taken the full lane.
    pub(crate) fn full_lane(&self, service: &str) -> f64 {
        self.sum("vertice_full_lane_requests_total", &[("service", service)])
    }
}
