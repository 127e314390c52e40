//! Runs of equal values: states, StatusCodes, presence. And the bitmap for bools that flicker.

use super::{Codec, Reader, broken, put_signed, put_varint};
use crate::error::Result;

/// A column kept as runs while it is still open. Almost every quality column is one run, which takes no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs<T> {
    runs: Few<(u32, T)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Few<T> {
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { runs: Few::None }
    }
}

impl<T: Copy> Few<T> {
    fn push(&mut self, value: T) {
        match self {
            Self::None => *self = Self::One(value),
            Self::One(first) => *self = Self::Many(vec![*first, value]),
            Self::Many(values) => values.push(value),
        }
    }

    fn all(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    fn last_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::None => None,
            Self::One(value) => Some(value),
            Self::Many(values) => values.last_mut(),
        }
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    /// Appends one value.
    #[inline]
    pub fn push(&mut self, value: T) {
        match self.runs.last_mut() {
            Some((length, last)) if *last == value && *length < u32::MAX => *length += 1,
            _ => self.runs.push((1, value)),
        }
    }

    /// `count` times the same value.
    pub fn of(value: T, count: usize) -> Self {
        let length = u32::try_from(count).unwrap_or(u32::MAX);
        Self { runs: if length == 0 { Few::None } else { Few::One((length, value)) } }
    }

    /// Whether every value is `value` (true for none).
    pub fn all(&self, value: T) -> bool {
        self.runs().iter().all(|(_, each)| *each == value)
    }

    /// The values one by one.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.runs().iter().flat_map(|(length, value)| std::iter::repeat_n(*value, *length as usize))
    }

    /// The runs: length and value.
    pub fn runs(&self) -> &[(u32, T)] {
        self.runs.all()
    }
}

/// Appends runs of numbers: varint length and varint value each.
pub fn encode<T: Copy + PartialEq + Into<u64>>(runs: &Runs<T>, out: &mut Vec<u8>) {
    for (length, value) in runs.runs() {
        put_varint(out, u64::from(*length));
        put_varint(out, (*value).into());
    }
}

/// Reads runs that together have `count` values.
pub fn decode<T: Copy + PartialEq + TryFrom<u64>>(reader: &mut Reader<'_>, count: usize) -> Result<Runs<T>> {
    let mut found = Runs::default();
    let mut left = count;
    while left > 0 {
        let length = run_length(reader, left)?;
        let value = T::try_from(reader.varint()?).map_err(|_| broken("run of a value out of range"))?;
        found.runs.push((length as u32, value));
        left -= length;
    }
    Ok(found)
}

/// Reads runs of 0 and 1.
pub fn decode_flags(reader: &mut Reader<'_>, count: usize) -> Result<Runs<u8>> {
    let found = decode(reader, count)?;
    // Another number would be true to one reader, and an error to the next.
    if found.runs().iter().all(|(_, value)| *value <= 1) { Ok(found) } else { Err(broken("a flag that is not 0 or 1")) }
}

fn run_length(reader: &mut Reader<'_>, left: usize) -> Result<usize> {
    let length = reader.count(left, "values in a run")?;
    // An empty run would let a few bytes hold the reader for ever.
    if length == 0 { Err(broken("empty run")) } else { Ok(length) }
}

/// Runs of integers, where that can pay; `None` where it can't.
pub(crate) fn integers(values: &[i64]) -> Option<Vec<u8>> {
    let changes = values.iter().zip(values.get(1..)?).filter(|(a, b)| a != b).count();
    if changes * 3 > values.len() {
        return None;
    }
    let mut runs = Runs::default();
    for value in values {
        runs.push(*value);
    }
    let mut out = Vec::new();
    for (length, value) in runs.runs() {
        put_varint(&mut out, u64::from(*length));
        put_signed(&mut out, *value);
    }
    Some(out)
}

/// Reads what `integers` wrote.
pub(crate) fn read_integers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let length = run_length(reader, count - values.len())?;
        let value = reader.signed()?;
        values.resize(values.len() + length, value);
    }
    Ok(values)
}

/// Appends the shortest encoding of bools, and says which it is.
pub fn encode_bools(values: &[bool], out: &mut Vec<u8>) -> Codec {
    let mut runs = Runs::default();
    for value in values {
        runs.push(u8::from(*value));
    }
    match runs.runs() {
        [] => return Codec::Constant,
        [(_, value)] => {
            out.push(*value);
            return Codec::Constant;
        }
        _ => {}
    }
    let start = out.len();
    encode(&runs, out);
    if out.len() - start < values.len().div_ceil(8) {
        return Codec::Run;
    }
    out.truncate(start);
    out.extend(values.chunks(8).map(|chunk| chunk.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit))));
    Codec::Bitmap
}

/// Reads `count` bools back.
pub fn decode_bools(codec: Codec, reader: &mut Reader<'_>, count: usize) -> Result<Vec<bool>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match codec {
        Codec::Constant => match reader.byte()? {
            value @ 0..=1 => Ok(vec![value == 1; count]),
            _ => Err(broken("a constant bool is 0 or 1")),
        },
        Codec::Run => Ok(decode_flags(reader, count)?.iter().map(|value| value != 0).collect()),
        Codec::Bitmap => {
            let bytes = reader.take(count.div_ceil(8))?;
            Ok(bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).take(count).collect())
        }
        other => Err(broken(format!("codec {} on bools", other.name()))),
    }
}
