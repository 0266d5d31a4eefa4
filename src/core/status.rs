//! What an instance says about itself.

use std::fmt;

/// Health that a service reports of itself, at registration or in a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Listed, but takes no traffic yet.
    Starting,
    /// Takes traffic.
    #[default]
    Healthy,
    /// Takes traffic; something is not as it should be.
    Degraded,
    /// Listed, takes no traffic.
    Unhealthy,
    /// Listed, finishes what it has, takes nothing new.
    Draining,
}

impl Status {
    /// Every status, for messages and documentation.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Draining];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether an instance of this status may be sent requests.
    #[must_use]
    pub const fn takes_traffic(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("HEALTHY"), None);
    }
}
