//! Plant values are short decimals (`71.3`), whose binary mantissas look random: as `713 / 10` they are integers again. One
//! IEEE division gives back exactly the value a decimal parser would give, so every language decodes them alike. What is
//! not such a decimal is an exception and is kept bit for bit.

use super::real::{self, Real};
use super::{Sink, Source, broken, integer, put_varint};
use crate::error::Result;

/// Every power of ten that float64 holds exactly.
pub(super) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Integers of this size and below are exact in float64, and round as below: 2^51.
pub(super) const EXACT: f64 = 2_251_799_813_685_248.0;
/// 1.5 * 2^52, above which float64 has no fractions.
pub(super) const ROUND: f64 = 6_755_399_441_055_744.0;
/// In the exponent's byte: a list of exceptions follows.
const HAS_EXCEPTIONS: u8 = 1 << 5;
/// Values that are looked at to choose the exponent.
const SAMPLE: u64 = 48;
/// 2^64 over the golden ratio: its multiples fall evenly, and into step with nothing.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// `value * 10^e` as an integer, if dividing it again gives the very same bits.
fn digits<T: Real>(value: T, power: f64) -> Option<i64> {
    let scaled = value.widen() * power;
    if scaled.abs() >= EXACT {
        return None; // NaN passes here, and fails the comparison
    }
    // Adding and taking away 1.5 * 2^52 rounds to the nearest integer, without a call into the mathematical library.
    // Through the integer, as the decoder will: -0.0 has none, and must not pass.
    let integer = ((scaled + ROUND) - ROUND) as i64;
    (T::narrow(integer as f64 / power).bits() == value.bits()).then_some(integer)
}

/// The same of many values, if all have one: without a branch, so that several are worked out at a time.
fn all_digits<T: Real>(values: &[T], power: f64) -> Option<Vec<i64>> {
    let mut all = true;
    let integers = values.iter().map(|value| {
        let scaled = value.widen() * power;
        let raised = scaled + ROUND;
        // Never -0.0, as the integer never is.
        let whole = raised - ROUND;
        all &= (scaled.abs() < EXACT) & (T::narrow(whole / power).bits() == value.bits());
        raised.to_bits().wrapping_sub(ROUND.to_bits()) as i64
    });
    let integers = integers.collect();
    all.then_some(integers)
}

/// Values as digits of one exponent, and those that are none.
pub(super) struct Digits {
    pub(super) exponent: usize,
    pub(super) integers: Vec<i64>,
    pub(super) exceptions: Vec<(usize, u64)>,
}

impl Digits {
    fn of<T: Real>(values: &[T], exponent: usize) -> Option<Self> {
        let power = *POWERS.get(exponent)?;
        if let Some(integers) = all_digits(values, power) {
            return Some(Self { exponent, integers, exceptions: Vec::new() });
        }
        let mut exceptions = Vec::new();
        let mut last = 0;
        let integers = values.iter().enumerate().map(|(index, value)| {
            // An exception repeats its neighbour: a difference of 0 costs least.
            last = digits(*value, power).unwrap_or_else(|| {
                exceptions.push((index, value.bits()));
                last
            });
            last
        });
        let integers = integers.collect();
        Some(Self { exponent, integers, exceptions })
    }

    /// Exceptions of 64 values.
    fn strange(&self) -> u8 {
        (self.exceptions.len() * 64 / self.integers.len().max(1)) as u8
    }

    /// With the exponent that did last, if it still does; or with the one that a sample asks for.
    fn find<T: Real>(values: &[T], known: Option<(u8, u8)>) -> Option<Self> {
        let again = known.and_then(|(exponent, strange)| {
            Self::of(values, exponent.into()).filter(|found| found.strange() <= strange)
        });
        again.or_else(|| {
            exponent(values, |value, power| digits(value, power).is_some())
                .and_then(|exponent| Self::of(values, exponent))
        })
    }

    /// Appends them, unless too many are exceptions; and says how many these are.
    pub(super) fn put<T: Real>(&self, out: &mut Sink) -> Option<usize> {
        let Self { exponent, integers, exceptions } = self;
        if exceptions.len() * 4 > integers.len() {
            return None;
        }
        out.heads.push(*exponent as u8 | if exceptions.is_empty() { 0 } else { HAS_EXCEPTIONS });
        if !exceptions.is_empty() {
            put_varint(&mut out.soft, exceptions.len() as u64);
        }
        let mut next = 0;
        for (index, bits) in exceptions {
            put_varint(&mut out.soft, (index - next) as u64);
            real::put(T::from_bits(*bits), &mut out.soft);
            next = index + 1;
        }
        integer::put_nested(out, integers);
        Some(exceptions.len())
    }
}

/// Appends the decimal form, if the values have one, and says how many exceptions there are.
pub(super) fn encode<T: Real>(values: &[T], out: &mut Sink) -> Option<usize> {
    let found = Digits::find(values, out.hint.power)?;
    out.hint.power = Some((found.exponent as u8, found.strange()));
    found.put::<T>(out)
}

/// The most digits after the point that a sample needs; values that need more become exceptions.
pub(super) fn exponent<T: Real>(values: &[T], fits: impl Fn(T, f64) -> bool) -> Option<usize> {
    // Not every n-th value: a ramp of 0.01 looks like one of 0.1 to those who see each tenth.
    let spread = |n: u64| ((n.wrapping_mul(GOLDEN) >> 32) * values.len() as u64) >> 32;
    let all = values.len() <= SAMPLE as usize;
    let mut needed: Vec<usize> = (0..SAMPLE)
        .filter_map(|n| values.get(if all { n } else { spread(n) } as usize))
        .filter_map(|value| POWERS.iter().position(|power| fits(*value, *power)))
        .collect();
    needed.sort_unstable();
    // The ninth tenth, not the largest: one long decimal must not lengthen all the others.
    needed.get(needed.len().saturating_sub(1) * 9 / 10).copied()
}

/// Reads `count` values back.
pub(super) fn decode<T: Real>(source: &mut Source<'_>, count: usize) -> Result<Vec<T>> {
    let reader = &mut source.soft;
    let head = source.heads.byte()?;
    let exponent = usize::from(head & !HAS_EXCEPTIONS);
    let power = *POWERS.get(exponent).ok_or_else(|| broken("exponent past 22"))?;
    let listed = if head & HAS_EXCEPTIONS == 0 { 0 } else { reader.count(count, "exceptions")? };
    if reader.rest().len() / (1 + T::WIDTH) < listed {
        return Err(broken("fewer exceptions than written"));
    }
    let mut exceptions = Vec::with_capacity(listed);
    let mut next = 0_usize;
    for _ in 0..listed {
        let index = next + reader.count(count, "values between exceptions")?;
        exceptions.push((index, T::from_bits(real::bits(reader, T::WIDTH)?)));
        next = index + 1;
    }
    let integers = integer::read_nested(source, count)?;
    let mut values: Vec<T> = integers.into_iter().map(|value| T::narrow(value as f64 / power)).collect();
    for (index, value) in exceptions {
        *values.get_mut(index).ok_or_else(|| broken("exception past the end"))? = value;
    }
    Ok(values)
}
