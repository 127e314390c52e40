//! What `Delta` and `Rice` leave of a column: a prediction of each value from those before it, everything in units of
//! the greatest common divisor, and the rest.

use super::zigzag;

/// How `Delta` predicts the next value; two bits of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Prediction {
    /// The value before, plus the base.
    Previous = 0,
    /// The value before, plus the difference before that, plus the base.
    Trend = 1,
    /// A line: its start (in place of the first value), plus the base for every place; the first value is predicted too.
    Line = 2,
}

/// Differences below this are exact in float64, and so is their quotient's nearest integer.
const EXACT: u64 = 1 << 51;
/// Values that the first guess at a unit is made of.
const GUESSED: usize = 16;

/// What `Delta` writes: everything in units.
pub(super) struct Predicted {
    pub(super) prediction: Prediction,
    pub(super) unit: i64,
    pub(super) first: i64,
    pub(super) base: i64,
    pub(super) rest: Vec<i64>,
}

/// A column's first value and its differences, in units.
struct Units {
    unit: i64,
    first: i64,
    deltas: Vec<i64>,
}

impl Units {
    fn of(first: i64, deltas: &[i64]) -> Self {
        let mut unit = first.unsigned_abs();
        let (few, most) = deltas.split_at(deltas.len().min(GUESSED));
        for delta in few {
            unit = gcd(unit, delta.unsigned_abs());
        }
        // As a rule the first few tell the unit, and the others need no division to say that it is theirs too.
        if let Some(found) =
            i64::try_from(unit).ok().filter(|unit| *unit > 0).and_then(|unit| Self::by(unit, first, deltas))
        {
            return found;
        }
        for delta in most {
            unit = gcd(unit, delta.unsigned_abs());
            if unit == 1 {
                break;
            }
        }
        // A gcd of |i64::MIN| = 2^63 does not fit i64; it only comes from extremes that compress to nothing anyway.
        let unit = i64::try_from(unit).unwrap_or(1).max(1);
        let deltas = deltas.iter().map(|each| each.wrapping_div(unit)).collect();
        Self { unit, first: first.wrapping_div(unit), deltas }
    }

    /// In these units, where every difference is a multiple of them and none is too large to be told at float64.
    fn by(unit: i64, first: i64, deltas: &[i64]) -> Option<Self> {
        if unit == 1 {
            return Some(Self { unit, first, deltas: deltas.to_vec() });
        }
        let (inverse, mut left, mut large) = (1.0 / unit as f64, 0, 0);
        let quotient = |delta: i64| {
            let near = delta as f64 * inverse;
            (near + 0.5_f64.copysign(near)) as i64
        };
        let units = deltas.iter().map(|delta| {
            let found = quotient(*delta);
            left |= delta.wrapping_sub(found.wrapping_mul(unit));
            large |= delta.unsigned_abs();
            found
        });
        let units: Vec<i64> = units.collect();
        let fits = left == 0 && large < EXACT && first.wrapping_rem(unit) == 0;
        fits.then(|| Self { unit, first: first.wrapping_div(unit), deltas: units })
    }

    /// By this prediction. `based` says whether `Previous` has a base.
    fn predict(self, prediction: Prediction, based: bool) -> Predicted {
        let Self { unit, mut first, mut deltas } = self;
        let mut base = 0;
        match prediction {
            Prediction::Previous if based => {
                base = middle(&deltas);
                for each in &mut deltas {
                    *each = each.wrapping_sub(base);
                }
            }
            Prediction::Previous => {}
            Prediction::Trend => {
                let mut last = 0;
                for each in &mut deltas {
                    *each = each.wrapping_sub(std::mem::replace(&mut last, *each));
                }
            }
            Prediction::Line => {
                base = slope(&deltas);
                let (line, start) = line(&deltas, base);
                (deltas, first) = (line, first.wrapping_add(start));
            }
        }
        Predicted { prediction, unit, first, base, rest: deltas }
    }
}

/// By a known prediction in a known unit, in one pass; `None` where the unit does not fit.
pub(super) fn as_known(
    first: i64,
    deltas: &[i64],
    prediction: Prediction,
    based: bool,
    unit: i64,
) -> Option<Predicted> {
    Units::by(unit, first, deltas).map(|units| units.predict(prediction, based))
}

/// The prediction that leaves least, and the bits that it leaves, about.
pub(super) fn best(first: i64, deltas: &[i64]) -> (Predicted, usize) {
    let units = Units::of(first, deltas);
    let base = middle(&units.deltas);
    // A base costs bytes of its own: where it is small against what is left it is not worth them.
    let plain = cost(units.deltas.iter().copied());
    let based = cost(units.deltas.iter().map(|each| each.wrapping_sub(base))) + 8 * 2;
    let (mut found, mut bits) = ((Prediction::Previous, based < plain), based.min(plain));
    if units.deltas.len() > 3 {
        let lined = cost(line(&units.deltas, slope(&units.deltas)).0.into_iter()) + 8 * 2;
        if lined < bits {
            (found, bits) = ((Prediction::Line, false), lined);
        }
        let trend = cost(trends(&units.deltas)) + 8;
        if trend < bits {
            (found, bits) = ((Prediction::Trend, false), trend);
        }
    }
    (units.predict(found.0, found.1), bits)
}

fn trends(units: &[i64]) -> impl Iterator<Item = i64> {
    let mut last = 0;
    units.iter().map(move |&each| each.wrapping_sub(std::mem::replace(&mut last, each)))
}

/// How far each value, the first included, lies from a line of this slope, and where the line starts: in the middle of
/// them, and not at a first value that may itself be late.
fn line(units: &[i64], slope: i64) -> (Vec<i64>, i64) {
    let mut off = 0_i64;
    let mut line = Vec::with_capacity(units.len() + 1);
    line.push(0);
    line.extend(units.iter().map(|each| {
        off = off.wrapping_add(each.wrapping_sub(slope));
        off
    }));
    let start = middle(&line);
    for each in &mut line {
        *each = each.wrapping_sub(start);
    }
    (line, start)
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

/// The median of a sample: what most differences are where a clock ticks and is sometimes late.
fn middle(values: &[i64]) -> i64 {
    let mut sample = [0_i64; 64];
    let mut count = 0;
    for (slot, value) in sample.iter_mut().zip(values.iter().step_by(values.len() / 64 + 1)) {
        *slot = *value;
        count += 1;
    }
    let taken = sample.get_mut(..count).unwrap_or_default();
    if taken.is_empty() { 0 } else { *taken.select_nth_unstable(count / 2).1 }
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
