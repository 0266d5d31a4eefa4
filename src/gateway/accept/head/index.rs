//! Where the fields of a head stand.

use std::ops::Range;

/// So many fields are found again; a head with more of them is served all the same, by who reads it anew.
const FIELDS_MAX: usize = 64;

/// Fields of a head that was checked, in their order. It is kept beside the buffer, because that may move.
#[derive(Clone)]
pub struct FieldIndex {
    places: [Place; FIELDS_MAX],
    count: usize,
    is_complete: bool,
}

#[derive(Clone, Copy, Default)]
struct Place {
    name_at: u32,
    value_at: u32,
    value_len: u16,
    name_len: u16,
}

impl FieldIndex {
    pub(super) const fn new() -> Self {
        let nowhere = Place { name_at: 0, value_at: 0, value_len: 0, name_len: 0 };
        Self { places: [nowhere; FIELDS_MAX], count: 0, is_complete: true }
    }

    /// Whether every field of the head is in it.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Names and values, as they stand in `head`.
    pub fn fields<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.places[..self.count].iter().map(|place| {
            let part = |at: u32, len: u16| head.get(at as usize..at as usize + usize::from(len)).unwrap_or_default();
            (part(place.name_at, place.name_len), part(place.value_at, place.value_len))
        })
    }

    pub(super) fn add(&mut self, name: Range<usize>, value: Range<usize>) {
        match (self.places.get_mut(self.count), Place::of(&name, &value)) {
            (Some(free), Some(place)) => {
                *free = place;
                self.count += 1;
            }
            _ => self.is_complete = false,
        }
    }
}

impl Place {
    fn of(name: &Range<usize>, value: &Range<usize>) -> Option<Self> {
        Some(Self {
            name_at: u32::try_from(name.start).ok()?,
            value_at: u32::try_from(value.start).ok()?,
            value_len: u16::try_from(value.len()).ok()?,
            name_len: u16::try_from(name.len()).ok()?,
        })
    }
}

impl std::fmt::Debug for FieldIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FieldIndex").field("count", &self.count).field("is_complete", &self.is_complete).finish()
    }
}
