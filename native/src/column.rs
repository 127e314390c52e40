//! One tag's readings, open (being pushed to) or decoded: times, values, qualities, side by side.

use crate::codec::run::Runs;
use crate::tag::{BAD_TYPE_MISMATCH, Value, ValueType};

pub use crate::values::Values;

/// Which lossy filter thinned a column out, and what its reader may rely on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Note {
    /// Which filter.
    pub kind: NoteKind,
    /// The bound E, in the unit of the readings: what is rebuilt between readings is off by at most this much.
    pub bound: f64,
}

/// The lossy filters. The discriminants are their ids in the block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NoteKind {
    /// Every change was kept, nothing else: to be held until the next reading. The bound is 0.
    OnChange = 1,
    /// Deadband: to be held until the next reading.
    Deadband = 2,
    /// Swinging door: to be joined by straight lines.
    SwingingDoor = 3,
    /// Rounded to a grid of 2E: every time stamp was kept.
    Grid = 4,
}

impl NoteKind {
    /// The filter of an id, if this version knows it.
    pub fn from_id(id: u8) -> Option<Self> {
        [Self::OnChange, Self::Deadband, Self::SwingingDoor, Self::Grid].into_iter().find(|known| *known as u8 == id)
    }
}

/// The most readings that a fresh column has room for.
const ROOM: usize = 1024;
/// So many are pushed before a column asks for memory a second time.
const FIRST: usize = 4;

/// The readings of one tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The type of its values.
    pub kind: ValueType,
    /// ns UTC, in the order of arrival, which may go backward.
    pub times: Vec<i64>,
    /// The values of the readings that have one.
    pub values: Values,
    /// Which readings have a value (1) and which have none (0).
    pub present: Runs<u8>,
    /// The StatusCode of each reading.
    pub quality: Runs<u32>,
    /// The filter that the readings passed; `None` where everything was kept.
    pub note: Option<Note>,
}

impl Column {
    /// An empty column.
    pub fn new(kind: ValueType) -> Self {
        Self {
            kind,
            times: Vec::new(),
            values: Values::new(kind),
            present: Runs::default(),
            quality: Runs::default(),
            note: None,
        }
    }

    /// An empty column of the same type, and with room for as many readings: what was pushed between two seals is pushed
    /// again before the next one. At most `ROOM`, so that one burst does not hold memory for ever, and none for
    /// so few that their first push finds it.
    #[must_use]
    pub fn fresh(&self) -> Self {
        let mut fresh = Self::new(self.kind);
        if self.len() > FIRST {
            fresh.times.reserve_exact(self.times.len().min(ROOM));
            fresh.values.reserve(self.values.len().min(ROOM));
        }
        fresh
    }

    /// Appends a reading; a value of another kind than the column's becomes a bad reading without a value.
    /// Returns the bytes of memory that it takes, about.
    #[inline(always)]
    pub fn push(&mut self, time_ns: i64, value: Value<'_>, quality: u32) -> usize {
        let (present, quality) = match value {
            Value::Absent => (false, quality),
            value if self.values.push(value) => (true, quality),
            _ => (false, BAD_TYPE_MISMATCH),
        };
        self.times.push(time_ns);
        self.present.push(u8::from(present));
        self.quality.push(quality);
        size(value)
    }

    /// Readings.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Whether another column has the very same readings, to the last bit.
    pub fn same(&self, other: &Self) -> bool {
        self.values.same(&other.values)
            && self.kind == other.kind
            && self.times == other.times
            && self.present == other.present
            && self.quality == other.quality
            && self.note == other.note
    }

    /// The readings one by one: time, value, quality.
    pub fn iter(&self) -> impl Iterator<Item = (i64, Value<'_>, u32)> {
        let mut values = self.values.each();
        self.times.iter().zip(self.present.iter()).zip(self.quality.iter()).map(move |((time, present), quality)| {
            let value = if present == 0 { Value::Absent } else { values.next().unwrap_or(Value::Absent) };
            (*time, value, quality)
        })
    }
}

/// Bytes of memory that a reading of this value takes in a column, about.
#[inline(always)]
pub fn size(value: Value<'_>) -> usize {
    8 + match value {
        Value::Absent => 0,
        Value::Bool(_) => 1,
        Value::Real32(_) => 4,
        Value::Integer(_) | Value::Unsigned(_) | Value::Real64(_) => 8,
        Value::Text(text) => 8 + text.len(),
        Value::Bytes(bytes) => 8 + bytes.len(),
        Value::Array(items) => 8 + items.size(),
    }
}
