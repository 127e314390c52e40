//! What a tag is to the core: a type, a scale and a filter under a dense `u32` index.

use crate::error::{Error, Result};

/// The type of a tag's value. The discriminants are the type ids of the block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ValueType {
    /// One bit.
    Bool = 0,
    /// Signed, 8 bits.
    Int8 = 1,
    /// Signed, 16 bits (INT).
    Int16 = 2,
    /// Signed, 32 bits (DINT).
    Int32 = 3,
    /// Signed, 64 bits (LINT).
    Int64 = 4,
    /// Unsigned, 8 bits.
    UInt8 = 5,
    /// Unsigned, 16 bits (UINT, WORD).
    UInt16 = 6,
    /// Unsigned, 32 bits.
    UInt32 = 7,
    /// Unsigned, 64 bits.
    UInt64 = 8,
    /// IEEE 754 binary32 (REAL). Never widened inside the core.
    Float32 = 9,
    /// IEEE 754 binary64 (LREAL).
    Float64 = 10,
    /// UTF-8.
    Text = 11,
}

/// Every type with its name in configs and catalogs.
const NAMES: [(ValueType, &str); 12] = [
    (ValueType::Bool, "bool"),
    (ValueType::Int8, "int8"),
    (ValueType::Int16, "int16"),
    (ValueType::Int32, "int32"),
    (ValueType::Int64, "int64"),
    (ValueType::UInt8, "uint8"),
    (ValueType::UInt16, "uint16"),
    (ValueType::UInt32, "uint32"),
    (ValueType::UInt64, "uint64"),
    (ValueType::Float32, "float32"),
    (ValueType::Float64, "float64"),
    (ValueType::Text, "string"),
];

impl ValueType {
    /// The type of a name such as `float32`.
    pub fn parse(name: &str) -> Result<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(found, _)| *found).ok_or_else(|| {
            Error::Spec(format!(
                "no type {name:?}; there are bool, int8..int64, uint8..uint64, float32, float64, string"
            ))
        })
    }

    /// The type of a type id in a block.
    pub fn from_id(id: u8) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known as u8 == id).map(|(found, _)| *found)
    }

    /// The name in configs and catalogs.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// Bytes of one value in memory and in the raw codec; 0 for text.
    pub fn width(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 => 8,
            Self::Text => 0,
        }
    }

    /// The values that fit, for integer types.
    pub fn range(self) -> Option<(i128, i128)> {
        let bits = self.width() * 8;
        match self {
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
            Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64 => Some((0, (1 << bits) - 1)),
            _ => None,
        }
    }
}

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
}

impl Value<'_> {
    /// As float64, as scaling needs it; `None` for text and absent values.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(value))),
            Self::Integer(value) => Some(value as f64),
            Self::Unsigned(value) => Some(value as f64),
            Self::Real32(value) => Some(f64::from(value)),
            Self::Real64(value) => Some(value),
            Self::Text(_) | Self::Absent => None,
        }
    }

    /// Whether nothing changed from one to the other. NaN is the same as NaN here, and -0.0 as 0.0.
    #[allow(clippy::float_cmp)] // the same means equal
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
    /// Takes the place of the one before. Allocates only for a text that is longer than any so far.
    pub fn remember(&mut self, time_ns: i64, value: Value<'_>, quality: u32) {
        self.seen = true;
        self.time_ns = time_ns;
        self.quality = quality;
        self.value.set(value);
    }

    /// Time, value and quality, once there is one.
    pub fn reading(&self) -> Option<(i64, Value<'_>, u32)> {
        self.seen.then(|| (self.time_ns, self.value.get(), self.quality))
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
}

impl Kept {
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
        };
    }

    fn get(&self) -> Value<'_> {
        match self {
            Self::Absent => Value::Absent,
            Self::Bool(value) => Value::Bool(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Unsigned(value) => Value::Unsigned(*value),
            Self::Real32(value) => Value::Real32(*value),
            Self::Real64(value) => Value::Real64(*value),
            Self::Text(value) => Value::Text(value),
        }
    }
}
/// `value = raw * factor + offset`, in float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// What the raw value is multiplied with.
    pub factor: f64,
    /// What is added after that.
    pub offset: f64,
}

/// One tag as the buffer knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TagSpec {
    /// What the device holds.
    pub raw: ValueType,
    /// How raw values become readings; `None` leaves them as they are.
    pub scale: Option<Scale>,
    /// The filter as written in the config (`filter/spec.rs`).
    pub filter: String,
    /// Low and high: what a filter's percent is of.
    pub range: Option<(f64, f64)>,
}

impl TagSpec {
    /// What the readings are: a scaled tag reads as float64.
    pub fn reading_type(&self) -> ValueType {
        if self.scale.is_some() { ValueType::Float64 } else { self.raw }
    }

    /// The reading's value of a raw value.
    pub fn apply<'a>(&self, raw: Value<'a>) -> Value<'a> {
        match (self.scale, raw.as_f64()) {
            // Not `mul_add`: the fused form rounds once, and nobody who checks a value by hand would get it.
            (Some(scale), Some(value)) => Value::Real64(value * scale.factor + scale.offset),
            _ => raw,
        }
    }
}

/// The StatusCode of a reading whose value did not fit its tag's type (OPC 10000-6 annex A.2).
pub const BAD_TYPE_MISMATCH: u32 = 0x8074_0000;
/// The StatusCode of a value that can't be decoded, such as text that is not UTF-8.
pub const BAD_DECODING_ERROR: u32 = 0x8007_0000;
/// The StatusCode where a device says by an agreed value that it has none (a broken wire, a sensor that is not there).
pub const BAD_SENSOR_FAILURE: u32 = 0x808C_0000;
