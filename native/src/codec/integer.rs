//! Integers and times. Every type travels as 64 bits (unsigned ones bit for bit), and all arithmetic wraps, so that the
//! extremes of both kinds come back as they were.
//!
//! The form that most columns take is `Delta`: one byte that says how, the first value, and what is left of the others
//! after a prediction, everything in units of the greatest common divisor. The prediction is the value before, or the
//! one before and its difference, or a line from the first value (a clock that ticks evenly and is read a little late).

use super::{Codec, Reader, Sink, Source, broken, put_signed, put_varint, rice, run, zigzag};
use crate::error::Result;

/// How `Delta` predicts the next value; two bits of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Prediction {
    /// The value before, plus the base.
    Previous = 0,
    /// The value before, plus the difference before that, plus the base.
    Trend = 1,
    /// A line: its start (in place of the first value), plus the base for every place; the first value is predicted too.
    Line = 2,
}

/// Bits a value past which Rice codes are not compared with varints.
const PATTERNLESS: usize = 10;
/// An exponent that stands for "the unit is written out".
const WRITTEN: u8 = 31;
const HAS_BASE: u8 = 1 << 5;

/// Appends the shortest encoding of `values`, and says which it is; `width` is the bytes of one value in the raw form.
pub fn encode(values: &[i64], width: usize, out: &mut Sink) -> Codec {
    let Some((&first, rest)) = values.split_first() else { return Codec::Constant };
    let mut last = first;
    let deltas: Vec<i64> = rest.iter().map(|&value| value.wrapping_sub(std::mem::replace(&mut last, value))).collect();
    let step = deltas.first().copied().unwrap_or(0);
    if deltas.iter().all(|delta| *delta == step) {
        put_signed(&mut out.soft, first);
        if step == 0 {
            return Codec::Constant;
        }
        put_signed(&mut out.soft, step);
        return Codec::Step;
    }
    let (predicted, bits) = predict(first, &deltas);
    if out.plain || bits / 8 + 2 >= values.len() * width {
        out.soft.extend(values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width)));
        return Codec::Raw;
    }
    let start = out.mark();
    put_head(out, &predicted);
    let head = out.soft.len();
    let (k, rice) = rice::plan(&predicted.rest);
    // What zstd makes of varints is at best their entropy; Rice codes stay as long as they are. Where many bits are
    // left there is no pattern to find, and the varints need not be tried.
    let varints = if rice > PATTERNLESS * predicted.rest.len() {
        usize::MAX
    } else {
        for value in &predicted.rest {
            put_signed(&mut out.soft, *value);
        }
        entropy(out.soft.get(head..).unwrap_or_default())
    };
    let coded = rice.min(varints) / 8 + out.since(start) + head - out.soft.len();
    let runs = run::integers(values).filter(|runs| runs.len() < coded);
    let best = runs.as_ref().map_or(coded, Vec::len);
    if let Some(held) = hold(first, values, &deltas, best) {
        out.rewind(start);
        out.append(held);
        return Codec::Hold;
    }
    if let Some(runs) = runs {
        out.rewind(start);
        out.soft.extend_from_slice(&runs);
        return Codec::Run;
    }
    if rice > varints {
        return Codec::Delta;
    }
    out.soft.truncate(head);
    out.heads.push(k as u8);
    rice::put(&predicted.rest, k, &mut out.hard);
    Codec::Rice
}

/// A column whose values are often held: which of them are new, and those. `None` where it takes `best` bytes or more.
fn hold(first: i64, values: &[i64], deltas: &[i64], best: usize) -> Option<Sink> {
    let changes = deltas.iter().filter(|delta| **delta != 0).count();
    if changes * 4 > deltas.len() * 3 {
        return None;
    }
    let mut held = Sink::default();
    let bits =
        deltas.chunks(8).map(|chunk| chunk.iter().rev().fold(0_u8, |byte, each| byte << 1 | u8::from(*each != 0)));
    held.soft.extend(bits);
    let later = values.iter().skip(1).zip(deltas).filter(|(_, delta)| **delta != 0).map(|(value, _)| *value);
    let new: Vec<i64> = std::iter::once(first).chain(later).collect();
    put_nested(&mut held, &new);
    (held.since([0; 3]) < best).then_some(held)
}

fn read_held(source: &mut Source<'_>, count: usize) -> Result<Vec<i64>> {
    let bits = source.soft.take((count - 1).div_ceil(8))?;
    let is_new = |at: usize| bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    let new = (0..count - 1).filter(|at| is_new(*at)).count() + 1;
    // Held values of held values would let a few bytes send the reader as deep as they like.
    let codec = inner(source)?;
    if codec == Codec::Hold {
        return Err(broken("hold within hold"));
    }
    let mut new = decode(codec, source, new, 8, true)?.into_iter();
    let mut value = new.next().unwrap_or(0);
    let mut values = Vec::with_capacity(count);
    values.push(value);
    for at in 0..count - 1 {
        if is_new(at) {
            value = new.next().unwrap_or(value);
        }
        values.push(value);
    }
    Ok(values)
}

/// Bits that zstd may make of `bytes`: their order-0 entropy, and half a byte for each symbol that its table must know.
/// Without that a short column seems to cost little only because it is short.
fn entropy(bytes: &[u8]) -> usize {
    let plain = bytes.len() * 8;
    if bytes.len() < 24 {
        return plain;
    }
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = bytes.len() as f32;
    let known = counts.iter().filter(|count| **count > 0);
    let bits: f32 = known.map(|count| *count as f32 * (total / *count as f32).log2() + 4.0).sum();
    plain.min(bits as usize + 16)
}

/// What `Delta` writes: everything in units.
struct Predicted {
    prediction: Prediction,
    unit: i64,
    first: i64,
    base: i64,
    rest: Vec<i64>,
}

/// The prediction that leaves least, and the bits that it leaves, about.
fn predict(first: i64, deltas: &[i64]) -> (Predicted, usize) {
    // A gcd of |i64::MIN| = 2^63 does not fit i64; it only comes from extremes that compress to nothing anyway.
    let mut unit = first.unsigned_abs();
    for delta in deltas {
        unit = gcd(unit, delta.unsigned_abs());
        if unit == 1 {
            break;
        }
    }
    let unit = i64::try_from(unit).unwrap_or(1).max(1);
    let units: Vec<i64> =
        if unit == 1 { deltas.to_vec() } else { deltas.iter().map(|each| each.wrapping_div(unit)).collect() };
    let first = first.wrapping_div(unit);
    let base = middle(&units);
    // A base costs bytes of its own: where it is small against what is left it is not worth them.
    let plain = cost(units.iter().copied());
    let based = cost(units.iter().map(|each| each.wrapping_sub(base))) + 8 * 2;
    let (mut best, mut bits, mut base) =
        if based < plain { (Prediction::Previous, based, base) } else { (Prediction::Previous, plain, 0) };
    let mut line = Vec::new();
    let (mut start, slope) = (0, slope(&units));
    if units.len() > 3 {
        // A line through the middle of the residuals, not through a first value that may itself be late.
        line = residuals(&units, slope).collect();
        start = middle(&line);
        for each in &mut line {
            *each = each.wrapping_sub(start);
        }
        let lined = cost(line.iter().copied()) + 8 * 2;
        if lined < bits {
            (best, bits, base) = (Prediction::Line, lined, slope);
        }
        let trend = cost(trends(&units)) + 8;
        if trend < bits {
            (best, bits, base) = (Prediction::Trend, trend, 0);
        }
    }
    let rest = match best {
        Prediction::Previous => units.iter().map(|each| each.wrapping_sub(base)).collect(),
        Prediction::Trend => trends(&units).collect(),
        Prediction::Line => line,
    };
    let first = if best == Prediction::Line { first.wrapping_add(start) } else { first };
    (Predicted { prediction: best, unit, first, base, rest }, bits)
}

fn trends(units: &[i64]) -> impl Iterator<Item = i64> {
    let mut last = 0;
    units.iter().map(move |&each| each.wrapping_sub(std::mem::replace(&mut last, each)))
}

/// How far each value, the first included, lies from the line through the first.
fn residuals(units: &[i64], slope: i64) -> impl Iterator<Item = i64> {
    let mut off = 0_i64;
    std::iter::once(0).chain(units.iter().map(move |each| {
        off = off.wrapping_add(each.wrapping_sub(slope));
        off
    }))
}

/// The mean step, rounded: the line through the first and the last value.
fn slope(units: &[i64]) -> i64 {
    let total: i128 = units.iter().map(|each| i128::from(*each)).sum();
    let count = units.len().max(1) as i128;
    i64::try_from((total + count / 2).div_euclid(count)).unwrap_or(0)
}

/// Bits that an entropy coder would need, about: the magnitude, and one for the choice.
fn cost(values: impl Iterator<Item = i64>) -> usize {
    values.map(|value| 65 - zigzag(value).leading_zeros() as usize).sum()
}

fn put_head(out: &mut Sink, predicted: &Predicted) {
    let exponent =
        (0..19).find(|exponent| 10_i64.checked_pow(*exponent) == Some(predicted.unit)).map(|found| found as u8);
    let has_base = predicted.base != 0;
    out.heads
        .push(exponent.unwrap_or(WRITTEN) | if has_base { HAS_BASE } else { 0 } | (predicted.prediction as u8) << 6);
    if exponent.is_none() {
        put_signed(&mut out.soft, predicted.unit);
    }
    put_signed(&mut out.soft, predicted.first);
    if has_base {
        put_signed(&mut out.soft, predicted.base);
    }
}

/// Reads what `Delta` (varints) or `Rice` wrote.
fn read_predicted(source: &mut Source<'_>, count: usize, packed: bool) -> Result<Vec<i64>> {
    let head = source.heads.byte()?;
    let reader = &mut source.soft;
    let unit = match head & 31 {
        WRITTEN => reader.signed()?,
        exponent => 10_i64.checked_pow(u32::from(exponent)).ok_or_else(|| broken("a unit past 10^18"))?,
    };
    let first = reader.signed()?;
    let base = if head & HAS_BASE == 0 { 0 } else { reader.signed()? };
    let predicted = if head >> 6 == Prediction::Line as u8 { count } else { count - 1 };
    let rest: Vec<i64> = if packed {
        let k = u32::from(source.heads.byte()?);
        rice::read(&mut source.hard, k, predicted)?
    } else {
        if reader.rest().len() < predicted {
            return Err(broken("fewer differences than values"));
        }
        (0..predicted).map(|_| reader.signed()).collect::<Result<_>>()?
    };
    let mut values = Vec::with_capacity(count);
    let mut value = first;
    if predicted < count {
        values.push(value.wrapping_mul(unit));
    }
    match head >> 6 {
        0 => {
            for each in rest {
                value = value.wrapping_add(each).wrapping_add(base);
                values.push(value.wrapping_mul(unit));
            }
        }
        1 => {
            let mut delta = 0_i64;
            for each in rest {
                delta = delta.wrapping_add(each).wrapping_add(base);
                value = value.wrapping_add(delta);
                values.push(value.wrapping_mul(unit));
            }
        }
        2 => {
            for each in rest {
                values.push(value.wrapping_add(each).wrapping_mul(unit));
                value = value.wrapping_add(base);
            }
        }
        other => return Err(broken(format!("prediction {other}"))),
    }
    Ok(values)
}

/// The median of a sample: what most differences are where a clock ticks and is sometimes late.
fn middle(values: &[i64]) -> i64 {
    let mut sample = [0_i64; 64];
    let mut count = 0;
    for (slot, value) in sample.iter_mut().zip(values.iter().step_by(values.len() / 64 + 1)) {
        *slot = *value;
        count += 1;
    }
    let taken = sample.get_mut(..count).unwrap_or_default();
    taken.sort_unstable();
    taken.get(count / 2).copied().unwrap_or(0)
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
pub fn decode(codec: Codec, source: &mut Source<'_>, count: usize, width: usize, signed: bool) -> Result<Vec<i64>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match codec {
        Codec::Constant => Ok(vec![source.soft.signed()?; count]),
        Codec::Step => {
            let (mut value, step) = (source.soft.signed()?, source.soft.signed()?);
            let mut values = Vec::with_capacity(count);
            for _ in 0..count {
                values.push(value);
                value = value.wrapping_add(step);
            }
            Ok(values)
        }
        Codec::Delta => read_predicted(source, count, false),
        Codec::Rice => read_predicted(source, count, true),
        Codec::Hold => read_held(source, count),
        Codec::Run => run::read_integers(&mut source.soft, count),
        Codec::Raw => {
            let bytes = source.soft.take(count.checked_mul(width).ok_or_else(|| broken("column too long"))?)?;
            Ok(bytes.chunks_exact(width.max(1)).map(|chunk| widen(chunk, signed)).collect())
        }
        other => Err(broken(format!("codec {} on integers", other.name()))),
    }
}

fn widen(chunk: &[u8], signed: bool) -> i64 {
    let value = chunk.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let unused = 64_u32.saturating_sub(8 * chunk.len() as u32);
    if signed && unused < 64 { ((value << unused) as i64) >> unused } else { value as i64 }
}

/// Appends a whole integer column with its codec in front, for use inside other codecs.
pub(crate) fn put_nested(out: &mut Sink, values: &[i64]) {
    let place = out.heads.len();
    out.heads.push(0);
    let codec = encode(values, 8, out);
    if let Some(byte) = out.heads.get_mut(place) {
        *byte = codec as u8;
    }
}

/// Reads what `put_nested` wrote.
pub(crate) fn read_nested(source: &mut Source<'_>, count: usize) -> Result<Vec<i64>> {
    let codec = inner(source)?;
    decode(codec, source, count, 8, true)
}

fn inner(source: &mut Source<'_>) -> Result<Codec> {
    Codec::from_id(source.heads.byte()?).ok_or_else(|| broken("unknown inner codec"))
}

/// Appends a small array of a directory: one value where all are equal, one start where they count up, or each.
pub(crate) fn put_array(out: &mut Vec<u8>, values: &[u64]) {
    let first = values.first().copied().unwrap_or(0);
    if values.iter().all(|value| *value == first) {
        out.push(0);
        put_varint(out, first);
    } else if values.iter().zip(first..).all(|(value, wanted)| *value == wanted) {
        out.push(1);
        put_varint(out, first);
    } else {
        out.push(2);
        for value in values {
            put_varint(out, *value);
        }
    }
}

/// Reads what `put_array` wrote.
pub(crate) fn read_array(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u64>> {
    match reader.byte()? {
        0 => Ok(vec![reader.varint()?; count]),
        1 => {
            let first = reader.varint()?;
            Ok((0..count as u64).map(|at| first.wrapping_add(at)).collect())
        }
        2 if reader.rest().len() >= count => (0..count).map(|_| reader.varint()).collect(),
        2 => Err(broken("cut short")),
        other => Err(broken(format!("array form {other}"))),
    }
}
