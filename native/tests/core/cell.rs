//! A value that can be compared bit for bit, and how random ones of every type are made.

use _native::tag::{Family, Value, ValueType};
use _native::values::{Items, Values};

/// Every type of the format.
pub(crate) const KINDS: [ValueType; 26] = ValueType::ALL;
/// Those that registers can hold.
pub(crate) const OF_REGISTERS: usize = 12;

/// A value with floats as their bits, so that NaN equals itself and 0.0 differs from -0.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Absent,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Real32(u32),
    Real64(u64),
    Text(String),
    Bytes(Vec<u8>),
    Array(List),
}

/// The elements of an array, compared bit for bit.
#[derive(Debug, Clone)]
pub(crate) struct List(pub(crate) Values);

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }
}

impl Eq for List {}

impl From<Value<'_>> for Cell {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Absent => Self::Absent,
            Value::Bool(value) => Self::Bool(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Unsigned(value) => Self::Unsigned(value),
            Value::Real32(value) => Self::Real32(value.to_bits()),
            Value::Real64(value) => Self::Real64(value.to_bits()),
            Value::Text(value) => Self::Text(value.to_owned()),
            Value::Bytes(value) => Self::Bytes(value.to_owned()),
            Value::Array(items) => Self::Array(List(items.to_values())),
        }
    }
}

impl Cell {
    /// The value as the core takes it.
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Self::Absent => Value::Absent,
            Self::Bool(value) => Value::Bool(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Unsigned(value) => Value::Unsigned(*value),
            Self::Real32(bits) => Value::Real32(f32::from_bits(*bits)),
            Self::Real64(bits) => Value::Real64(f64::from_bits(*bits)),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Array(list) => Value::Array(Items::of(&list.0)),
        }
    }
}

/// How the values of a column go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habit {
    /// What they look like: one of `Habit::COUNT`.
    pub(crate) shape: u8,
    /// Where they begin.
    pub(crate) start: i64,
    /// How far they go at a time.
    pub(crate) step: i64,
}

impl Habit {
    pub(crate) const COUNT: u8 = 6;

    /// Reading `index` of a column of `kind`; `random` is all that is random about it.
    pub(crate) fn cell(self, kind: ValueType, index: usize, random: u64) -> Cell {
        if let Some(element) = kind.element() {
            return self.array(element, index, random);
        }
        let walk = self.start.wrapping_add(self.step.wrapping_mul(index as i64));
        let small = (random >> 8 & 0x3f) as i64;
        let whole = match self.shape {
            0 => self.start,
            1 => walk,
            2 => walk.wrapping_add(small),
            3 => self.start.wrapping_add((random >> 60) as i64 / 15),
            4 => [i64::MIN, i64::MAX, 0, -1, 1, -128, 127, 255, i64::MIN + 1][random as usize % 9],
            _ => random as i64,
        };
        match kind.family() {
            Family::Bool => Cell::Bool(whole & 1 == 1),
            Family::Real32 => Cell::Real32(match self.shape {
                4 => SPECIAL_32[random as usize % SPECIAL_32.len()],
                5 => random as u32,
                _ => (((whole % 1_000_000) as f64 / 100.0) as f32).to_bits(),
            }),
            Family::Real64 => Cell::Real64(match self.shape {
                4 => SPECIAL_64[random as usize % SPECIAL_64.len()],
                5 => random,
                _ => ((whole % 1_000_000_000) as f64 / 1000.0).to_bits(),
            }),
            Family::Text => Cell::Text(text(self.shape, whole)),
            Family::Bytes => {
                Cell::Bytes(if self.shape == 5 { random.to_le_bytes().into() } else { text(self.shape, whole).into() })
            }
            Family::Integer | Family::Unsigned => integer(kind, whole),
        }
    }
}

impl Habit {
    /// As many elements every time, or 0 to 5; each goes its own way.
    fn array(self, element: ValueType, index: usize, random: u64) -> Cell {
        let length = if self.shape < 3 { self.start.rem_euclid(5) as usize } else { random as usize >> 9 & 5 };
        let mut values = Values::new(element);
        for at in 0..length {
            let random = random.rotate_left(7 * at as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(values.push(self.cell(element, index + at, random).value()));
        }
        Cell::Array(List(values))
    }
}

fn integer(kind: ValueType, whole: i64) -> Cell {
    match kind {
        ValueType::Int8 => Cell::Integer(i64::from(whole as i8)),
        ValueType::Int16 => Cell::Integer(i64::from(whole as i16)),
        ValueType::Int32 => Cell::Integer(i64::from(whole as i32)),
        ValueType::Int64 => Cell::Integer(whole),
        ValueType::UInt8 => Cell::Unsigned(u64::from(whole as u8)),
        ValueType::UInt16 => Cell::Unsigned(u64::from(whole as u16)),
        ValueType::UInt32 => Cell::Unsigned(u64::from(whole as u32)),
        _ => Cell::Unsigned(whole as u64),
    }
}

/// Infinities, zeros of both signs, NaNs that carry something, subnormals, the largest and the smallest.
const SPECIAL_32: [u32; 10] =
    [0x7f80_0000, 0xff80_0000, 0x8000_0000, 0, 0x7fc0_0000, 0x7fc0_1234, 0xff80_0001, 1, 0x7f7f_ffff, 0x0080_0000];
const SPECIAL_64: [u64; 10] = [
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x8000_0000_0000_0000,
    0,
    0x7ff8_0000_0000_0000,
    0x7ff8_0000_dead_beef,
    0xfff0_0000_0000_0001,
    1,
    0x7fef_ffff_ffff_ffff,
    0x4340_0000_0000_0000,
];

fn text(shape: u8, whole: i64) -> String {
    match shape {
        0..=3 => ["", "RUN", "Träger Ø40", "停止", "\0", "🏭🏭"][whole.rem_euclid(6) as usize].to_owned(),
        4 => format!("B{}", whole.rem_euclid(1000)),
        _ => (0..whole.rem_euclid(20)).filter_map(|place| char::from_u32((whole >> place) as u32 & 0x1_ffff)).collect(),
    }
}
