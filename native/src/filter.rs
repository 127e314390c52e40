//! What a tag lets through. A status change always passes (OPC 10000-4, `DataChangeFilter`); so does the step into or
//! out of NaN, once.

use crate::error::{Error, Result};
use crate::tag::Value;

/// What decides about a value, from the config.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Everything passes.
    All,
    /// What differs from the last value that passed.
    OnChange,
    /// What is further than E from the last value that passed. A reader that holds values is then never off by more.
    Deadband(f64),
}

impl Rule {
    /// Reads the config's `filter` column: empty, `on_change` or `deadband=E`.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse =
            || Error::Spec(format!("no filter {text:?}; write deadband=<a positive number>, on_change, or nothing"));
        match text.trim() {
            "" => Ok(Self::All),
            "on_change" => Ok(Self::OnChange),
            other => {
                let bound: f64 =
                    other.strip_prefix("deadband=").and_then(|number| number.trim().parse().ok()).ok_or_else(refuse)?;
                if bound > 0.0 && bound.is_finite() { Ok(Self::Deadband(bound)) } else { Err(refuse()) }
            }
        }
    }

    /// Whether a reading passes, given the last one that did.
    pub fn passes(self, last: Value<'_>, last_quality: u32, value: Value<'_>, quality: u32) -> bool {
        match self {
            Self::All => true,
            _ if quality != last_quality => true,
            Self::OnChange => !same(last, value),
            Self::Deadband(bound) => match (last, value) {
                (Value::Integer(a), Value::Integer(b)) => a.abs_diff(b) as f64 > bound,
                (Value::Unsigned(a), Value::Unsigned(b)) => a.abs_diff(b) as f64 > bound,
                _ => match (last.as_f64(), value.as_f64()) {
                    (Some(a), Some(b)) if a.is_nan() || b.is_nan() => a.is_nan() != b.is_nan(),
                    // Equal infinities differ by NaN: they are compared before they are subtracted.
                    (Some(a), Some(b)) => !same(last, value) && ((a - b).abs() > bound || !(a - b).is_finite()),
                    _ => !same(last, value),
                },
            },
        }
    }
}

#[allow(clippy::float_cmp)] // on change means any change
fn same(a: Value<'_>, b: Value<'_>) -> bool {
    match (a, b) {
        (Value::Real32(a), Value::Real32(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::Real64(a), Value::Real64(b)) => a == b || (a.is_nan() && b.is_nan()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadband_holds_for_a_reader_that_holds_values() {
        let rule = Rule::parse("deadband=0.5").unwrap();
        let (mut last, mut kept) = (0.0_f64, 0);
        for step in 0..1000_i32 {
            let value = (f64::from(step) * 0.1).sin() * 3.0;
            if rule.passes(Value::Real64(last), 0, Value::Real64(value), 0) {
                (last, kept) = (value, kept + 1);
            }
            assert!((value - last).abs() <= 0.5);
        }
        assert!(kept > 10 && kept < 900);
    }

    #[test]
    fn nan_passes_once_on_entering_and_once_on_leaving() {
        let rule = Rule::Deadband(1.0);
        let (nan, one) = (Value::Real64(f64::NAN), Value::Real64(1.0));
        assert!(rule.passes(one, 0, nan, 0));
        assert!(!rule.passes(nan, 0, nan, 0));
        assert!(rule.passes(nan, 0, one, 0));
    }

    #[test]
    fn a_status_change_passes_and_integers_are_exact_beyond_2_to_the_53() {
        assert!(Rule::OnChange.passes(Value::Bool(true), 0, Value::Bool(true), 0x8000_0000));
        let big = 1_i64 << 60;
        assert!(Rule::OnChange.passes(Value::Integer(big), 0, Value::Integer(big + 1), 0));
        assert!(!Rule::Deadband(1.0).passes(Value::Integer(big), 0, Value::Integer(big + 1), 0));
        assert!(Rule::Deadband(0.5).passes(Value::Integer(i64::MIN), 0, Value::Integer(i64::MAX), 0));
        let infinite = Value::Real64(f64::INFINITY);
        assert!(!Rule::Deadband(1.0).passes(infinite, 0, infinite, 0));
        assert!(Rule::Deadband(1.0).passes(Value::Real64(0.0), 0, infinite, 0));
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        for wrong in ["deadband", "deadband=-1", "deadband=NaN", "swing", "deadband=0"] {
            assert!(Rule::parse(wrong).is_err(), "{wrong}");
        }
    }
}
