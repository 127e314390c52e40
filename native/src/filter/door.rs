//! The swinging door with a gate: of a run of readings, those that a straight line between two kept ones meets within E
//! are left out.
//!
//! From the last kept reading, the pivot, every reading since spans the window of slopes that pass it within E. A new
//! reading is taken into the segment only where the slope from the pivot *to itself* lies in all windows, so whatever
//! reading the segment ends with, the line to it was checked against every one that it leaves out. The better known form,
//! which ends a segment when its doors have crossed, checks no such line and is off by up to 2E.

use crate::tag::Value;

/// A Good reading with a finite number.
#[derive(Debug, Clone, Copy)]
struct Point {
    time_ns: i64,
    value: Value<'static>,
    quality: u32,
}

/// The state of one segment.
#[derive(Debug, Clone)]
pub(super) struct Door {
    bound: f64,
    /// The last kept reading, from which lines start; none after what no line can start from.
    pivot: Option<Point>,
    /// The last reading, if it is not kept yet.
    held: Option<Point>,
    /// The slopes that pass every reading since the pivot within E, per ns.
    low: f64,
    high: f64,
}

impl Door {
    pub(super) fn new(bound: f64) -> Self {
        Self { bound, pivot: None, held: None, low: f64::NEG_INFINITY, high: f64::INFINITY }
    }

    pub(super) fn bound(&self) -> f64 {
        self.bound
    }

    pub(super) fn held(&self) -> Option<Value<'_>> {
        self.held.map(|held| held.value)
    }

    /// Hands out the held reading. It is the next pivot, so it is not handed out again.
    pub(super) fn flush(&mut self, mut keep: impl FnMut(i64, Value<'_>, u32)) {
        if let Some(held) = self.held.take() {
            keep(held.time_ns, held.value, held.quality);
            self.start(Some(held));
        }
    }

    /// `goes_on` says that the status is that of the last reading and the time is after it.
    pub(super) fn offer(
        &mut self,
        goes_on: bool,
        heartbeat: Option<u64>,
        (time_ns, value, quality): (i64, Value<'_>, u32),
        mut keep: impl FnMut(i64, Value<'_>, u32),
    ) {
        let new = number(value).filter(|_| quality >> 30 == 0).map(|value| Point { time_ns, value, quality });
        let (Some(new), Some(mut pivot), true) = (new, self.pivot, goes_on) else {
            self.flush(&mut keep);
            keep(time_ns, value, quality);
            return self.start(new);
        };
        if let Some(most) = heartbeat {
            if new.time_ns.abs_diff(pivot.time_ns) > most {
                self.flush(&mut keep);
                pivot = self.pivot.unwrap_or(pivot);
            }
            // The silence was the device's own.
            if new.time_ns.abs_diff(pivot.time_ns) > most {
                return self.pass(new, keep);
            }
        }
        let mut line = Line::between(pivot, new);
        if !(self.low <= line.slope() && line.slope() <= self.high) {
            self.flush(&mut keep);
            line = Line::between(self.pivot.unwrap_or(pivot), new);
        }
        if !line.rise.is_finite() {
            return self.pass(new, keep);
        }
        // What float64 loses, here and in the reader's own interpolation, comes to at most 20 units of 2^-53 of these
        // numbers (docs/filters.md); twice 16 are taken off, and what slopes lose where they are next to nothing.
        let rounding = 16.0 * f64::EPSILON * (line.size + self.bound) + 1e-300;
        let room = self.bound - rounding;
        self.low = self.low.max((line.rise - room) / line.run);
        self.high = self.high.min((line.rise + room) / line.run);
        self.held = Some(new);
    }

    fn pass(&mut self, new: Point, mut keep: impl FnMut(i64, Value<'_>, u32)) {
        self.flush(&mut keep);
        keep(new.time_ns, new.value, new.quality);
        self.start(Some(new));
    }

    fn start(&mut self, pivot: Option<Point>) {
        *self = Self { pivot, ..Self::new(self.bound) };
    }
}

/// A line from one reading to a later one.
struct Line {
    rise: f64,
    /// ns, from the exact difference: times themselves are too large for float64.
    run: f64,
    /// How large the numbers are that the rise came from.
    size: f64,
}

impl Line {
    fn between(from: Point, to: Point) -> Self {
        let (a, b) = (from.value.as_f64().unwrap_or(0.0), to.value.as_f64().unwrap_or(0.0));
        let rise = match (from.value, to.value) {
            (Value::Integer(from), Value::Integer(to)) => (i128::from(to) - i128::from(from)) as f64,
            (Value::Unsigned(from), Value::Unsigned(to)) => (i128::from(to) - i128::from(from)) as f64,
            _ => b - a,
        };
        Self { rise, run: to.time_ns.abs_diff(from.time_ns) as f64, size: a.abs() + b.abs() }
    }

    fn slope(&self) -> f64 {
        self.rise / self.run
    }
}

/// The value if it is a finite number, free of what it was borrowed from.
fn number(value: Value<'_>) -> Option<Value<'static>> {
    match value {
        Value::Integer(value) => Some(Value::Integer(value)),
        Value::Unsigned(value) => Some(Value::Unsigned(value)),
        Value::Real32(value) if value.is_finite() => Some(Value::Real32(value)),
        Value::Real64(value) if value.is_finite() => Some(Value::Real64(value)),
        _ => None,
    }
}
