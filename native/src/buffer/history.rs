//! Raw values of an OPC UA server's history into the columns of the tags that miss them.

use super::{Buffer, MISTYPED, Slot, Stats, is_full};
use crate::decode::opcua::{Content, DataValue, Fitted, NodeHistory, Scratch, fit, read_history};
use crate::error::Result;
use crate::tag::{BAD_DECODING_ERROR, Value};

impl Buffer {
    /// Decodes a `HistoryReadResponse` of raw values: result i is of `spans[i]`. Keeps all of what lies within the spans, or
    /// nothing. It passes no filter, for that has seen later values.
    pub fn push_history<'a>(&mut self, spans: &[Span], body: &'a [u8]) -> Result<Vec<(NodeHistory<'a>, Found)>> {
        for span in spans {
            self.spec(span.tag)?;
        }
        read_history(body, spans.len(), |_, _| {})?;
        let Self { slots, max_bytes, stats, .. } = self;
        let mut scratch = Scratch::default();
        let mut found = vec![Found::default(); spans.len()];
        let nodes = read_history(body, spans.len(), |at, value| {
            let (Some(span), Some(found)) = (spans.get(at), found.get_mut(at)) else { return };
            if let Some(slot) = slots.get_mut(span.tag as usize) {
                found.take(span, value, slot, stats, *max_bytes, &mut scratch);
            }
        })?;
        Ok(nodes.into_iter().zip(found).collect())
    }
}

/// What is missing of a tag: the times in ns of the values before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The tag.
    pub tag: u32,
    /// Of the last value that is known.
    pub from_ns: i64,
    /// Of the first value that is known again.
    pub to_ns: i64,
}

/// What a history had of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Readings kept.
    pub kept: usize,
    /// Readings that could not be: the buffer was full, or nobody here decodes them.
    pub refused: usize,
    /// Whether a value at or before the span's begin was there.
    pub from: bool,
    /// Whether one at or after its end was.
    pub to: bool,
    /// The times of the first and the last value within the span; 0 where there is none.
    pub first_ns: i64,
    /// The last.
    pub last_ns: i64,
}

/// What a bound that is not there, and an interval without values, is called in a history.
const NO_VALUE: [u32; 2] = [0x80D7_0000, 0x809B_0000];

impl Found {
    fn take(
        &mut self,
        span: &Span,
        value: &DataValue<'_>,
        slot: &mut Slot,
        stats: &mut Stats,
        max_bytes: usize,
        scratch: &mut Scratch,
    ) {
        let Some(time_ns) = value.stamps.source.or(value.stamps.server) else { return };
        if NO_VALUE.contains(&(value.status & 0xFFFF_0000)) {
            return;
        }
        if time_ns <= span.from_ns || same(time_ns, span.from_ns) {
            self.from = true;
            return;
        }
        if time_ns >= span.to_ns || same(time_ns, span.to_ns) {
            self.to = true;
            return;
        }
        self.first_ns = if self.first_ns == 0 { time_ns } else { self.first_ns.min(time_ns) };
        self.last_ns = self.last_ns.max(time_ns);
        let (raw, quality) = match fit(value.value.content(), slot.spec.raw, scratch) {
            Fitted::Value(raw) => (raw, value.status),
            _ if matches!(value.value.content(), Content::Other(_)) => {
                self.refused += 1;
                return;
            }
            _ if value.status >> 31 == 1 => (Value::Absent, value.status),
            Fitted::NotText => (Value::Absent, BAD_DECODING_ERROR),
            Fitted::Mistyped => {
                stats.mistyped += 1;
                (Value::Absent, MISTYPED)
            }
        };
        let value = slot.spec.apply(raw);
        if is_full(stats, max_bytes, value) {
            stats.refused += 1;
            self.refused += 1;
            return;
        }
        stats.accepted += 1;
        stats.pending_bytes += slot.column.push(time_ns, value, quality) as u64;
        stats.pending_readings += 1;
        self.kept += 1;
    }
}

/// Whether a history's time is that of a value we know: it may have been cut to us or ms.
fn same(time_ns: i64, known_ns: i64) -> bool {
    [1_000, 1_000_000].iter().any(|unit| time_ns == known_ns - known_ns.rem_euclid(*unit))
}
