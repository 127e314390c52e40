//! Every filter keeps its word: 10,000 random signals and the real ones, checked by readers that know nothing of filters,
//! and against filters written the slow and plain way.

use std::io::Write;

use _native::block;
use _native::buffer::Buffer;
use _native::filter::Filter;
use _native::tag::{Last, TagSpec, Value, ValueType};

use crate::cell::Cell;
use crate::columns::{META, Row, all_rows, mix};
use crate::signals::{Signal, real_signals, signal};

/// What passes and its place in the signal, sealed before every reading at which `seals` says so.
fn filtered(
    text: &str,
    signal: &Signal,
    range: Option<(f64, f64)>,
    seals: impl Fn(usize) -> bool,
) -> Vec<(usize, Row)> {
    let mut filter = Filter::parse(text, signal.kind, range).unwrap().unwrap();
    let (mut latest, mut before): (Last, usize) = Default::default();
    let mut kept = Vec::new();
    for (index, row) in signal.rows.iter().enumerate() {
        if seals(index) {
            filter.flush(|time, value, quality| kept.push((before, (time, value.into(), quality))));
        }
        let first = kept.len();
        filter.offer(&latest, row.0, row.1.value(), row.2, |time, value, quality| {
            kept.push((before, (time, value.into(), quality)));
        });
        // What comes out for a reading is the one before it, itself, or both.
        match &mut kept[first..] {
            [] => (),
            [one] if one.1.0 != row.0 => (),
            [one] | [_, one] => one.0 = index,
            more => panic!("signal {}: {more:?} at once", signal.seed),
        }
        if index == 0 || signal.rows[index - 1] != *row {
            before = index;
        }
        latest.remember(row.0, row.1.value(), row.2);
    }
    filter.flush(|time, value, quality| kept.push((before, (time, value.into(), quality))));
    assert!(kept.is_sorted_by(|a, b| a.0 < b.0), "signal {}: doubled, or in another order", signal.seed);
    kept
}

/// The exact difference of two numbers, or at least one that is not rounded to less.
fn gap(a: &Cell, b: &Cell) -> f64 {
    match (a, b) {
        (Cell::Integer(a), Cell::Integer(b)) => a.abs_diff(*b) as f64,
        (Cell::Unsigned(a), Cell::Unsigned(b)) => a.abs_diff(*b) as f64,
        _ => (number(a) - number(b)).abs(),
    }
}

fn number(cell: &Cell) -> f64 {
    cell.value().as_f64().unwrap_or(f64::NAN)
}

fn finite(row: &Row) -> bool {
    number(&row.1).is_finite()
}

/// Which readings of a signal were kept: as they were.
fn places(signal: &Signal, kept: &[(usize, Row)]) -> Vec<bool> {
    let mut found = vec![false; signal.rows.len()];
    for (at, row) in kept {
        assert_eq!(&signal.rows[*at], row, "signal {}", signal.seed);
        found[*at] = true;
    }
    found
}

fn rows(kept: Vec<(usize, Row)>) -> Vec<Row> {
    kept.into_iter().map(|(_, row)| row).collect()
}

/// Parts of a signal in which time goes forward and the status stays: where lines may be drawn.
fn stretches(rows: &[Row]) -> Vec<std::ops::Range<usize>> {
    let breaks = (1..rows.len()).filter(|at| {
        let (a, b) = (&rows[at - 1], &rows[*at]);
        b.0 <= a.0 || a.2 != b.2 || !finite(a) || !finite(b)
    });
    let edges: Vec<usize> = std::iter::once(0).chain(breaks).chain([rows.len()]).collect();
    edges.windows(2).map(|edge| edge[0]..edge[1]).collect()
}

/// The signal without readings that were given twice: the second time they say nothing.
fn once(signal: &Signal, kept: &[bool]) -> (Vec<Row>, Vec<bool>) {
    let again = |at: usize| at > 0 && signal.rows[at - 1] == signal.rows[at];
    assert!((0..kept.len()).all(|at| !(again(at) && kept[at])), "signal {}: kept twice", signal.seed);
    (0..kept.len()).filter(|at| !again(*at)).map(|at| (signal.rows[at].clone(), kept[at])).unzip()
}

/// How far off a reader is that interpolates between kept Good readings, at worst: in three ways to write it down.
fn worst_of_lines(signal: &Signal, kept: &[bool]) -> f64 {
    let (rows, kept) = once(signal, kept);
    let mut worst = 0.0_f64;
    for stretch in stretches(&rows) {
        let (rows, kept) = (&rows[stretch.clone()], &kept[stretch.clone()]);
        let kept: Vec<usize> = (0..rows.len()).filter(|at| kept[*at]).collect();
        // Of a line, both ends are there; of what is none, everything.
        assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&(rows.len() - 1))), "signal {}", signal.seed);
        assert!(rows[0].2 >> 30 == 0 || kept.len() == rows.len(), "signal {}: not Good, and left out", signal.seed);
        for (at, row) in rows.iter().enumerate() {
            let after = kept.partition_point(|place| *place < at);
            if kept[after] == at {
                continue;
            }
            let (a, b) = (&rows[kept[after - 1]], &rows[kept[after]]);
            let (y0, y1) = (number(&a.1), number(&b.1));
            let (run, part) = ((b.0 - a.0) as f64, (row.0 - a.0) as f64);
            let (share, value) = (part / run, number(&row.1));
            let lines = [y0 + (y1 - y0) * share, y0 + (y1 - y0) / run * part, y0 * (1.0 - share) + y1 * share];
            worst = lines.iter().fold(worst, |worst, line| worst.max((line - value).abs()));
        }
    }
    worst
}

/// The swinging door from its definition: a segment goes on as long as every reading in it is within E of the line.
fn plain_door(rows: &[Row], bound: f64) -> Vec<bool> {
    let mut kept = vec![false; rows.len()];
    kept[0] = true;
    let mut pivot = 0;
    for new in 1..rows.len() {
        let slope = (number(&rows[new].1) - number(&rows[pivot].1)) / (rows[new].0 - rows[pivot].0) as f64;
        let fits = |at: usize| {
            let line = number(&rows[pivot].1) + slope * (rows[at].0 - rows[pivot].0) as f64;
            (line - number(&rows[at].1)).abs() <= bound
        };
        if !(pivot + 1..new).all(fits) {
            pivot = new - 1;
            kept[pivot] = true;
        }
    }
    kept[rows.len() - 1] = true;
    kept
}

#[allow(clippy::explicit_write)] // the test harness swallows what `eprintln!` says in a test that passes
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

#[test]
fn swinging_door_on_10_000_signals() {
    let (mut closest, mut readings, mut left) = (0.0_f64, 0, 0);
    for seed in 0..10_000 {
        let signal = signal(seed);
        let text = format!("swinging_door={}", signal.bound);
        let seals = |index: usize| seed % 5 == 1 && mix(seed, index as u64).is_multiple_of(20);
        let kept = places(&signal, &filtered(&text, &signal, None, seals));
        let worst = worst_of_lines(&signal, &kept);
        assert!(worst <= signal.bound, "signal {seed}: off by {worst}, E is {}", signal.bound);
        closest = closest.max(worst / signal.bound);
        (readings, left) = (readings + kept.len(), left + kept.iter().filter(|kept| **kept).count());
        if signal.plain && seed % 5 != 1 && signal.rows[0].1 != signal.rows[1].1 && number(&signal.rows[0].1) < 1e10 {
            assert_eq!(kept, plain_door(&signal.rows, signal.bound), "signal {seed}");
        }
    }
    assert!(closest > 0.999, "a bound that is never needed is not the bound: {closest}");
    assert!(left * 5 < readings * 3, "{left} of {readings}: nothing was left out");
}

#[test]
fn grid_on_10_000_signals() {
    for seed in 0..10_000 {
        let signal = signal(seed);
        let kept = filtered(&format!("grid={}", signal.bound), &signal, None, |_| false);
        check_grid(&signal, &kept);
    }
}

fn check_grid(signal: &Signal, kept: &[(usize, Row)]) {
    assert_eq!(kept.len(), signal.rows.len(), "signal {}", signal.seed);
    for (was, (_, is)) in signal.rows.iter().zip(kept) {
        assert_eq!((was.0, was.2), (is.0, is.2), "signal {}", signal.seed);
        assert_eq!(std::mem::discriminant(&was.1), std::mem::discriminant(&is.1));
        let within = if finite(was) { gap(&was.1, &is.1) <= signal.bound } else { was.1 == is.1 };
        assert!(within, "signal {}: {was:?} became {is:?}, E is {}", signal.seed, signal.bound);
        if finite(was) && number(&was.1).abs() < 1e6 && was.1 != is.1 {
            let count = number(&is.1) / (2.0 * signal.bound);
            let whole = matches!(was.1, Cell::Integer(_) | Cell::Unsigned(_));
            // The point, and for float32 the value too, is rounded: by more steps of the grid the larger it is.
            let digits = if matches!(was.1, Cell::Real32(_)) { 1e-7 } else { 1e-15 };
            let slack = 1e-9 + count.abs() * digits;
            assert!(whole || (count - count.round()).abs() < slack, "signal {}: {is:?} is on no grid", signal.seed);
        }
    }
}

/// The deadband from its definition (and with a bound of 0, on change).
fn plain_deadband(rows: &[Row], bound: f64) -> Vec<bool> {
    let mut last = 0;
    (0..rows.len())
        .map(|at| {
            let (row, kept) = (&rows[at], &rows[last]);
            let new = at == 0 || {
                let before = &rows[at - 1];
                let both_nan = number(&row.1).is_nan() && number(&kept.1).is_nan();
                let equal = number(&row.1) == number(&kept.1) && !matches!(row.1, Cell::Integer(_) | Cell::Unsigned(_));
                let alike = match (&row.1, &kept.1) {
                    (Cell::Absent, Cell::Absent) => true,
                    (Cell::Absent, _) | (_, Cell::Absent) => false,
                    (a, b) => equal || both_nan || gap(a, b) <= bound,
                };
                let again = before.0 == row.0 && before.2 == row.2 && row.1.value().same(before.1.value());
                !again && (row.2 != kept.2 || row.0 <= before.0 || !alike)
            };
            if new {
                last = at;
            }
            new
        })
        .collect()
}

/// How far off a reader is that holds the last kept reading; what is no number has to be the same.
fn check_held(signal: &Signal, kept: &[bool], bound: f64) {
    let mut held = &signal.rows[0];
    for (row, kept) in signal.rows.iter().zip(kept) {
        if *kept {
            held = row;
        }
        assert_eq!(row.2, held.2, "signal {}: a status was lost", signal.seed);
        if finite(row) && finite(held) {
            assert!(gap(&row.1, &held.1) <= bound, "signal {}: {row:?} is held as {held:?}", signal.seed);
        } else {
            assert!(row.1.value().same(held.1.value()), "signal {}: {row:?} is held as {held:?}", signal.seed);
        }
    }
}

#[test]
fn deadband_and_on_change_on_10_000_signals() {
    for seed in 0..10_000 {
        let signal = signal(seed);
        let seals = |index: usize| index.is_multiple_of(7); // which changes nothing for them
        let span = signal.bound * 50.0;
        let kept = places(&signal, &filtered("deadband=2%", &signal, Some((-span, 0.0)), seals));
        let bound = 2.0 * span / 100.0;
        check_held(&signal, &kept, bound);
        assert_eq!(kept, plain_deadband(&signal.rows, bound), "signal {seed}");
        let kept = places(&signal, &filtered("on_change", &signal, None, seals));
        check_held(&signal, &kept, 0.0);
        assert_eq!(kept, plain_deadband(&signal.rows, 0.0), "signal {seed}");
    }
}

#[test]
fn no_silence_is_longer_than_the_heartbeat() {
    for seed in (0..4000).step_by(2) {
        let signal = signal(seed);
        let step = signal.rows.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
        let most = step * (2 + (seed % 9) as i64);
        for (rule, slack) in [("swinging_door=1e9", 0), ("deadband=1e9", step), ("on_change", step)] {
            // A heartbeat in whole ns, as hours.
            let text = format!("{rule}; heartbeat={}h", most as f64 / 3.6e12);
            let kept = rows(filtered(&text, &signal, None, |_| false));
            let silence = kept.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0);
            assert!(silence <= most + slack, "signal {seed}, {text}: {silence} of {most}");
            let last = signal.rows[signal.rows.len() - 1].0 - kept[kept.len() - 1].0;
            assert!(last < most.max(1), "signal {seed}, {text}: silent at the end for {last}");
        }
    }
}

/// What passes one filter, however the calls are cut into blocks, arrives in the blocks; nothing twice, nothing late.
#[test]
fn blocks_hold_what_passed_and_every_held_reading() {
    for seed in 0..300 {
        let signal = signal(seed);
        for rule in ["swinging_door", "grid", "deadband"] {
            let text = format!("{rule}={}; heartbeat=1h", signal.bound);
            let spec = TagSpec { raw: signal.kind, scale: None, filter: text.clone(), range: None };
            let mut buffer = Buffer::new(vec![spec], 1 << 20).unwrap();
            let seals = |index: usize| mix(seed, index as u64).is_multiple_of(40);
            let mut stored = Vec::new();
            let seal = |buffer: &mut Buffer, stored: &mut Vec<Row>| {
                let pending = buffer.stats();
                let latest = stored.len() + pending.pending_readings as usize;
                if let Some(taken) = buffer.take() {
                    let (header, columns) = block::decode(&taken.encode(&META)).unwrap();
                    let (_, rows) = all_rows(&columns).remove(0);
                    assert_eq!(header.readings, pending.pending_readings);
                    let bytes = rows.iter().map(|(_, cell, _)| _native::column::size(cell.value()) as u64).sum::<u64>();
                    assert_eq!(bytes, pending.pending_bytes);
                    stored.extend(rows);
                }
                assert_eq!(stored.len(), latest);
                assert!(buffer.take().is_none(), "once taken, nothing is held");
            };
            for (index, (time, cell, quality)) in signal.rows.iter().enumerate() {
                if seals(index) {
                    seal(&mut buffer, &mut stored);
                }
                let before = buffer.stats().pending_readings;
                let passed = buffer.push(0, *time, cell.value(), *quality).unwrap();
                assert_eq!(buffer.stats().pending_readings - before, u64::from(passed));
            }
            seal(&mut buffer, &mut stored);
            let stats = buffer.stats();
            assert_eq!(stats.accepted, stats.filtered + stats.sealed_readings);
            assert_eq!(stored, rows(filtered(&text, &signal, None, seals)), "signal {seed}, {text}");
        }
    }
}

#[test]
fn a_full_buffer_has_room_for_what_is_held() {
    let spec = TagSpec { raw: ValueType::Float64, scale: None, filter: "swinging_door=1".into(), range: None };
    let mut buffer = Buffer::new(vec![spec], 3 * 16).unwrap();
    for (time, value) in [(0, 0.0), (1, 0.0), (2, 0.0), (3, 50.0), (4, 0.0), (5, 50.0)] {
        buffer.push(0, time, Value::Real64(value), 0).unwrap();
    }
    let stats = buffer.stats();
    assert_eq!((stats.pending_readings, stats.pending_bytes, stats.filtered, stats.refused), (3, 48, 1, 2));
    assert_eq!(buffer.take().unwrap().bounds(), (0, 3));
}

#[test]
fn real_signals_where_they_are() {
    let signals = real_signals();
    let (mut runs, mut readings, mut left) = (0, 0, 0);
    for mut signal in signals {
        let values = signal.rows.iter().map(|row| number(&row.1));
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low == high {
            continue;
        }
        for share in [0.001, 0.01, 0.02] {
            signal.bound = (high - low) * share;
            let bound = signal.bound;
            let kept = places(&signal, &filtered(&format!("swinging_door={bound}"), &signal, None, |_| false));
            let worst = worst_of_lines(&signal, &kept);
            assert!(worst <= bound, "real signal {}: off by {worst}, E is {bound}", signal.seed);
            (readings, left) = (readings + kept.len(), left + kept.iter().filter(|kept| **kept).count());
            check_grid(&signal, &filtered(&format!("grid={bound}"), &signal, None, |_| false));
            let kept = places(&signal, &filtered(&format!("deadband={bound}"), &signal, None, |_| false));
            check_held(&signal, &kept, bound);
            runs += 1;
        }
    }
    say(&format!(
        "filters: {} real signals ({runs} runs), the swinging door kept {left} of {readings} readings",
        runs / 3
    ));
}
