//! What a tag lets through, and what that promises to whom (`docs/filters.md`). Whatever is out of the ordinary passes: a
//! change of status (OPC 10000-4, `DataChangeFilter`), the step into or out of NaN, a time that does not go forward.

mod door;
mod grid;
mod spec;

use crate::error::Result;
use crate::tag::{Last, Value, ValueType};
use door::Door;
use grid::Grid;

/// What decides about a value.
#[derive(Debug, Clone)]
enum Rule {
    /// What differs from the last value that passed.
    OnChange,
    /// What is further than E from the last value that passed.
    Deadband(f64),
    /// What a straight line between its neighbours would miss by more than E.
    SwingingDoor(Door),
    /// Everything passes, rounded.
    Grid(Grid),
}

/// The kind of a filter, for those who write down which one a column went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every change is kept.
    OnChange,
    /// Exact to E for a reader that holds the last value.
    Deadband,
    /// Exact to E for a reader that joins readings by straight lines.
    SwingingDoor,
    /// Every reading is kept, exact to E.
    Grid,
}

/// One tag's filter with all it remembers: at most one reading is held, the rest is decided at once.
#[derive(Debug, Clone)]
pub struct Filter {
    rule: Rule,
    /// ns without a reading after which one passes anyhow.
    heartbeat: Option<u64>,
    /// The last reading that passed; the swinging door has its own.
    passed: Last,
}

impl Filter {
    /// Reads the config's `filter` column for a tag with readings of `kind`; `None` where it is empty. `range` is the
    /// tag's low and high, of which a deadband in percent takes its share.
    pub fn parse(text: &str, kind: ValueType, range: Option<(f64, f64)>) -> Result<Option<Self>> {
        let found = spec::parse(text, kind, range)?;
        Ok(found.map(|(rule, heartbeat)| Self { rule, heartbeat, passed: Last::default() }))
    }

    /// Whether a `filter` column is a share of its tag's range, without which it can't be read.
    pub fn is_share(text: &str) -> bool {
        spec::is_share(text)
    }

    /// Which filter this is, and its bound E in the unit of the readings.
    pub fn bound(&self) -> (Kind, f64) {
        match &self.rule {
            Rule::OnChange => (Kind::OnChange, 0.0),
            Rule::Deadband(bound) => (Kind::Deadband, *bound),
            Rule::SwingingDoor(door) => (Kind::SwingingDoor, door.bound()),
            Rule::Grid(grid) => (Kind::Grid, grid.bound()),
        }
    }

    /// Takes a reading and hands to `keep`, in the order in which they came, those that pass by now: none, one, or the
    /// held one and this. `latest` is the tag's last reading before this one, whether it passed or not.
    pub fn offer(
        &mut self,
        latest: &Last,
        time_ns: i64,
        value: Value<'_>,
        quality: u32,
        mut keep: impl FnMut(i64, Value<'_>, u32),
    ) {
        if let Rule::Grid(grid) = &self.rule {
            return keep(time_ns, grid.round(value), quality);
        }
        let known = latest.reading();
        let same_status = known.is_some_and(|(_, _, before)| before == quality);
        let forward = known.is_some_and(|(before, _, _)| before < time_ns);
        if same_status && known.is_some_and(|(before, last, _)| before == time_ns && last.same(value)) {
            return; // the very reading that was last, as a server sends it again after a reconnect
        }
        let goes_on = same_status && forward;
        if let Rule::SwingingDoor(door) = &mut self.rule {
            return door.offer(goes_on, self.heartbeat, (time_ns, value, quality), keep);
        }
        if goes_on && self.held_back(time_ns, value) {
            return;
        }
        self.passed.remember(time_ns, value, quality);
        keep(time_ns, value, quality);
    }

    /// Hands the held reading to `keep`, if there is one: at a seal, so that no reading of a block waits for a later one.
    pub fn flush(&mut self, keep: impl FnMut(i64, Value<'_>, u32)) {
        if let Rule::SwingingDoor(door) = &mut self.rule {
            door.flush(keep);
        }
    }

    /// The value of the reading that the next flush would hand out.
    pub fn held(&self) -> Option<Value<'_>> {
        match &self.rule {
            Rule::SwingingDoor(door) => door.held(),
            _ => None,
        }
    }

    fn held_back(&self, time_ns: i64, value: Value<'_>) -> bool {
        self.passed.reading().is_some_and(|(passed_ns, passed, _)| {
            let silent = self.heartbeat.is_some_and(|most| time_ns.abs_diff(passed_ns) >= most);
            !silent
                && match self.rule {
                    Rule::Deadband(bound) => within(passed, value, bound),
                    _ => passed.same(value),
                }
        })
    }
}

/// Whether two values are no further apart than the bound. What can't be subtracted has to be the same.
fn within(a: Value<'_>, b: Value<'_>, bound: f64) -> bool {
    match (a, b) {
        // A whole number is above E when it is above E's whole part; the cast saturates. Exact beyond 2^53.
        (Value::Integer(a), Value::Integer(b)) => a.abs_diff(b) <= bound as u64,
        (Value::Unsigned(a), Value::Unsigned(b)) => a.abs_diff(b) <= bound as u64,
        _ => {
            let apart = match (a, b) {
                (Value::Real32(a), Value::Real32(b)) => (f64::from(a) - f64::from(b)).abs(),
                (Value::Real64(a), Value::Real64(b)) => (a - b).abs(),
                _ => f64::NAN,
            };
            // Equal infinities differ by NaN, and so does NaN from itself.
            apart <= bound || (apart.is_nan() && a.same(b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str, kind: ValueType) -> Filter {
        Filter::parse(text, kind, Some((0.0, 400.0))).unwrap().unwrap()
    }

    /// Which of these readings, one a second, pass.
    fn passing(text: &str, kind: ValueType, values: &[(Value<'_>, u32)]) -> Vec<usize> {
        let (mut filter, mut latest, mut kept) = (filter(text, kind), Last::default(), Vec::new());
        for (second, (value, quality)) in values.iter().enumerate() {
            let time_ns = second as i64 * 1_000_000_000;
            filter.offer(&latest, time_ns, *value, *quality, |time_ns, _, _| {
                kept.push((time_ns / 1_000_000_000) as usize);
            });
            latest.remember(time_ns, *value, *quality);
        }
        filter.flush(|time_ns, _, _| kept.push((time_ns / 1_000_000_000) as usize));
        kept
    }

    fn reals(values: &[f64]) -> Vec<(Value<'static>, u32)> {
        values.iter().map(|value| (Value::Real64(*value), 0)).collect()
    }

    #[test]
    fn nan_passes_once_on_entering_and_once_on_leaving() {
        let values = reals(&[1.0, f64::NAN, f64::NAN, 1.0, f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, 0.0]);
        assert_eq!(passing("deadband=1", ValueType::Float64, &values), [0, 1, 3, 4, 6, 7]);
        assert_eq!(passing("on_change", ValueType::Float64, &values), [0, 1, 3, 4, 6, 7]);
        // The swinging door thins out what it can join by lines, and nothing else.
        assert_eq!(passing("swinging_door=1", ValueType::Float64, &values), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_line_that_float64_can_not_hold_is_not_drawn() {
        let (top, bottom) = (f64::MAX, f64::MIN);
        let values = reals(&[bottom, top, top, top, bottom, bottom]);
        assert_eq!(passing("swinging_door=1e300", ValueType::Float64, &values), [0, 1, 2, 3, 4, 5]);
        assert_eq!(passing("deadband=1e300", ValueType::Float64, &values), [0, 1, 4]);
    }

    #[test]
    fn a_status_change_passes() {
        let same = Value::Bool(true);
        assert_eq!(passing("on_change", ValueType::Bool, &[(same, 0), (same, 0), (same, 0x8000_0000)]), [0, 2]);
        let values = [(Value::Real32(1.0), 0), (Value::Real32(1.0), 0), (Value::Real32(1.0), 0x4000_0000)];
        assert_eq!(passing("deadband=5", ValueType::Float32, &values), [0, 2]);
        assert_eq!(passing("swinging_door=5", ValueType::Float32, &values), [0, 1, 2], "with the one before it");
    }

    #[test]
    fn integers_are_exact_beyond_2_to_the_53() {
        let big = 1_i64 << 60;
        let walk = [big, big + 1, big + 2, i64::MIN, i64::MAX].map(|value| (Value::Integer(value), 0));
        assert_eq!(passing("on_change", ValueType::Int64, &walk), [0, 1, 2, 3, 4]);
        assert_eq!(passing("deadband=1", ValueType::Int64, &walk), [0, 2, 3, 4]);
        assert_eq!(passing("deadband=1.9", ValueType::Int64, &walk), [0, 2, 3, 4]);
        assert!(!within(Value::Unsigned((1 << 53) + 1), Value::Unsigned(0), 9_007_199_254_740_992.0));
        assert!(within(Value::Unsigned(1 << 53), Value::Unsigned(0), 9_007_199_254_740_992.0));
    }

    #[test]
    fn a_percent_is_of_the_range() {
        assert_eq!(filter("deadband=2%", ValueType::Int16).bound(), (Kind::Deadband, 8.0));
        assert_eq!(passing("deadband=1%", ValueType::Float64, &reals(&[0.0, 4.0, 4.01, 0.01, 0.0])), [0, 2, 4]);
    }

    #[test]
    fn text_and_bool_pass_on_change_whatever_is_asked() {
        for asked in ["deadband=1", "swinging_door=1", "grid=1", "on_change"] {
            let values = ["a", "a", "b", "b"].map(|text| (Value::Text(text), 0));
            assert_eq!(passing(asked, ValueType::Text, &values), [0, 2], "{asked}");
            assert_eq!(filter(asked, ValueType::Bool).bound(), (Kind::OnChange, 0.0));
        }
    }

    #[test]
    fn after_a_silence_one_passes() {
        let still = reals(&[1.0; 8]);
        assert_eq!(passing("on_change; heartbeat=3s", ValueType::Float64, &still), [0, 3, 6]);
        assert_eq!(passing("deadband=1; heartbeat=2500ms", ValueType::Float64, &still), [0, 3, 6]);
        // The swinging door has the reading before: no pair is further apart than the heartbeat.
        assert_eq!(passing("swinging_door=1; heartbeat=2500ms", ValueType::Float64, &still), [0, 2, 4, 6, 7]);
        assert_eq!(passing("swinging_door=1; heartbeat=1h", ValueType::Float64, &still), [0, 7]);
        assert_eq!(passing("swinging_door=1; heartbeat=500ms", ValueType::Float64, &still), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn the_same_reading_again_is_none() {
        for text in ["on_change", "deadband=1", "swinging_door=1"] {
            let (mut filter, mut latest, mut kept) = (filter(text, ValueType::Int32), Last::default(), 0);
            for (time_ns, value) in [(0, 1), (0, 1), (5, 1), (5, 1), (5, 2), (4, 2), (4, 2)] {
                filter.offer(&latest, time_ns, Value::Integer(value), 0, |_, _, _| kept += 1);
                latest.remember(time_ns, Value::Integer(value), 0);
            }
            // (0, 1), (5, 2) and (4, 2); the swinging door gives the (5, 1) before the edge too.
            assert_eq!(kept, if text.starts_with('s') { 4 } else { 3 }, "{text}");
        }
    }
}
