//! Integers and times. Every type travels as 64 bits (unsigned ones bit for bit), and all arithmetic wraps, so that the
//! extremes of both kinds come back as they were.
//!
//! The form that most columns take is `Delta`: one byte that says how, the first value, and what is left of the others
//! after a prediction, everything in units of the greatest common divisor. The prediction is the value before, or the
//! one before and its difference, or a line from the first value (a clock that ticks evenly and is read a little late).

use super::hint::{self, Form};
use super::predict::{self, Predicted, Prediction};
use super::{Codec, Reader, Sink, Source, broken, put_signed, put_varint, rice, run};
use crate::error::Result;

/// Bits that zstd's table takes for each symbol, about; and Rice codes stay the choice until varints take a twentieth less.
/// Both as they came out best on the signals of docs/benchmarks.md.
const SYMBOL: f32 = 6.0;
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
    let plain = out.plain;
    if let Some(codec) =
        out.hint.form(values.len()).filter(|_| !plain).and_then(|form| again(form, first, &deltas, out))
    {
        return codec;
    }
    out.hint.learn(None);
    let (predicted, bits) = predict::best(first, &deltas);
    if plain || bits / 8 + 2 >= values.len() * width {
        out.soft.extend(values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width)));
        return Codec::Raw;
    }
    let start = out.mark();
    put_head(out, &predicted);
    let head = out.soft.len();
    let (k, rice) = rice::plan(&predicted.rest);
    // What zstd makes of varints is at best their entropy; Rice codes stay as long as they are. Where many bits are
    // left there is no pattern to find, and the varints need not be tried.
    let varints = if out.framed || rice > PATTERNLESS * predicted.rest.len() {
        usize::MAX
    } else {
        for value in &predicted.rest {
            put_signed(&mut out.soft, *value);
        }
        entropy(out.soft.get(head..).unwrap_or_default())
    };
    let dense = rice.min(varints) / 8 + out.since(start) + head - out.soft.len();
    let runs = run::integers(values).filter(|runs| runs.len() < dense);
    let best = runs.as_ref().map_or(dense, Vec::len);
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
    let codec = if rice - rice / 20 > varints { Codec::Delta } else { Codec::Rice };
    let Predicted { prediction, unit, base, ref rest, .. } = predicted;
    out.hint.learn(Some(Form { codec, prediction, based: base != 0, unit, each: hint::each(rice, rest.len()) }));
    if codec == Codec::Rice {
        out.soft.truncate(head);
        out.heads.push(k as u8);
        rice::put(&predicted.rest, k, &mut out.hard);
    }
    codec
}

/// Writes a column in the form that won before, if that still pays.
fn again(form: Form, first: i64, deltas: &[i64], out: &mut Sink) -> Option<Codec> {
    // What is often held may be shorter as runs, which have no form to remember.
    if deltas.iter().filter(|delta| **delta == 0).count() * 4 >= deltas.len() {
        return None;
    }
    let predicted = predict::as_known(first, deltas, form.prediction, form.based, form.unit)?;
    let (k, bits) = rice::plan(&predicted.rest);
    if !hint::holds(form.each, hint::each(bits, predicted.rest.len())) {
        return None;
    }
    put_head(out, &predicted);
    if form.codec == Codec::Rice {
        out.heads.push(k as u8);
        rice::put(&predicted.rest, k, &mut out.hard);
    } else {
        for value in &predicted.rest {
            put_signed(&mut out.soft, *value);
        }
    }
    Some(form.codec)
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

/// Bits that zstd may make of `bytes`: their order-0 entropy, and what its table must know of each symbol.
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
    let bits: f32 = known.map(|count| *count as f32 * (total / *count as f32).log2() + SYMBOL).sum();
    plain.min(bits as usize + 16)
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
    let mut values = if packed {
        let k = u32::from(source.heads.byte()?);
        rice::read(&mut source.hard, k, predicted)?
    } else {
        if reader.rest().len() < predicted {
            return Err(broken("fewer differences than values"));
        }
        let mut rest = Vec::with_capacity(count);
        for _ in 0..predicted {
            rest.push(reader.signed()?);
        }
        rest
    };
    // What was left of each value gives way to the value.
    let mut value = first;
    match head >> 6 {
        0 => {
            for each in &mut values {
                value = value.wrapping_add(*each).wrapping_add(base);
                *each = value.wrapping_mul(unit);
            }
        }
        1 => {
            let mut delta = 0_i64;
            for each in &mut values {
                delta = delta.wrapping_add(*each).wrapping_add(base);
                value = value.wrapping_add(delta);
                *each = value.wrapping_mul(unit);
            }
        }
        2 => {
            for each in &mut values {
                *each = value.wrapping_add(*each).wrapping_mul(unit);
                value = value.wrapping_add(base);
            }
        }
        other => return Err(broken(format!("prediction {other}"))),
    }
    if predicted < count {
        values.insert(0, first.wrapping_mul(unit));
    }
    Ok(values)
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
