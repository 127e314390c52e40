//! What a tag is to the core: a type, a scale and a filter under a dense `u32` index.

use std::hash::Hash;

use crate::error::{Error, Result};

pub use crate::value::{Last, Value};

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
    /// Any bytes.
    Bytes = 12,
    /// Any number of `Bool`.
    BoolArray = 16,
    /// Any number of `Int8`.
    Int8Array = 17,
    /// Any number of `Int16`.
    Int16Array = 18,
    /// Any number of `Int32`.
    Int32Array = 19,
    /// Any number of `Int64`.
    Int64Array = 20,
    /// Any number of `UInt8`.
    UInt8Array = 21,
    /// Any number of `UInt16`.
    UInt16Array = 22,
    /// Any number of `UInt32`.
    UInt32Array = 23,
    /// Any number of `UInt64`.
    UInt64Array = 24,
    /// Any number of `Float32`.
    Float32Array = 25,
    /// Any number of `Float64`.
    Float64Array = 26,
    /// Any number of `Text`.
    TextArray = 27,
    /// Any number of `Bytes`.
    BytesArray = 28,
}

/// How the values of a type, or the elements of an array, lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// bool
    Bool,
    /// int8 to int64
    Integer,
    /// uint8 to uint64
    Unsigned,
    /// float32
    Real32,
    /// float64
    Real64,
    /// string
    Text,
    /// bytes
    Bytes,
}

/// The id of an array is this and the id of its elements' type: arrays of arrays have none.
const FIRST_ARRAY: u8 = 16;
/// Every type with its name in configs and catalogs.
const NAMES: [(ValueType, &str); 26] = [
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
    (ValueType::Bytes, "bytes"),
    (ValueType::BoolArray, "bool[]"),
    (ValueType::Int8Array, "int8[]"),
    (ValueType::Int16Array, "int16[]"),
    (ValueType::Int32Array, "int32[]"),
    (ValueType::Int64Array, "int64[]"),
    (ValueType::UInt8Array, "uint8[]"),
    (ValueType::UInt16Array, "uint16[]"),
    (ValueType::UInt32Array, "uint32[]"),
    (ValueType::UInt64Array, "uint64[]"),
    (ValueType::Float32Array, "float32[]"),
    (ValueType::Float64Array, "float64[]"),
    (ValueType::TextArray, "string[]"),
    (ValueType::BytesArray, "bytes[]"),
];

impl ValueType {
    /// Every type, by id.
    #[allow(clippy::indexing_slicing)] // when it is compiled
    pub const ALL: [Self; NAMES.len()] = {
        let mut all = [Self::Bool; NAMES.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = NAMES[at].0;
            at += 1;
        }
        all
    };

    /// The type of a name such as `float32`.
    pub fn parse(name: &str) -> Result<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(found, _)| *found).ok_or_else(|| {
            Error::Spec(format!(
                "no type {name:?}; there are bool, int8..int64, uint8..uint64, float32, float64, string, bytes, \
                 and arrays such as float32[]"
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

    /// The type of an array's elements; `None` of a type that is no array.
    pub fn element(self) -> Option<Self> {
        (self as u8).checked_sub(FIRST_ARRAY).and_then(Self::from_id)
    }

    /// The form of its values, or of its elements.
    pub fn family(self) -> Family {
        match self.element().unwrap_or(self) as u8 {
            0 => Family::Bool,
            1..=4 => Family::Integer,
            5..=8 => Family::Unsigned,
            9 => Family::Real32,
            10 => Family::Real64,
            11 => Family::Text,
            _ => Family::Bytes,
        }
    }

    /// Bytes of one value, or of one element, in the raw codec; 0 for strings and bytes.
    pub fn width(self) -> usize {
        match self.element().unwrap_or(self) as u8 {
            0 | 1 | 5 => 1,
            2 | 6 => 2,
            3 | 7 | 9 => 4,
            4 | 8 | 10 => 8,
            _ => 0,
        }
    }

    /// The values, or elements, that fit, for integer types.
    pub fn range(self) -> Option<(i128, i128)> {
        let bits = self.width() * 8;
        match self.family() {
            Family::Integer => Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
            Family::Unsigned => Some((0, (1 << bits) - 1)),
            _ => None,
        }
    }

    /// Whether its values can be told apart only as the same or not: no distance, no scale.
    pub fn is_opaque(self) -> bool {
        self.element().is_some() || matches!(self, Self::Text | Self::Bytes)
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
    /// The same for equal specs, bit for bit.
    pub fn key(&self) -> impl Eq + Hash + use<> {
        let bits = |(a, b): (f64, f64)| (a.to_bits(), b.to_bits());
        let scale = self.scale.map(|scale| bits((scale.factor, scale.offset)));
        (self.raw as u8, scale, self.filter.clone(), self.range.map(bits))
    }

    /// What the readings are: a scaled tag reads as float64.
    pub fn reading_type(&self) -> ValueType {
        if self.scale.is_some() { ValueType::Float64 } else { self.raw }
    }

    /// The reading's value of a raw value.
    #[inline(always)]
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
