//! The buffer against a naive model: rows in a list. Nothing is lost, doubled or miscounted, in any order of calls.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::block::{self, MAX_READINGS};
use _native::buffer::Buffer;
use _native::decode::modbus::{Field, Order};
use _native::error::Error;
use _native::tag::{Scale, TagSpec, Value, ValueType};

use crate::cell::{Cell, Habit};
use crate::columns::{META, Row, all_rows, cases, habit};

/// The tags of every run: each filter, a scaled tag, text that may not decode, and a coil.
fn tags() -> Vec<TagSpec> {
    let tag = |raw, scale, filter: &str| TagSpec { raw, scale, filter: filter.to_owned(), range: None };
    vec![
        tag(ValueType::Int16, None, ""),
        tag(ValueType::Int16, Some(Scale { factor: 0.1, offset: -20.0 }), ""),
        tag(ValueType::Float64, None, "deadband=5"),
        tag(ValueType::UInt64, None, "deadband=5"),
        tag(ValueType::Text, None, "on_change"),
        tag(ValueType::Float32, None, "on_change"),
        tag(ValueType::Bool, None, "on_change"),
    ]
}

/// The two Modbus requests of every run: registers of tags 0, 1, 4 (4 bytes) and 5; one coil of tag 6.
fn plans(buffer: &mut Buffer) {
    let field = |tag, at, kind, length| Field { length, ..Field::plain(tag, at, kind, Order::Abcd) };
    let fields = vec![
        field(0, 0, ValueType::Int16, 0),
        field(1, 1, ValueType::Int16, 0),
        field(4, 2, ValueType::Text, 4),
        field(5, 4, ValueType::Float32, 0),
    ];
    assert_eq!(buffer.modbus_plan(fields, false), Ok(0));
    assert_eq!(buffer.modbus_plan(vec![field(6, 0, ValueType::Bool, 0)], true), Ok(1));
}

#[derive(Debug, Clone)]
enum Call {
    Push(u32, Habit, u64, u32),
    Registers([u8; 12]),
    Coil(bool),
    WrongLength,
    Seal,
}

fn call() -> impl Strategy<Value = Call> {
    let quality = prop_oneof![8 => Just(0_u32), 1 => Just(0x8005_0000)];
    prop_oneof![
        8 => (0_u32..7, habit(), any::<u64>(), quality).prop_map(|(tag, habit, random, quality)| {
            Call::Push(tag, habit, random, quality)
        }),
        4 => vec(prop_oneof![0_u8..3, any::<u8>()], 12).prop_map(|bytes| Call::Registers(bytes.try_into().unwrap())),
        2 => any::<bool>().prop_map(Call::Coil),
        1 => Just(Call::WrongLength),
        1 => Just(Call::Seal),
    ]
}

/// The same buffer, written the slow and plain way.
#[derive(Default)]
struct Model {
    pending: Vec<(usize, Row)>,
    bytes: usize,
    latest: [Option<Row>; 7],
    passed: [Option<(Cell, u32)>; 7],
    accepted: u64,
    filtered: u64,
    refused: u64,
}

impl Model {
    fn take(&mut self, tag: usize, time: i64, raw: &Cell, quality: u32, most: usize) {
        let value = match raw {
            Cell::Integer(raw) if tag == 1 => Cell::Real64((*raw as f64 * 0.1 + -20.0).to_bits()),
            other => other.clone(),
        };
        let size = 8 + match &value {
            Cell::Absent => 0,
            Cell::Bool(_) => 1,
            Cell::Real32(_) => 4,
            Cell::Integer(_) | Cell::Unsigned(_) | Cell::Real64(_) => 8,
            Cell::Text(text) => 8 + text.len(),
            Cell::Bytes(bytes) => 8 + bytes.len(),
            Cell::Array(list) => 8 + 8 * list.0.len(),
        };
        if self.bytes + size > most {
            self.refused += 1;
            return;
        }
        self.accepted += 1;
        self.latest[tag] = Some((time, value.clone(), quality));
        if tag >= 2 {
            if self.passed[tag].as_ref().is_some_and(|last| held_back(tag, last, &value, quality)) {
                self.filtered += 1;
                return;
            }
            self.passed[tag] = Some((value.clone(), quality));
        }
        self.bytes += size;
        self.pending.push((tag, (time, value, quality)));
    }

    /// What a block of everything pending holds: by tag, then as it came.
    fn seal(&mut self) -> Vec<(u32, Vec<Row>)> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        let of = |tag| pending.iter().filter(|(each, _)| *each == tag).map(|(_, row)| row.clone()).collect::<Vec<_>>();
        (0..7).map(|tag| (tag as u32, of(tag))).filter(|(_, rows)| !rows.is_empty()).collect()
    }
}

fn held_back(tag: usize, last: &(Cell, u32), value: &Cell, quality: u32) -> bool {
    let nan = |bits: &u64| f64::from_bits(*bits).is_nan();
    last.1 == quality
        && match (&last.0, value) {
            (Cell::Real64(a), Cell::Real64(b)) if nan(a) || nan(b) => nan(a) && nan(b),
            (Cell::Real64(a), Cell::Real64(b)) => {
                let (a, b) = (f64::from_bits(*a), f64::from_bits(*b));
                a == b || (a - b).abs() <= 5.0
            }
            (Cell::Unsigned(a), Cell::Unsigned(b)) if tag == 3 => a.abs_diff(*b) <= 5,
            (Cell::Real32(a), Cell::Real32(b)) => {
                let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
                a == b || (a.is_nan() && b.is_nan())
            }
            (a, b) => a == b,
        }
}

/// What the registers of plan 0 say.
fn shown(bytes: &[u8; 12]) -> [(usize, Cell, u32); 4] {
    let word = |at: usize| Cell::Integer(i64::from(i16::from_be_bytes([bytes[at], bytes[at + 1]])));
    let text = bytes[4..8].split(|byte| *byte == 0).next().unwrap();
    let (text, quality) =
        std::str::from_utf8(text).map_or((Cell::Absent, 0x8007_0000), |text| (Cell::Text(text.into()), 0));
    let real = Cell::Real32(u32::from_be_bytes(bytes[8..12].try_into().unwrap()));
    [(0, word(0), 0), (1, word(2), 0), (4, text, quality), (5, real, 0)]
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_order_of_calls(calls in vec(call(), 1..200), most in prop_oneof![Just(1 << 20), 0_usize..600]) {
        let mut buffer = Buffer::new(tags(), most).unwrap();
        plans(&mut buffer);
        let (mut model, mut sealed, mut blocks) = (Model::default(), 0, 0);
        for (time, call) in calls.into_iter().chain([Call::Seal]).enumerate() {
            let (time, kept) = (time as i64, model.pending.len());
            match call {
                Call::Push(tag, habit, random, quality) => {
                    let kind = buffer.spec(tag).unwrap().raw;
                    let cell = if random % 7 == 0 { Cell::Absent } else { habit.cell(kind, 0, random >> 3) };
                    let passed = buffer.push(tag, time, cell.value(), quality).unwrap();
                    model.take(tag as usize, time, &cell, quality, most);
                    prop_assert_eq!(usize::from(passed), model.pending.len() - kept);
                }
                Call::Registers(bytes) => {
                    let passed = buffer.push_registers(0, &bytes, time).unwrap();
                    for (tag, cell, quality) in shown(&bytes) {
                        model.take(tag, time, &cell, quality, most);
                    }
                    prop_assert_eq!(passed, model.pending.len() - kept);
                }
                Call::Coil(on) => {
                    buffer.push_registers(1, &[u8::from(on)], time).unwrap();
                    model.take(6, time, &Cell::Bool(on), 0, most);
                }
                Call::WrongLength => {
                    let wrong = Err(Error::Length { expected: 12, found: 11 });
                    prop_assert_eq!(buffer.push_registers(0, &[1; 11], time), wrong);
                }
                Call::Seal => {
                    let expected = model.seal();
                    let taken = buffer.take();
                    prop_assert_eq!(taken.is_none(), expected.is_empty());
                    if let Some(taken) = taken {
                        let bytes = taken.encode(&META);
                        let (header, columns) = block::decode(&bytes).unwrap();
                        prop_assert_eq!(header.readings as usize, taken.readings());
                        prop_assert_eq!((header.first_ns, header.last_ns), taken.bounds());
                        prop_assert_eq!(all_rows(&columns), expected);
                        (sealed, blocks) = (sealed + header.readings, blocks + 1);
                    }
                }
            }
            let stats = buffer.stats();
            prop_assert_eq!(
                (stats.accepted, stats.filtered, stats.refused, stats.mistyped),
                (model.accepted, model.filtered, model.refused, 0)
            );
            prop_assert_eq!((stats.pending_readings as usize, stats.pending_bytes as usize), (model.pending.len(), model.bytes));
            prop_assert_eq!((stats.sealed_readings, stats.sealed_blocks), (sealed, blocks));
            prop_assert_eq!(stats.accepted, stats.filtered + stats.pending_readings + stats.sealed_readings);
        }
        let row = |(time, value, quality): (i64, Value<'_>, u32)| (time, value.into(), quality);
        let latest: Vec<(u32, Row)> = buffer.latest().map(|(tag, last)| (tag, row(last.reading().unwrap()))).collect();
        let expected: Vec<(u32, Row)> =
            model.latest.into_iter().enumerate().filter_map(|(tag, row)| Some((tag as u32, row?))).collect();
        prop_assert_eq!(latest, expected);
    }
}

#[test]
fn no_block_gets_more_readings_than_a_decoder_takes() {
    let mut buffer = Buffer::new(tags(), 128 << 20).unwrap();
    for count in 0..=MAX_READINGS as i64 {
        buffer.push(6, count, Value::Absent, count as u32).unwrap();
    }
    let stats = buffer.stats();
    assert_eq!((stats.pending_readings, stats.refused), (MAX_READINGS as u64, 1));
    let taken = buffer.take().unwrap();
    assert!(block::decode(&taken.encode(&META)).is_ok());
    assert_eq!(buffer.push(6, 0, Value::Absent, 1), Ok(true), "there is room again");
}

#[test]
fn what_a_wider_deadband_left_out_is_not_said_to_be_within_a_narrower_one() {
    let spec = TagSpec { raw: ValueType::Float64, scale: None, filter: "deadband=10%".into(), range: None };
    let other = TagSpec { raw: ValueType::Bool, filter: String::new(), ..spec.clone() };
    let mut buffer = Buffer::new(vec![spec, other], 1 << 20).unwrap();
    let push = |buffer: &mut Buffer, time, value| buffer.push(0, time, Value::Real64(value), 0).unwrap();
    let bound = |buffer: &mut Buffer| {
        let (_, columns) = block::decode(&buffer.take().unwrap().encode(&META)).unwrap();
        columns[0].column.as_ref().unwrap().note.map(|note| note.bound)
    };
    push(&mut buffer, 1, 0.0);
    assert_eq!(bound(&mut buffer), None, "until the range is known everything is kept");
    buffer.set_range(0, 0.0, 100.0).unwrap();
    assert!(push(&mut buffer, 2, 0.0) && !push(&mut buffer, 3, 9.0));
    // The server was told another range meanwhile.
    buffer.set_range(0, 0.0, 10.0).unwrap();
    assert!(push(&mut buffer, 4, 9.0) && push(&mut buffer, 5, 11.0));
    assert_eq!(bound(&mut buffer), Some(10.0));
    push(&mut buffer, 6, 0.0);
    assert_eq!(bound(&mut buffer), Some(1.0));
    // A block that it is not in does not count.
    assert!(!push(&mut buffer, 7, 0.9));
    buffer.push(1, 7, Value::Bool(true), 0).unwrap();
    assert_eq!(buffer.take().unwrap().readings(), 1);
    buffer.set_range(0, 0.0, 5.0).unwrap();
    push(&mut buffer, 8, 0.0);
    assert_eq!(bound(&mut buffer), Some(1.0));
    push(&mut buffer, 9, 1.0);
    assert_eq!(bound(&mut buffer), Some(0.5));
}

#[test]
fn a_group_is_parted_from_what_was_taken_and_the_rest_stays() {
    let mut buffer = Buffer::new(tags(), 1 << 20).unwrap();
    assert!(buffer.regroup(&[0; 3]).is_err(), "there are seven tags");
    buffer.regroup(&[1, 2, 1, 2, 1, 2, 3]).unwrap();
    for (tag, time) in [(0, 10), (1, 20), (5, 30), (0, 40)] {
        buffer.push(tag, time, Value::Absent, 1).unwrap();
    }
    let mut taken = buffer.take().unwrap();
    buffer.push(1, 50, Value::Absent, 1).unwrap();
    assert!(buffer.part(&mut taken, 3).is_none(), "nothing was pushed to it");
    let part = buffer.part(&mut taken, 2).unwrap();
    assert_eq!((part.readings(), part.bounds()), (2, (20, 30)));
    let (_, columns) = block::decode(&part.encode(&META)).unwrap();
    assert_eq!(columns.iter().map(|column| column.tag).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(buffer.part(&mut taken, 1).unwrap().bounds(), (10, 40));
    assert!(taken.is_empty());
    let stats = buffer.stats();
    assert_eq!((stats.pending_readings, stats.sealed_readings, stats.sealed_blocks), (1, 4, 2));
}

#[test]
fn what_does_not_exist_is_refused_and_keeps_nothing() {
    let mut buffer = Buffer::new(tags(), 1 << 20).unwrap();
    assert_eq!(buffer.push(7, 0, Value::Bool(true), 0), Err(Error::Unknown { what: "tag", number: 7, count: 7 }));
    assert_eq!(buffer.push_registers(0, &[], 0), Err(Error::Unknown { what: "plan", number: 0, count: 0 }));
    let field = |tag, kind| Field::plain(tag, 0, kind, Order::Abcd);
    let refusal = buffer.modbus_plan(vec![field(0, ValueType::Int32)], false).unwrap_err();
    assert_eq!(refusal.to_string(), "tag 0 is int16, not int32");
    assert!(buffer.modbus_plan(vec![field(9, ValueType::Int32)], false).is_err());
    assert!(buffer.take().is_none());
    assert!(
        Buffer::new(vec![TagSpec { raw: ValueType::Bool, scale: None, filter: "swing".into(), range: None }], 1)
            .is_err()
    );
}
