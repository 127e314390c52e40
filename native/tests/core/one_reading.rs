//! What the smallest blocks cost.

use _native::block::{self, Meta};
use _native::buffer::Buffer;
use _native::column::{Column, Note, NoteKind};
use _native::tag::{TagSpec, Value, ValueType};
use _native::values::{Items, Values};

use crate::cell::KINDS;
use crate::columns::rows;

/// A block as the millionth of a stream is, sealed two seconds after its only reading.
fn block_of(kind: ValueType, value: Value<'_>, quality: u32, note: Option<Note>) -> Vec<u8> {
    let time = 1_750_000_000_123_456_789;
    let mut column = Column::new(kind);
    column.push(time, value, quality);
    column.note = note;
    let meta = Meta {
        stream: [0xa5; 16],
        sequence: 1_000_000,
        epoch: u64::MAX,
        sealed_ns: time + 2_000_000_000,
        synchronized: false,
    };
    let bytes = block::encode(&[(200_000, column.clone())], &meta);
    let (_, columns) = block::decode(&bytes).unwrap();
    assert_eq!(rows(columns[0].column.as_ref().unwrap()), rows(&column));
    bytes
}

#[test]
fn a_block_of_one_reading_costs_at_most_100_bytes() {
    for kind in KINDS {
        let empty;
        let values = match kind {
            ValueType::Bool => vec![Value::Bool(false), Value::Bool(true)],
            ValueType::Float32 => vec![Value::Real32(71.3), Value::Real32(f32::NAN)],
            ValueType::Float64 => vec![Value::Real64(71.3), Value::Real64(std::f64::consts::PI)],
            ValueType::Text => vec![Value::Text(""), Value::Text("Träger Ø40")],
            ValueType::Bytes => vec![Value::Bytes(b""), Value::Bytes(&[0xff; 16])],
            kind if kind.element().is_some() => {
                empty = Values::new(kind.element().unwrap());
                vec![Value::Array(Items::of(&empty))]
            }
            kind => {
                let (low, high) = kind.range().unwrap();
                let value =
                    |value: i128| if low < 0 { Value::Integer(value as i64) } else { Value::Unsigned(value as u64) };
                vec![value(low), value(high)]
            }
        };
        for value in [values, vec![Value::Absent]].concat() {
            let note = Some(Note { kind: NoteKind::SwingingDoor, bound: 0.1 });
            for (quality, note) in [(0, None), (0x8005_0000, None), (0, note)] {
                let length = block_of(kind, value, quality, note).len();
                assert!(length <= 100, "{length} bytes for {value:?}, quality {quality:#x}, {note:?}");
            }
        }
    }
}

#[test]
fn an_empty_seal_returns_nothing() {
    let tag = TagSpec { raw: ValueType::Bool, scale: None, filter: "on_change".to_owned(), range: None };
    let mut buffer = Buffer::new(vec![tag], 1 << 20).unwrap();
    assert!(buffer.take().is_none());
    buffer.push(0, 1, Value::Bool(true), 0).unwrap();
    assert!(buffer.take().is_some());
    buffer.push(0, 2, Value::Bool(true), 0).unwrap();
    assert!(buffer.take().is_none(), "its filter held the reading back");
}
