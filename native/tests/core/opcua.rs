//! OPC UA responses against a naive encoder, by the words of OPC 10000-6, and against bytes that no server should send.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::buffer::{Buffer, Stats};
use _native::decode::opcua::{Part, Publish};
use _native::error::Error;
use _native::tag::{TagSpec, Value, ValueType};

use crate::cell::{Cell, KINDS};
use crate::columns::{cases, habit};

const RECEIVED_NS: i64 = 1_767_400_000_123_456_789;
/// 1970-01-01 in ticks of 100 ns since 1601.
const EPOCH: i64 = 116_444_736_000_000_000;

/// A length, and what is that long.
fn sized(count: usize, bytes: &[u8]) -> Vec<u8> {
    [&(count as i32).to_le_bytes(), bytes].concat()
}

fn opening(type_id: u16) -> Vec<u8> {
    [&[1, 0], &type_id.to_le_bytes()[..], &[0; 24]].concat()
}

/// A PublishResponse with one DataChangeNotification of so many values.
fn publish(count: usize, values: &[u8]) -> Vec<u8> {
    let change = [sized(count, values), vec![0; 4]].concat();
    let notification = [&[1, 0, 43, 3, 1], &sized(change.len(), &change)[..]].concat();
    [opening(829), vec![0; 21], sized(1, &notification), vec![0; 8]].concat()
}

/// The number of the built-in type that a tag's type, or its elements, are.
fn built_in(kind: ValueType) -> u8 {
    match kind.element().unwrap_or(kind) {
        ValueType::Bool => 1,
        ValueType::Int8 => 2,
        ValueType::UInt8 => 3,
        ValueType::Int16 => 4,
        ValueType::UInt16 => 5,
        ValueType::Int32 => 6,
        ValueType::UInt32 => 7,
        ValueType::Int64 => 8,
        ValueType::UInt64 => 9,
        ValueType::Float32 => 10,
        ValueType::Float64 => 11,
        ValueType::Text => 12,
        _ => 15,
    }
}

/// A value of a type, or an element of it.
fn element(kind: ValueType, value: Value<'_>) -> Vec<u8> {
    let width = kind.width();
    match value {
        Value::Bool(value) => vec![u8::from(value)],
        Value::Integer(value) => value.to_le_bytes()[..width].to_vec(),
        Value::Unsigned(value) => value.to_le_bytes()[..width].to_vec(),
        Value::Real32(value) => value.to_le_bytes().to_vec(),
        Value::Real64(value) => value.to_le_bytes().to_vec(),
        Value::Text(value) => sized(value.len(), value.as_bytes()),
        Value::Bytes(value) => sized(value.len(), value),
        Value::Absent | Value::Array(_) => panic!("no element"),
    }
}

/// A MonitoredItemNotification with a value, a status and a source time.
fn item(handle: usize, kind: ValueType, cell: &Cell, status: u32, ticks: i64) -> Vec<u8> {
    let variant = match cell.value() {
        Value::Absent => vec![0],
        Value::Array(items) => {
            let elements: Vec<u8> = items.iter().flat_map(|value| element(kind, value)).collect();
            [&[0x80 | built_in(kind)], &sized(items.len(), &elements)[..]].concat()
        }
        value => [&[built_in(kind)], &element(kind, value)[..]].concat(),
    };
    let handle = (handle as u32).to_le_bytes();
    [&handle[..], &[7], &variant, &status.to_le_bytes(), &ticks.to_le_bytes()].concat()
}

/// A buffer with a tag of every type, and the subscription whose handle i is tag i.
fn buffer() -> (Buffer, usize) {
    let spec = |raw| TagSpec { raw, scale: None, filter: String::new(), range: None };
    let mut buffer = Buffer::new(KINDS.map(spec).to_vec(), 1 << 20).unwrap();
    let pairs: Vec<(u32, u32)> = (0..KINDS.len() as u32).map(|tag| (tag, tag)).collect();
    let subscription = buffer.opcua_subscription(&pairs).unwrap();
    (buffer, subscription)
}

/// Pushes a body. What is refused must have left nothing behind.
fn survive(body: &[u8]) -> Result<bool, TestCaseError> {
    let (mut buffer, subscription) = buffer();
    let most = body.len() / 5;
    match buffer.push_publish(subscription, body, RECEIVED_NS) {
        Ok(found) => {
            let (kept, all) = (found.grew, found.readings + found.undecoded.len() + found.unknown_handles);
            prop_assert!(found.readings == kept && all <= most);
            prop_assert_eq!(buffer.stats().pending_readings, kept as u64);
            Ok(true)
        }
        Err(wrong) => {
            let expected = matches!(wrong, Error::Response { .. } | Error::Service(_));
            prop_assert!(expected, "{}", wrong);
            prop_assert_eq!(buffer.stats(), Stats::default());
            prop_assert!(buffer.take().is_none() && buffer.latest().next().is_none());
            Ok(false)
        }
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn every_type_comes_back_bit_for_bit(
        asked in vec((habit(), any::<u64>(), any::<u32>(), 0_i64..1 << 56), KINDS.len()),
    ) {
        let (mut values, mut expected) = (Vec::new(), Vec::new());
        for (tag, (kind, (habit, random, status, ticks))) in KINDS.into_iter().zip(asked).enumerate() {
            let cell = habit.cell(kind, 0, random);
            values.extend(item(tag, kind, &cell, status, EPOCH + ticks));
            expected.push((tag as u32, ticks * 100, cell, status));
        }
        let body = publish(KINDS.len(), &values);
        let (mut buffer, subscription) = buffer();
        let found = buffer.push_publish(subscription, &body, RECEIVED_NS).unwrap();
        prop_assert_eq!(found.grew, KINDS.len());
        let row = |tag, (time_ns, value, status)| (tag, time_ns, Cell::from(value), status);
        let kept: Vec<_> = buffer.latest().map(|(tag, last)| row(tag, last.reading().unwrap())).collect();
        prop_assert_eq!(kept, expected);
        for end in (0..body.len()).step_by(31) {
            prop_assert!(!survive(&body[..end])?, "a prefix of {}", end);
        }
    }

    #[test]
    fn values_of_any_bytes_are_kept_whole_or_not_at_all(count in 0_usize..4, bytes in vec(any::<u8>(), 0..60)) {
        survive(&publish(count, &bytes))?;
    }

    #[test]
    fn bodies_of_any_bytes_are_kept_whole_or_not_at_all(
        type_id in prop_oneof![Just(829), Just(835), Just(634), Just(397), any::<u16>()],
        bytes in vec(prop_oneof![Just(0), any::<u8>()], 0..80),
    ) {
        survive(&[opening(type_id), bytes].concat())?;
    }

    #[test]
    fn variants_of_any_bytes_end_where_they_end(
        encoding in any::<u8>(),
        bytes in vec(prop_oneof![3 => Just(0), 1 => Just(1), 1 => any::<u8>()], 0..40),
    ) {
        let value = [&[0, 0, 0, 0, 1, encoding], &bytes[..]].concat();
        survive(&publish(1, &value))?;
    }
}

#[test]
fn both_walks_of_a_body_see_the_same() {
    let values = item(3, ValueType::Int32, &Cell::Integer(-7), 0, EPOCH);
    let body = publish(1, &values);
    let response = Publish::read(&body).unwrap();
    let seen = || {
        let mut seen = Vec::new();
        let walked = response.walk(|part| {
            if let Part::Value { handle, value } = part {
                seen.push((handle, value.status, value.stamps.or(RECEIVED_NS)));
            }
        });
        walked.map(|()| seen)
    };
    assert_eq!(seen(), Ok(vec![(3, 0, 0)]));
    assert_eq!(seen(), seen());
}
