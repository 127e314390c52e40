//! Random columns, for the tests of everything that takes some.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::block::{DecodedColumn, Meta};
use _native::column::{Column, Note, NoteKind};

use crate::cell::{Cell, Habit, KINDS};

/// One reading of a column, comparable bit for bit.
pub(crate) type Row = (i64, Cell, u32);

/// The settings of every property: failures are printed, and no file is written.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Times that tick, tick with jitter, stand still, go backward, or are anything at all.
pub(crate) fn times() -> impl Strategy<Value = Vec<i64>> {
    (0_u8..5, any::<i64>(), 1_i64..2_000_000_000, vec(any::<i64>(), 1..300)).prop_map(|(shape, start, step, random)| {
        let place = |(index, random): (usize, i64)| {
            let tick = start.wrapping_add(step.wrapping_mul(index as i64));
            match shape {
                0 => tick,
                1 => tick.wrapping_add(random.rem_euclid(3_000_000)),
                2 => start,
                3 => tick.wrapping_sub(random.rem_euclid(4).wrapping_mul(step)),
                _ => random,
            }
        };
        random.into_iter().enumerate().map(place).collect()
    })
}

pub(crate) fn habit() -> impl Strategy<Value = Habit> {
    (0..Habit::COUNT, prop_oneof![any::<i64>(), -1000_i64..1000], -50_i64..50).prop_map(|(shape, start, step)| Habit {
        shape,
        start,
        step,
    })
}

/// No note, as a rule; or any.
fn note() -> impl Strategy<Value = Option<Note>> {
    let kinds = [NoteKind::OnChange, NoteKind::Deadband, NoteKind::SwingingDoor, NoteKind::Grid];
    prop::option::weighted(
        0.3,
        (prop::sample::select(kinds.to_vec()), 0.0..1e9).prop_map(|(kind, bound)| Note { kind, bound }),
    )
}

/// 1 to 5 columns of any types, some of which share their times; with absent values and bad qualities in every third.
pub(crate) fn columns() -> impl Strategy<Value = Vec<(u32, Column)>> {
    let of = (any::<prop::sample::Index>(), 0..KINDS.len(), habit(), 0_u8..3, any::<u64>(), 0_u32..1000, note());
    (vec(times(), 1..4), vec(of, 1..6)).prop_map(|(times, columns)| {
        let mut next_tag = 0;
        let each = columns.into_iter().map(|(which, kind, habit, faults, seed, step, note)| {
            let tag = next_tag + step;
            next_tag = tag + 1;
            let column = column(&times[which.index(times.len())], KINDS[kind], habit, faults == 0, seed);
            (tag, Column { note, ..column })
        });
        each.collect()
    })
}

fn column(times: &[i64], kind: _native::tag::ValueType, habit: Habit, faulty: bool, seed: u64) -> Column {
    let mut column = Column::new(kind);
    for (index, time) in times.iter().enumerate() {
        let random = mix(seed, index as u64);
        let quality = [0, 0, 0x8074_0000, random as u32][if faulty { random as usize >> 4 & 3 } else { 0 }];
        let cell = if faulty && random.is_multiple_of(5) { Cell::Absent } else { habit.cell(kind, index, random) };
        column.push(*time, cell.value(), quality);
    }
    column
}

/// 64 well-mixed bits (splitmix64).
pub(crate) fn mix(seed: u64, index: u64) -> u64 {
    let mut bits = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// A long smooth signal with every digit there is: what pcodec is for.
pub(crate) fn waves(seed: u64) -> Vec<f64> {
    (0..300).map(|at| (at as f64 / 40.0).sin() * 100.0 + (mix(seed, at) >> 54) as f64 / 7.0e6).collect()
}

pub(crate) fn meta() -> impl Strategy<Value = Meta> {
    (any::<[u8; 16]>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<bool>()).prop_map(
        |(stream, sequence, epoch, sealed_ns, synchronized)| Meta { stream, sequence, epoch, sealed_ns, synchronized },
    )
}

/// The stream, place, epoch and clock of blocks that are not about them.
pub(crate) const META: Meta = Meta { stream: [7; 16], sequence: 42, epoch: 9, sealed_ns: 1_000, synchronized: true };

/// A column's readings.
pub(crate) fn rows(column: &Column) -> Vec<Row> {
    column.iter().map(|(time, value, quality)| (time, Cell::from(value), quality)).collect()
}

/// The readings of all columns that could be read, by tag; panics where one could not.
pub(crate) fn all_rows(columns: &[DecodedColumn]) -> Vec<(u32, Vec<Row>)> {
    columns.iter().map(|column| (column.tag, rows(column.column.as_ref().unwrap()))).collect()
}
