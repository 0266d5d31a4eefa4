//! How much a registrant may say of itself. What the API refuses and what its description promises are these figures.
//!
//! Lengths are in characters. What names, ids and endpoints look like is said by their types in [`crate::name`] and
//! [`crate::endpoint`].

use std::ops::RangeInclusive;

/// Length of a lease that a registration asks for, in seconds.
pub const TTL_S: RangeInclusive<u64> = 5..=3600;
/// Share of the traffic.
pub const WEIGHT: RangeInclusive<u64> = 0..=1000;
/// Share of the traffic of an instance that says nothing of it.
pub const WEIGHT_DEFAULT: u16 = 100;
/// Entries of the metadata.
pub const METADATA_KEYS: usize = 32;
/// Length of a metadata key.
pub const METADATA_KEY: usize = 64;
/// Length of a metadata value.
pub const METADATA_VALUE: usize = 512;
/// Length of a zone's name.
pub const ZONE: usize = 64;
/// Length of a version.
pub const VERSION: usize = 128;
/// Number of tags.
pub const TAGS: usize = 32;
/// Length of a tag.
pub const TAG: usize = 64;
/// Length of a health check's path.
pub const HEALTH_ENDPOINT: usize = 255;
