//! One value on its way through the core, borrowed from wherever it lies, and the last one of a tag, kept.
//!
//! What is asked of a value on its way through a push is inlined up to where its type is known: one that is handed on in
//! memory costs more than all that is done with it.

use crate::values::{Items, Values};

/// One value on its way through the core. Integers travel at 64 bits, their type says how wide they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A bad reading without a value.
    Absent,
    /// A bool.
    Bool(bool),
    /// Any signed integer type.
    Integer(i64),
    /// Any unsigned integer type.
    Unsigned(u64),
    /// A float32.
    Real32(f32),
    /// A float64.
    Real64(f64),
    /// A string.
    Text(&'a str),
    /// Any bytes.
    Bytes(&'a [u8]),
    /// An array. An empty one is a value; no array at all is `Absent`.
    Array(Items<'a>),
}

impl Value<'_> {
    /// As float64, as scaling needs it; `None` for what is no number.
    #[inline(always)]
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(value))),
            Self::Integer(value) => Some(value as f64),
            Self::Unsigned(value) => Some(value as f64),
            Self::Real32(value) => Some(f64::from(value)),
            Self::Real64(value) => Some(value),
            Self::Absent | Self::Text(_) | Self::Bytes(_) | Self::Array(_) => None,
        }
    }

    /// Whether nothing changed from one to the other. NaN is the same as NaN here, and -0.0 as 0.0;
    /// within arrays every bit counts.
    #[allow(clippy::float_cmp)] // the same means equal
    #[inline(always)]
    pub fn same(self, other: Value<'_>) -> bool {
        match (self, other) {
            (Value::Real32(a), Value::Real32(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Value::Real64(a), Value::Real64(b)) => a == b || (a.is_nan() && b.is_nan()),
            (a, b) => a == b,
        }
    }
}

/// A reading that is remembered: its value outlives the bytes it came from.
#[derive(Debug, Clone, Default)]
pub struct Last {
    seen: bool,
    time_ns: i64,
    quality: u32,
    value: Kept,
}

impl Last {
    /// Takes the place of the one before. Allocates only for what is longer than any so far.
    #[inline(always)]
    pub fn remember(&mut self, time_ns: i64, value: Value<'_>, quality: u32) {
        self.seen = true;
        self.time_ns = time_ns;
        self.quality = quality;
        self.value.set(value);
    }

    /// Time, value and quality, once there is one.
    #[inline(always)]
    pub fn reading(&self) -> Option<(i64, Value<'_>, u32)> {
        self.seen.then(|| (self.time_ns, self.value.get(), self.quality))
    }

    /// Whether it is this very reading.
    #[inline(always)]
    pub(crate) fn is(&self, time_ns: i64, value: Value<'_>, quality: u32) -> bool {
        self.seen && self.time_ns == time_ns && self.quality == quality && self.value.get().same(value)
    }

    /// Whether a reading of this time and quality comes after it, with the same status.
    #[inline(always)]
    pub(crate) fn goes_on(&self, time_ns: i64, quality: u32) -> bool {
        self.seen && self.time_ns < time_ns && self.quality == quality
    }
}

#[derive(Debug, Clone, Default)]
enum Kept {
    #[default]
    Absent,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Real32(f32),
    Real64(f64),
    Text(String),
    Bytes(Vec<u8>),
    Array(Box<Values>),
}

impl Kept {
    #[inline(always)]
    fn set(&mut self, value: Value<'_>) {
        *self = match value {
            Value::Absent => Self::Absent,
            Value::Bool(value) => Self::Bool(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Unsigned(value) => Self::Unsigned(value),
            Value::Real32(value) => Self::Real32(value),
            Value::Real64(value) => Self::Real64(value),
            Value::Text(value) => {
                if let Self::Text(text) = self {
                    text.clear();
                    text.push_str(value);
                    return;
                }
                Self::Text(value.to_owned())
            }
            Value::Bytes(value) => {
                if let Self::Bytes(bytes) = self {
                    bytes.clear();
                    bytes.extend_from_slice(value);
                    return;
                }
                Self::Bytes(value.to_owned())
            }
            Value::Array(items) => {
                if let Self::Array(values) = self {
                    values.clear();
                    if values.extend(items) {
                        return;
                    }
                }
                Self::Array(Box::new(items.to_values()))
            }
        };
    }

    #[inline(always)]
    fn get(&self) -> Value<'_> {
        match self {
            Self::Absent => Value::Absent,
            Self::Bool(value) => Value::Bool(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Unsigned(value) => Value::Unsigned(*value),
            Self::Real32(value) => Value::Real32(*value),
            Self::Real64(value) => Value::Real64(*value),
            Self::Text(value) => Value::Text(value),
            Self::Bytes(value) => Value::Bytes(value),
            Self::Array(values) => Value::Array(Items::of(values)),
        }
    }
}
