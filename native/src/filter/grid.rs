//! Rounding to multiples of 2E: every reading stays at its own time, off by at most E, and compresses far better.

use crate::tag::{Value, ValueType};

/// The largest integer up to which every integer is a float64.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// The multiples of 2E.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    bound: f64,
    /// 2E.
    step: f64,
    /// 2E as `digits / scale` with both exact, where it is a short decimal: then k * digits / scale is the float64 that
    /// stands for the decimal number, as people and the decimal codec know it, and k * 2E may be its neighbour.
    decimal: Option<(f64, f64)>,
    /// The step between whole numbers.
    whole: i128,
    /// What the type of an integer holds.
    range: (i128, i128),
}

impl Grid {
    pub(super) fn new(bound: f64, kind: ValueType) -> Self {
        let step = 2.0 * bound;
        let range = kind.range().unwrap_or((0, 0));
        Self { bound, step, decimal: decimal(step), whole: (step as i128).min(1 << 64), range }
    }

    pub(super) fn bound(&self) -> f64 {
        self.bound
    }

    /// The nearest point of the grid, or the value itself where no point that its type holds is within E.
    pub(super) fn round<'a>(&self, value: Value<'a>) -> Value<'a> {
        match value {
            Value::Integer(value) => Value::Integer(self.integer(value.into()).map_or(value, |found| found as i64)),
            Value::Unsigned(value) => Value::Unsigned(self.integer(value.into()).map_or(value, |found| found as u64)),
            Value::Real32(value) => {
                let rounded = self.points(value.into()).map(|point| point as f32);
                let found = rounded.into_iter().find(|point| near((*point).into(), value.into(), self.bound));
                Value::Real32(found.unwrap_or(value))
            }
            Value::Real64(value) => {
                let found = self.points(value).into_iter().find(|point| near(*point, value, self.bound));
                Value::Real64(found.unwrap_or(value))
            }
            other => other,
        }
    }

    fn integer(&self, value: i128) -> Option<i128> {
        if self.whole < 2 {
            return None;
        }
        let found = (value + self.whole / 2).div_euclid(self.whole) * self.whole;
        (self.range.0 <= found && found <= self.range.1).then_some(found)
    }

    /// The nearest point, then the one on the other side: half-way between two, rounding decides which is within E.
    fn points(&self, value: f64) -> [f64; 2] {
        let count = (value / self.step).round();
        let nearest = self.point(count);
        [nearest, self.point(if nearest > value { count - 1.0 } else { count + 1.0 })]
    }

    fn point(&self, count: f64) -> f64 {
        let exact =
            self.decimal.map(|(digits, scale)| (count * digits, scale)).filter(|(found, _)| found.abs() < WHOLE);
        // Adding zero makes -0.0 the same zero as the other.
        exact.map_or(count * self.step, |(found, scale)| found / scale) + 0.0
    }
}

/// Whether |a - b| <= bound, with nothing lost to rounding: where the difference rounds to the bound, what it was rounded
/// by decides (Knuth's two-sum).
#[allow(clippy::float_cmp)]
fn near(a: f64, b: f64, bound: f64) -> bool {
    let gap = a - b;
    let seen = gap - a;
    let lost = (a - (gap - seen)) - (b + seen);
    gap.abs() < bound || (gap.abs() == bound && (lost == 0.0 || (lost > 0.0) != (gap > 0.0)))
}

/// A number as integer / power of ten, where float64 holds both exactly.
fn decimal(number: f64) -> Option<(f64, f64)> {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits: f64 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok().filter(|places| *places <= 22)?;
    (digits < WHOLE).then(|| (digits, 10_f64.powi(places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(bound: f64, value: f64) -> f64 {
        match Grid::new(bound, ValueType::Float64).round(Value::Real64(value)) {
            Value::Real64(found) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn points_are_the_decimals_that_people_write() {
        for count in -2000_i32..2000 {
            let decimal: f64 = format!("{}.{}", count / 10, (count % 10).abs()).parse().unwrap();
            let decimal = if count < 0 && count > -10 { -decimal } else { decimal };
            assert_eq!(real(0.05, decimal + 0.02).to_bits(), (decimal + 0.0).to_bits(), "{decimal}");
            let half = decimal + 0.05;
            let found = real(0.05, half);
            let short = (found * 10.0 - (found * 10.0).round()).abs() < 1e-9;
            // Half-way, both sides may be too far by what a float64 of that size can't say.
            assert!(near(found, half, 0.05) && (short || found.to_bits() == half.to_bits()), "{half} became {found}");
        }
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn what_no_point_is_near_stays() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e17] {
            assert_eq!(real(0.001, value).to_bits(), value.to_bits());
        }
        assert_eq!(real(8e307, 1.0), 0.0);
        assert_eq!(real(1e308, 1.0), 1.0, "2E is no number");
        assert_eq!(real(0.05, -0.01).to_bits(), 0);
        let single = Grid::new(1e-9, ValueType::Float32).round(Value::Real32(0.1));
        assert_eq!(single, Value::Real32(0.1));
        let edge = Grid::new(2e38, ValueType::Float32).round(Value::Real32(f32::MAX));
        assert_eq!(edge, Value::Real32(f32::MAX), "4e38 is no float32");
    }

    #[test]
    fn integers_stay_whole_and_in_their_type() {
        let round = |bound, kind, value| Grid::new(bound, kind).round(value);
        assert_eq!(round(5.0, ValueType::Int8, Value::Integer(-14)), Value::Integer(-10));
        assert_eq!(round(5.0, ValueType::Int8, Value::Integer(124)), Value::Integer(120));
        assert_eq!(round(5.0, ValueType::Int8, Value::Integer(127)), Value::Integer(127), "130 is no int8");
        assert_eq!(round(5.0, ValueType::Int16, Value::Integer(127)), Value::Integer(130));
        assert_eq!(round(1.3, ValueType::UInt8, Value::Unsigned(7)), Value::Unsigned(8), "steps of 2");
        assert_eq!(round(0.4, ValueType::Int64, Value::Integer(i64::MAX)), Value::Integer(i64::MAX));
        assert_eq!(round(1.0, ValueType::UInt64, Value::Unsigned(u64::MAX)), Value::Unsigned(u64::MAX));
        assert_eq!(round(1e300, ValueType::Int64, Value::Integer(-7)), Value::Integer(0));
    }
}
