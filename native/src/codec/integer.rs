//! Integers and times. Every type travels as 64 bits (unsigned ones bit for bit), and all arithmetic wraps, so that the
//! extremes of both kinds come back as they were.

use super::{Codec, Encoded, Reader, broken, put_signed, put_varint, run, shortest};
use crate::error::Result;

/// The shortest encoding of `values`; `width` is the bytes of one value in the raw form.
pub fn encode(values: &[i64], width: usize) -> Encoded {
    let Some((&first, rest)) = values.split_first() else {
        return (Codec::Constant, Vec::new());
    };
    let deltas: Vec<i64> =
        rest.iter().scan(first, |last, &value| Some(value.wrapping_sub(std::mem::replace(last, value)))).collect();
    let step = deltas.first().copied().unwrap_or(0);
    let mut start = Vec::with_capacity(20);
    put_signed(&mut start, first);
    if deltas.iter().all(|delta| *delta == step) {
        if step == 0 {
            return (Codec::Constant, start);
        }
        put_signed(&mut start, step);
        return (Codec::Step, start);
    }
    let raw = || {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width));
        (Codec::Raw, bytes.collect::<Vec<u8>>())
    };
    let delta = delta(start, &deltas);
    let runs = run::integers(values);
    shortest(delta, [runs, (values.len() * width < 64 || values.len() < 4).then(raw), (width == 1).then(raw)])
}

fn delta(mut out: Vec<u8>, deltas: &[i64]) -> Encoded {
    // A gcd of |i64::MIN| = 2^63 does not fit i64; it only comes from extremes that compress to nothing anyway.
    let unit = deltas.iter().fold(0, |unit, delta| gcd(unit, delta.unsigned_abs()));
    let unit = i64::try_from(unit).unwrap_or(1).max(1);
    let units: Vec<i64> = deltas.iter().map(|delta| delta.wrapping_div(unit)).collect();
    let base = middle(&units);
    put_signed(&mut out, unit);
    put_signed(&mut out, base);
    for value in &units {
        put_signed(&mut out, value.wrapping_sub(base));
    }
    (Codec::Delta, out)
}

/// The median of a sample: what most differences are where a clock ticks and is sometimes late.
fn middle(values: &[i64]) -> i64 {
    let mut sample: Vec<i64> = values.iter().step_by(values.len() / 64 + 1).copied().collect();
    sample.sort_unstable();
    sample.get(sample.len() / 2).copied().unwrap_or(0)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    if a == 1 {
        return 1;
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Reads `count` values back. `signed` says how a raw value narrower than 64 bits is widened.
pub fn decode(codec: Codec, bytes: &[u8], count: usize, width: usize, signed: bool) -> Result<Vec<i64>> {
    let mut reader = Reader::new(bytes);
    if count == 0 {
        reader.end()?;
        return Ok(Vec::new());
    }
    let values = match codec {
        Codec::Constant => vec![reader.signed()?; count],
        Codec::Step => {
            let (mut value, step) = (reader.signed()?, reader.signed()?);
            let mut values = Vec::with_capacity(count);
            for _ in 0..count {
                values.push(value);
                value = value.wrapping_add(step);
            }
            values
        }
        Codec::Delta => {
            let (mut value, unit, base) = (reader.signed()?, reader.signed()?, reader.signed()?);
            if reader.rest().len() < count - 1 {
                return Err(broken("fewer differences than values"));
            }
            let mut values = Vec::with_capacity(count);
            values.push(value);
            for _ in 1..count {
                let delta = reader.signed()?.wrapping_add(base).wrapping_mul(unit);
                value = value.wrapping_add(delta);
                values.push(value);
            }
            values
        }
        Codec::Run => run::read_integers(&mut reader, count)?,
        Codec::Raw => {
            let bytes = reader.take(count.checked_mul(width).ok_or_else(|| broken("column too long"))?)?;
            bytes.chunks_exact(width.max(1)).map(|chunk| widen(chunk, signed)).collect()
        }
        other => return Err(broken(format!("codec {} on integers", other.name()))),
    };
    reader.end()?;
    Ok(values)
}

fn widen(chunk: &[u8], signed: bool) -> i64 {
    let value = chunk.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let unused = 64_u32.saturating_sub(8 * chunk.len() as u32);
    if signed && unused < 64 { ((value << unused) as i64) >> unused } else { value as i64 }
}

/// Appends a whole integer column with its codec and length in front, for use inside other codecs.
pub(crate) fn put_nested(out: &mut Vec<u8>, values: &[i64]) {
    let (codec, bytes) = encode(values, 8);
    out.push(codec as u8);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

/// Reads what `put_nested` wrote.
pub(crate) fn read_nested(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>> {
    let codec = Codec::from_id(reader.byte()?).ok_or_else(|| broken("unknown inner codec"))?;
    let length = reader.count(reader.rest().len(), "bytes")?;
    decode(codec, reader.take(length)?, count, 8, true)
}
