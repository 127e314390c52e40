//! Floating-point columns: decimals, nearly decimals, what pcodec makes of the rest, or their bits as they are.

use super::{Codec, Reader, Sink, Source, broken, decimal, nudged, pco, put_varint};
use crate::error::Result;

/// Bytes that a stream's length takes, as a rule.
const LENGTH: usize = 2;

/// The two floating types, as the codec sees them: bits of a width.
pub trait Real: Copy + ::pco::data_types::Number {
    /// Bytes of a value.
    const WIDTH: usize;
    /// The value at float64.
    fn widen(self) -> f64;
    /// The nearest value of this type.
    fn narrow(value: f64) -> Self;
    /// The bits, in the low bytes.
    fn bits(self) -> u64;
    /// The value of these bits.
    fn from_bits(bits: u64) -> Self;
}

impl Real for f32 {
    const WIDTH: usize = 4;
    fn widen(self) -> f64 {
        f64::from(self)
    }
    fn narrow(value: f64) -> Self {
        value as f32
    }
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
}

impl Real for f64 {
    const WIDTH: usize = 8;
    fn widen(self) -> f64 {
        self
    }
    fn narrow(value: f64) -> Self {
        value
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits)
    }
}

/// Appends the shortest encoding of `values`, and says which it is.
pub fn encode<T: Real>(values: &[T], out: &mut Sink) -> Codec {
    let Some(first) = values.first() else { return Codec::Constant };
    if values.iter().all(|value| value.bits() == first.bits()) {
        put(*first, &mut out.soft);
        return Codec::Constant;
    }
    let start = out.mark();
    let raw = values.len() * T::WIDTH;
    let exceptions = if out.plain { None } else { decimal::encode(values, out) };
    let mut short = if exceptions.is_some() { out.since(start) } else { raw };
    let mut codec = if exceptions.is_some() { Codec::Decimal } else { Codec::Raw };
    if !out.plain && !out.hint.nudged_lost && exceptions != Some(0) {
        let packed = nudged::encode(values, exceptions.unwrap_or(values.len()));
        out.hint.nudged_lost = packed.as_ref().is_none_or(|packed| packed.len() > short + short / 8);
        if let Some(packed) = packed.filter(|packed| packed.len() + LENGTH < short) {
            out.rewind(start);
            put_framed(&packed, out);
            (short, codec) = (packed.len() + LENGTH, Codec::Nudged);
        }
    }
    let dense = !out.plain && values.len() >= pco::LEAST && short * 8 >= pco::DENSE * values.len();
    if dense && !out.hint.pco_lost {
        let packed = pco::encode(values);
        out.hint.pco_lost = packed.as_ref().is_none_or(|packed| packed.len() > short + short / 8);
        if let Some(packed) = packed.filter(|packed| packed.len() + LENGTH < short) {
            out.rewind(start);
            put_framed(&packed, out);
            return Codec::Pco;
        }
    }
    if short < raw {
        return codec;
    }
    out.rewind(start);
    for value in values {
        put(*value, &mut out.soft);
    }
    Codec::Raw
}

fn put_framed(packed: &[u8], out: &mut Sink) {
    put_varint(&mut out.soft, packed.len() as u64);
    out.hard.extend_from_slice(packed);
}

pub(super) fn put<T: Real>(value: T, out: &mut Vec<u8>) {
    out.extend(value.bits().to_le_bytes().into_iter().take(T::WIDTH));
}

/// Reads `count` values back.
pub fn decode<T: Real>(codec: Codec, source: &mut Source<'_>, count: usize) -> Result<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let reader = &mut source.soft;
    match codec {
        Codec::Constant => Ok(vec![T::from_bits(bits(reader, T::WIDTH)?); count]),
        Codec::Raw => {
            if reader.rest().len() / T::WIDTH < count {
                return Err(broken("fewer floats than readings"));
            }
            (0..count).map(|_| bits(reader, T::WIDTH).map(T::from_bits)).collect()
        }
        Codec::Decimal => decimal::decode(source, count),
        Codec::Nudged => nudged::decode(&mut source.hard, count),
        Codec::Pco => pco::decode(&mut source.hard, count),
        other => Err(broken(format!("codec {} on floats", other.name()))),
    }
}

pub(super) fn bits(reader: &mut Reader<'_>, width: usize) -> Result<u64> {
    Ok(reader.take(width)?.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
}
