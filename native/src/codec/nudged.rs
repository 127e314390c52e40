//! Nearly decimals: what a factor such as 0.1 leaves, or a mean. 3 * 0.1 is 0.30000000000000004, the neighbour of 0.3. Such
//! a value is kept as digits of a short decimal, and as the steps from that to the value, which are few and small.

use super::decimal::{Digits, EXACT, POWERS, ROUND};
use super::real::Real;
use super::{Hint, Reader, Sink, Source, broken, decimal, integer, put_varint};
use crate::error::Result;

/// The most steps that a value may be off; others are exceptions.
const MOST: i64 = 4;

/// The digits of the nearest decimal, and the steps from there to the value.
fn near<T: Real>(value: T, power: f64) -> Option<(i64, i64)> {
    let scaled = value.widen() * power;
    if scaled.is_nan() || scaled.abs() >= EXACT {
        return None;
    }
    let digits = ((scaled + ROUND) - ROUND) as i64;
    let steps = value.bits().wrapping_sub(T::narrow(digits as f64 / power).bits()) as i64;
    (-MOST..=MOST).contains(&steps).then_some((digits, steps))
}

/// The stream, if the values have one, and fewer of them are exceptions than `most` (which `Decimal` has).
pub(super) fn encode<T: Real>(values: &[T], most: usize) -> Option<Vec<u8>> {
    let exponent = decimal::exponent(values, |value, power| near(value, power).is_some())?;
    let power = *POWERS.get(exponent)?;
    let (mut integers, mut steps) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
    let mut exceptions = Vec::new();
    let mut last = 0;
    for (index, value) in values.iter().enumerate() {
        let (digits, off) = near(*value, power).unwrap_or_else(|| {
            exceptions.push((index, value.bits()));
            (last, 0)
        });
        last = digits;
        integers.push(digits);
        steps.push(off);
    }
    let mut parts = Sink { framed: true, ..Sink::default() };
    if exceptions.len() >= most {
        return None;
    }
    Digits { exponent, integers, exceptions }.put::<T>(&mut parts)?;
    parts.hint = Hint::default();
    integer::put_nested(&mut parts, &steps);
    let mut out = Vec::with_capacity(parts.since([0; 3]) + 4);
    put_varint(&mut out, parts.heads.len() as u64);
    put_varint(&mut out, parts.soft.len() as u64);
    for part in [parts.heads, parts.soft, parts.hard] {
        out.extend_from_slice(&part);
    }
    Some(out)
}

/// Reads `count` values back; they must be all that there is.
pub(super) fn decode<T: Real>(reader: &mut Reader<'_>, count: usize) -> Result<Vec<T>> {
    let heads = reader.count(reader.rest().len(), "bytes of heads")?;
    let soft = reader.count(reader.rest().len(), "bytes of a soft part")?;
    let (heads, soft) = (Reader::new(reader.take(heads)?), Reader::new(reader.take(soft)?));
    let hard = Reader::new(reader.take(reader.rest().len())?);
    let mut source = Source { heads, soft, hard };
    let mut values: Vec<T> = decimal::decode(&mut source, count)?;
    let steps = integer::read_nested(&mut source, count)?;
    for part in [&source.heads, &source.soft, &source.hard] {
        part.end().map_err(|_| broken("nudged: another number of values"))?;
    }
    for (value, steps) in values.iter_mut().zip(steps) {
        *value = T::from_bits(value.bits().wrapping_add(steps as u64));
    }
    Ok(values)
}
