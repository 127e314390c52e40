//! `delta`, `rice`, `hold`, `decimal` against a writer that follows docs/block-format.md word by word, and shares nothing
//! with the encoder: every form that the page allows is read, not only those that the encoder chooses.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::codec::{Codec, Reader, Sink, Source, integer, put_signed, put_varint, real, zigzag};
use _native::error::Result;

use crate::columns::cases;

const WRITTEN: u8 = 31;
const HAS_BASE: u8 = 32;

fn decode(codec: Codec, sink: &Sink, count: usize) -> Result<Vec<i64>> {
    let mut source = whole(sink);
    let found = integer::decode(codec, &mut source, count, 8, true)?;
    source.heads.end()?;
    source.soft.end()?;
    source.hard.end()?;
    Ok(found)
}

fn whole(sink: &Sink) -> Source<'_> {
    let [heads, soft, hard] = [&sink.heads, &sink.soft, &sink.hard].map(|bytes| Reader::new(bytes));
    Source { heads, soft, hard }
}

/// Bits into bytes, the first into the least significant bit.
fn bytes_of(bits: &[bool]) -> Vec<u8> {
    let byte = |chunk: &[bool]| chunk.iter().enumerate().map(|(at, bit)| u8::from(*bit) << at).sum();
    bits.chunks(8).map(byte).collect()
}

/// Rice codes, a bit at a time.
fn rice(values: &[i64], k: u32) -> Vec<u8> {
    let mut bits = Vec::new();
    for value in values {
        let value = zigzag(*value);
        let low = |count: u32| (0..count).map(move |at| value >> at & 1 == 1);
        if value >> k < 20 {
            bits.extend((0..value >> k).map(|_| false));
            bits.push(true);
            bits.extend(low(k));
        } else {
            bits.extend([false; 20]);
            bits.extend(low(64));
        }
    }
    bytes_of(&bits)
}

/// How a column of `delta` or `rice` is written.
#[derive(Debug, Clone)]
struct Form {
    prediction: u8,
    exponent: Option<u8>,
    unit: i64,
    first: i64,
    base: Option<i64>,
    k: Option<u32>,
}

impl Form {
    fn write(&self, rest: &[i64]) -> (Codec, Sink) {
        let mut out = Sink::default();
        let has_base = if self.base.is_some() { HAS_BASE } else { 0 };
        out.heads.push(self.exponent.unwrap_or(WRITTEN) | has_base | self.prediction << 6);
        if self.exponent.is_none() {
            put_signed(&mut out.soft, self.unit);
        }
        put_signed(&mut out.soft, self.first);
        if let Some(base) = self.base {
            put_signed(&mut out.soft, base);
        }
        if let Some(k) = self.k {
            out.heads.push(k as u8);
            out.hard = rice(rest, k);
            return (Codec::Rice, out);
        }
        for each in rest {
            put_signed(&mut out.soft, *each);
        }
        (Codec::Delta, out)
    }

    /// What the page says that comes out.
    fn values(&self, rest: &[i64]) -> Vec<i64> {
        let unit = i128::from(self.exponent.map_or(self.unit, |exponent| 10_i64.pow(u32::from(exponent))));
        let (first, base) = (i128::from(self.first), i128::from(self.base.unwrap_or(0)));
        let rest = rest.iter().map(|each| i128::from(*each));
        let units: Vec<i128> = match self.prediction {
            0 => std::iter::once(first)
                .chain(rest.scan(first, |value, each| {
                    *value += each + base;
                    Some(*value)
                }))
                .collect(),
            1 => std::iter::once(first)
                .chain(rest.scan((first, 0), |(value, delta), each| {
                    *delta = (*delta + each + base) as i64 as i128;
                    *value = (*value + *delta) as i64 as i128;
                    Some(*value)
                }))
                .collect(),
            _ => rest.enumerate().map(|(at, each)| first + at as i128 * base + each).collect(),
        };
        units.into_iter().map(|each| (i128::from(each as i64) * unit) as i64).collect()
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -20_i64..20, 2 => -100_000_i64..100_000, 1 => any::<i64>(),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, -1, 0])]
}

fn form() -> impl Strategy<Value = Form> {
    (0_u8..3, prop::option::of(0_u8..19), number(), number(), prop::option::of(number()), prop::option::of(0_u32..57))
        .prop_map(|(prediction, exponent, unit, first, base, k)| Form { prediction, exponent, unit, first, base, k })
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn every_prediction_in_every_form(form in form(), rest in vec(number(), 0..60)) {
        let count = rest.len() + usize::from(form.prediction != 2);
        prop_assume!(count > 0);
        let (codec, sink) = form.write(&rest);
        prop_assert_eq!(decode(codec, &sink, count).unwrap(), form.values(&rest));
        // One value more is not there, unless the last byte has bits enough for another.
        if form.k.is_none() {
            prop_assert!(decode(codec, &sink, count + 1).is_err());
        }
        let short = Sink { hard: sink.hard[..sink.hard.len().saturating_sub(1)].to_vec(), ..sink };
        prop_assert!(form.k.is_none() || rest.is_empty() || decode(codec, &short, count).is_err());
    }

    #[test]
    fn held_values_in_every_pattern(new in vec(any::<bool>(), 0..70), seed in number()) {
        let fresh: Vec<i64> = (0..=new.iter().filter(|new| **new).count() as i64).map(|at| seed ^ at).collect();
        let mut sink = Sink { heads: vec![Codec::Raw as u8], soft: bytes_of(&new), ..Sink::default() };
        sink.soft.extend(fresh.iter().flat_map(|value| value.to_le_bytes()));
        let mut next = 0;
        let later = new.iter().map(|new| {
            next += usize::from(*new);
            fresh[next]
        });
        let expected: Vec<i64> = std::iter::once(fresh[0]).chain(later).collect();
        prop_assert_eq!(decode(Codec::Hold, &sink, expected.len()).unwrap(), expected);
    }

    #[test]
    fn decimals_with_exceptions_anywhere(
        exponent in 0_u8..23,
        digits in vec(number(), 1..40),
        odd in prop::collection::btree_map(0_usize..40, any::<u64>(), 0..40),
    ) {
        let odd: Vec<(usize, u64)> = odd.into_iter().filter(|(place, _)| *place < digits.len()).collect();
        let mut sink = Sink { heads: vec![exponent | if odd.is_empty() { 0 } else { 32 }, Codec::Raw as u8], ..Sink::default() };
        if !odd.is_empty() {
            put_varint(&mut sink.soft, odd.len() as u64);
        }
        let mut next = 0;
        for (place, bits) in &odd {
            put_varint(&mut sink.soft, (place - next) as u64);
            sink.soft.extend(bits.to_le_bytes());
            next = place + 1;
        }
        sink.soft.extend(digits.iter().flat_map(|value| value.to_le_bytes()));
        let power: f64 = format!("1e{exponent}").parse().unwrap();
        let mut expected: Vec<u64> = digits.iter().map(|digits| (*digits as f64 / power).to_bits()).collect();
        for (place, bits) in odd {
            expected[place] = bits;
        }
        let found: Vec<f64> = real::decode(Codec::Decimal, &mut whole(&sink), digits.len()).unwrap();
        prop_assert_eq!(found.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn hold_within_hold_is_refused() {
    let levels = 100_000;
    let sink = Sink { heads: vec![Codec::Hold as u8; levels], soft: vec![0xff; levels], ..Sink::default() };
    assert_eq!(decode(Codec::Hold, &sink, 8).unwrap_err().to_string(), "not a readable block: hold within hold");
}

#[test]
fn a_nested_column_is_of_integers_and_of_a_codec_that_is_known() {
    for (inner, message) in [
        (Codec::Decimal as u8, "codec decimal on integers"),
        (Codec::Dictionary as u8, "codec dictionary on integers"),
        (Codec::Pco as u8, "codec pco on integers"),
        (10, "unknown inner codec"),
        (200, "unknown inner codec"),
    ] {
        let hold = Sink { heads: vec![inner], soft: vec![0xff; 90], ..Sink::default() };
        assert!(decode(Codec::Hold, &hold, 8).unwrap_err().to_string().ends_with(message), "{message}");
        let decimal = Sink { heads: vec![0, inner], soft: vec![0xff; 90], ..Sink::default() };
        let refusal = real::decode::<f32>(Codec::Decimal, &mut whole(&decimal), 8).unwrap_err().to_string();
        assert!(refusal.ends_with(message), "{refusal}");
    }
}

#[test]
fn forms_that_are_none_are_refused() {
    let refusal = |heads: &[u8], codec| {
        let sink = Sink { heads: heads.to_vec(), soft: vec![0; 9], hard: vec![0xff; 9], ..Sink::default() };
        decode(codec, &sink, 5).unwrap_err().to_string()
    };
    assert!(refusal(&[3 << 6], Codec::Delta).ends_with("prediction 3"));
    for exponent in 19..31 {
        assert!(refusal(&[exponent], Codec::Delta).ends_with("a unit past 10^18"));
    }
    for k in [57, 64, 255] {
        assert!(refusal(&[0, k], Codec::Rice).ends_with(&format!("a Rice parameter of {k}")));
    }
    assert!(refusal(&[0], Codec::Rice).ends_with("cut short"));
    let decimal = Sink { heads: vec![23, 0], soft: vec![0; 9], ..Sink::default() };
    let refusal = real::decode::<f64>(Codec::Decimal, &mut whole(&decimal), 5).unwrap_err().to_string();
    assert!(refusal.ends_with("exponent past 22"));
}
