//! The config's `filter` column: `on_change`, `deadband=0.1`, `deadband=2%`, `swinging_door=0.5` or `grid=0.05`, each with
//! or without `; heartbeat=60s`.

use super::{Door, Grid, Rule};
use crate::error::{Error, Result};
use crate::tag::ValueType;

const UNITS: [(&str, f64); 4] = [("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// Whether a filter is a share of its tag's range.
pub(super) fn is_share(text: &str) -> bool {
    text.split(';').next().is_some_and(|rule| rule.trim_end().ends_with('%'))
}

/// The rule and the heartbeat in ns, or `None` for an empty text.
pub(super) fn parse(text: &str, kind: ValueType, range: Option<(f64, f64)>) -> Result<Option<(Rule, Option<u64>)>> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let refuse = |wrong: &str| {
        Error::Spec(format!(
            "no filter {text:?}{wrong}; write on_change, deadband=0.1, deadband=2%, swinging_door=0.5 or grid=0.05, \
             each with or without \"; heartbeat=60s\" after it, or nothing"
        ))
    };
    let (first, rest) = text.split_once(';').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let heartbeat = rest.map(|rest| heartbeat(rest).ok_or_else(|| refuse(""))).transpose()?;
    let (word, bound) =
        first.split_once('=').map_or((first.trim(), None), |(word, bound)| (word.trim(), Some(bound.trim())));
    let positive = |text: &str| text.parse().ok().filter(|found: &f64| *found > 0.0 && found.is_finite());
    let number = |bound: Option<&str>| bound.and_then(positive).ok_or_else(|| refuse(""));
    let rule = match (word, bound) {
        ("on_change", None) => Rule::OnChange,
        ("deadband", Some(bound)) => match bound.strip_suffix('%') {
            Some(share) => {
                let share = positive(share.trim_end()).filter(|share| *share <= 100.0).ok_or_else(|| refuse(""))?;
                let span = range.map_or(0.0, |(low, high)| high - low);
                let bound = share * span / 100.0;
                if !(bound > 0.0 && bound.is_finite()) {
                    return Err(refuse(" without the tag's low and high"));
                }
                Rule::Deadband(bound)
            }
            None => Rule::Deadband(number(Some(bound))?),
        },
        ("swinging_door", bound) => Rule::SwingingDoor(Door::new(number(bound)?)),
        ("grid", bound) => Rule::Grid(Grid::new(number(bound)?, kind)),
        _ => return Err(refuse("")),
    };
    if kind.is_opaque() && kind != ValueType::Text && !matches!(rule, Rule::OnChange) {
        return Err(Error::Spec(format!(
            "no filter {text:?} for {}, which has no distance; write on_change, with or without \"; heartbeat=60s\" \
             after it, or nothing",
            kind.name()
        )));
    }
    // Neither has a distance: what is asked for of them can only be to see every change.
    let rule = if matches!(kind, ValueType::Bool | ValueType::Text) { Rule::OnChange } else { rule };
    Ok(Some((rule, heartbeat)))
}

fn heartbeat(text: &str) -> Option<u64> {
    let (word, duration) = text.split_once('=')?;
    let duration = duration.trim();
    let (number, unit) = duration.split_at(duration.find(|letter: char| letter.is_ascii_alphabetic())?);
    let (_, ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let ns = number.trim_end().parse::<f64>().ok()? * ns;
    (word.trim() == "heartbeat" && ns >= 1.0 && ns.is_finite()).then_some(ns as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(Rule, Option<u64>)>> {
        parse(text, ValueType::Float64, Some((0.0, 10.0)))
    }

    #[test]
    fn spaces_do_not_matter() {
        assert!(parsed(" ").unwrap().is_none());
        let (rule, heartbeat) = parsed(" deadband = 2 % ; heartbeat = 1.5 m ").unwrap().unwrap();
        assert!(matches!(rule, Rule::Deadband(bound) if bound.to_bits() == 0.2_f64.to_bits()));
        assert_eq!(heartbeat, Some(90_000_000_000));
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        for wrong in [
            "deadband",
            "deadband=",
            "deadband=-1",
            "deadband=NaN",
            "deadband=0",
            "deadband=inf",
            "deadband=0%",
            "deadband=101%",
            "deadband=%",
            "swing",
            "swinging_door",
            "swinging_door=0",
            "swinging_door=2%",
            "grid",
            "grid=-1",
            "grid=1%",
            "on_change=1",
            "heartbeat=60s",
            "on_change; heartbeat",
            "on_change; heartbeat=60",
            "on_change; heartbeat=0s",
            "on_change; heartbeat=-1s",
            "on_change; heartbeat=1 week",
            "on_change; grid=1",
            "on_change; heartbeat=1s; heartbeat=1s",
            "; heartbeat=1s",
            "on_change;",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_percent_needs_a_range() {
        for range in [None, Some((1.0, 1.0)), Some((2.0, 1.0)), Some((f64::MIN, f64::MAX))] {
            let refused = parse("deadband=2%", ValueType::Float64, range).unwrap_err();
            assert!(refused.to_string().contains("without the tag's low and high"));
        }
    }
}
