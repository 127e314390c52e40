//! How a device encodes a value where its bytes are not simply those of the value's type.

use super::clock::{Calendar, century, decimal, scaled};
use crate::tag::{BAD_DECODING_ERROR, BAD_SENSOR_FAILURE, Value, ValueType};

/// What the bytes of a value mean. Every moment becomes ns UTC since 1970 as an int64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// The bytes of the type itself.
    #[default]
    Plain,
    /// IEEE 754 binary16; reads as float32.
    Half,
    /// A decimal digit in each 4 bits; reads as the unsigned type of the same width.
    Bcd,
    /// Seconds since 1970 in two registers, unsigned.
    Unix32,
    /// Seconds since 1970 in four registers.
    Unix64,
    /// Milliseconds since 1970 in four registers.
    Unix64Ms,
    /// `CP56Time2a` (IEC 60870-5-4) in four registers, the year's first: what meters call TI081 or IEC 870-5-4.
    Cp56,
    /// Year, month, day, hour, minute, second: a register each.
    Fields,
    /// The same with a seventh register of milliseconds.
    FieldsMs,
    /// Packed decimal in three registers: year and month, day and hour, minute and second.
    BcdClock,
    /// Siemens `DATE_AND_TIME` in four registers: packed decimal, with ms and the day of the week.
    Siemens,
}

/// Every form with its name, which is what the `type` column of a tag list has.
const NAMES: [(&str, Form, ValueType); 13] = [
    ("float16", Form::Half, ValueType::Float32),
    ("bcd16", Form::Bcd, ValueType::UInt16),
    ("bcd32", Form::Bcd, ValueType::UInt32),
    ("bcd64", Form::Bcd, ValueType::UInt64),
    ("datetime[unix32]", Form::Unix32, ValueType::Int64),
    ("datetime[unix64]", Form::Unix64, ValueType::Int64),
    ("datetime[unix64ms]", Form::Unix64Ms, ValueType::Int64),
    ("datetime[cp56]", Form::Cp56, ValueType::Int64),
    ("datetime[ymdhms]", Form::Fields, ValueType::Int64),
    ("datetime[ymdhmsms]", Form::FieldsMs, ValueType::Int64),
    ("datetime[bcd]", Form::BcdClock, ValueType::Int64),
    ("datetime[s7]", Form::Siemens, ValueType::Int64),
    ("", Form::Plain, ValueType::Bool),
];

impl Form {
    /// The form of a name, if readings of type `kind` can have it; the empty name is the type's own bytes.
    pub fn parse(name: &str, kind: ValueType) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _, reads)| *known == name && (name.is_empty() || *reads == kind));
        found.map(|(_, form, _)| *form)
    }

    /// Bytes of a value of type `kind` in its registers; 0 for text.
    pub fn width(self, kind: ValueType) -> usize {
        match self {
            Self::Plain | Self::Bcd => kind.width().next_multiple_of(2),
            Self::Half => 2,
            Self::Unix32 => 4,
            Self::Unix64 | Self::Unix64Ms | Self::Cp56 | Self::Siemens => 8,
            Self::Fields => 12,
            Self::FieldsMs => 14,
            Self::BcdClock => 6,
        }
    }

    /// The value of `raw`, its bytes as a big-endian number. `Err` has the StatusCode of what is none.
    pub(super) fn value(self, kind: ValueType, raw: u64) -> Result<Value<'static>, u32> {
        let time = match self {
            Self::Plain => return plain(kind, raw).ok_or(BAD_DECODING_ERROR),
            Self::Half => return Ok(Value::Real32(half(raw as u16))),
            Self::Bcd => {
                return decimal(raw, kind.width() as u32 * 2).map(Value::Unsigned).ok_or(BAD_DECODING_ERROR);
            }
            Self::Cp56 if raw >> 23 & 1 == 1 => return Err(BAD_SENSOR_FAILURE), // the device's own "not valid"
            Self::Unix32 | Self::Unix64 => scaled(raw, 1_000_000_000),
            Self::Unix64Ms => scaled(raw, 1_000_000),
            Self::Cp56 => cp56(raw),
            Self::BcdClock => packed(raw << 16, 2000),
            Self::Siemens => {
                // S7: years 90 to 99 are 1990 to 1999.
                packed(raw, if raw >> 56 >= 0x90 { 1900 } else { 2000 })
            }
            Self::Fields | Self::FieldsMs => None,
        };
        time.map(Value::Integer).ok_or(BAD_DECODING_ERROR)
    }

    /// The moment of `words`, a register each: year, month, day, hour, minute, second and perhaps ms.
    pub(super) fn fields(words: &[u16]) -> Result<Value<'static>, u32> {
        let time = |words: &[u16]| {
            let (&[year, month, day, hour, minute, second], rest) = words.split_first_chunk::<6>()?;
            let milliseconds = rest.first().map_or(0, |word| u64::from(*word));
            let second = u64::from(second);
            let [month, day, hour, minute] = [month, day, hour, minute].map(u64::from);
            let millisecond = second * 1000 + milliseconds;
            let year = century(u64::from(year));
            (second < 60 && milliseconds < 1000)
                .then_some(Calendar { year, month, day, hour, minute, millisecond })?
                .ns()
        };
        time(words).map(Value::Integer).ok_or(BAD_DECODING_ERROR)
    }
}

#[allow(clippy::match_wildcard_for_single_variants)] // whatever is not one number
fn plain(kind: ValueType, raw: u64) -> Option<Value<'static>> {
    Some(match kind {
        ValueType::Bool => Value::Bool(raw != 0),
        ValueType::Int8 => Value::Integer(i64::from(raw as i8)),
        ValueType::Int16 => Value::Integer(i64::from(raw as i16)),
        ValueType::Int32 => Value::Integer(i64::from(raw as i32)),
        ValueType::Int64 => Value::Integer(raw as i64),
        ValueType::UInt8 => Value::Unsigned(raw & 0xff),
        ValueType::UInt16 | ValueType::UInt32 | ValueType::UInt64 => Value::Unsigned(raw),
        ValueType::Float32 => Value::Real32(f32::from_bits(raw as u32)),
        ValueType::Float64 => Value::Real64(f64::from_bits(raw)),
        _ => return None,
    })
}

/// IEEE 754 binary16, of which every value is a float32.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, bits >> 10 & 0x1f, u32::from(bits & 0x3ff) << 13);
    match exponent {
        // Below 2^-14 there is no leading one: the fraction counts steps of 2^-24.
        0 => f32::from_bits(sign | (f32::from(bits & 0x3ff) / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction),
        exponent => f32::from_bits(sign | (u32::from(exponent) + 112) << 23 | fraction),
    }
}

fn cp56(raw: u64) -> Option<i64> {
    Calendar {
        year: 2000 + (raw >> 48 & 0x7f),
        month: raw >> 40 & 0xf,
        day: raw >> 32 & 0x1f,
        hour: raw >> 24 & 0x1f,
        minute: raw >> 16 & 0x3f,
        millisecond: raw & 0xffff,
    }
    .ns()
}

/// Packed decimal from the top: year, month, day, hour, minute, second, and three digits of ms.
fn packed(raw: u64, century: u64) -> Option<i64> {
    let two = |shift: u32| decimal(raw >> shift, 2);
    let second = two(16).filter(|second| *second < 60)?;
    Calendar {
        year: century + two(56)?,
        month: two(48)?,
        day: two(40)?,
        hour: two(32)?,
        minute: two(24)?,
        millisecond: second * 1000 + decimal(raw >> 4, 3)?,
    }
    .ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(form: Form, raw: u64) -> Option<i64> {
        match form.value(ValueType::Int64, raw) {
            Ok(Value::Integer(ns)) => Some(ns),
            _ => None,
        }
    }

    #[test]
    fn halves_at_their_edges() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 0.000_061_035_156),
            (0x0001, 5.960_464_5e-8),
            (0x8000, -0.0),
            (0x7c00, f32::INFINITY),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits).to_bits(), f32::to_bits(value), "{bits:04x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn the_same_moment_in_every_clock() {
        // 2024-02-29 23:59:58.765 UTC
        const NS: i64 = 1_709_251_198_765_000_000;
        let seconds = (NS / 1_000_000_000) as u64;
        let whole = seconds as i64 * 1_000_000_000;
        assert_eq!(ns(Form::Unix32, seconds), Some(whole));
        assert_eq!(ns(Form::Unix64, seconds), Some(whole));
        assert_eq!(ns(Form::Unix64Ms, NS as u64 / 1_000_000), Some(NS));
        assert_eq!(ns(Form::Cp56, 0x0018_029d_173b_0000 | 0xe58d), Some(NS)); // 0x9d: day 29, a weekday of 4
        assert_eq!(ns(Form::BcdClock, 0x2402_2923_5958), Some(whole));
        assert_eq!(ns(Form::Siemens, 0x2402_2923_5958_7655), Some(NS)); // the last digit is the weekday
        assert_eq!(Form::fields(&[2024, 2, 29, 23, 59, 58, 765]), Ok(Value::Integer(NS)));
        assert_eq!(Form::fields(&[24, 2, 29, 23, 59, 58]), Ok(Value::Integer(whole)));
        assert_eq!(Form::fields(&[1970, 1, 1, 0, 0, 0]), Ok(Value::Integer(0)));
        assert_eq!(ns(Form::Siemens, 0x9912_3123_5959_9996), Some(946_684_799_999_000_000)); // 1999
    }

    #[test]
    fn what_is_no_moment_is_none() {
        assert_eq!(ns(Form::BcdClock, 0x2302_2900_0000), None); // 2023 was no leap year
        assert_eq!(ns(Form::BcdClock, 0x2413_0100_0000), None);
        assert_eq!(ns(Form::BcdClock, 0x240a_0100_0000), None);
        assert_eq!(ns(Form::BcdClock, 0), None);
        assert_eq!(ns(Form::Unix64, u64::MAX), None);
        assert_eq!(ns(Form::Unix64, 1 << 40), None);
        assert_eq!(ns(Form::Cp56, 0x0018_021d_173b_0000 | 0xea60), None);
        assert_eq!(Form::Cp56.value(ValueType::Int64, 0x0018_021d_17bb_0000), Err(BAD_SENSOR_FAILURE));
        assert_eq!(Form::fields(&[2024, 2, 29, 24, 0, 0]), Err(BAD_DECODING_ERROR));
        assert_eq!(Form::fields(&[2024, 2, 29, 23, 0, 60]), Err(BAD_DECODING_ERROR));
        assert_eq!(Form::fields(&[65535; 6]), Err(BAD_DECODING_ERROR));
        assert_eq!(Form::Bcd.value(ValueType::UInt16, 0x12a4), Err(BAD_DECODING_ERROR));
        assert_eq!(
            Form::Bcd.value(ValueType::UInt64, 0x9999_9999_9999_9999),
            Ok(Value::Unsigned(9_999_999_999_999_999))
        );
    }
}
