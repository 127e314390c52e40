//! Mistakes that were made once. Each test is named after what went wrong.

use _native::block::{self, MAX_BODY, MAX_COLUMNS, MAX_READINGS};
use _native::buffer::{Buffer, MAX_BYTES};
use _native::codec::{Codec, real};
use _native::column::Column;
use _native::tag::{TagSpec, Value, ValueType};

use crate::columns::META;
use crate::parts::{Parts, body, varints};

/// An entry of a bool column on time column 0, its values a constant of one byte.
const BOOL_ENTRY: [u64; 6] = [0, 0, 0, 0, 0, 1];

fn refusal(parts: &Parts) -> String {
    let (stored, packed) = (block::decode(&parts.join()), block::decode(&parts.join_packed()));
    assert_eq!(stored.as_ref().err(), packed.as_ref().err());
    stored.unwrap_err().to_string()
}

#[test]
fn time_columns_that_no_entry_named_took_all_memory() {
    // 300 constant time columns of the largest size are 10 GB decoded, and were 2 kB of block.
    let times = vec![(MAX_READINGS as u64, 0, &[0_u8] as &[u8]); 300];
    let mut times = [vec![(1, 0, &[0_u8] as &[u8])], times].concat();
    let entries = vec![(varints(&BOOL_ENTRY), vec![1]); 301];
    assert!(refusal(&Parts::new(301, 301, body(&times, &entries))).contains("more than 4194304 times"));
    times.truncate(1);
    assert!(block::decode(&Parts::new(301, 301, body(&times, &entries)).join()).is_ok());
}

#[test]
fn millions_of_empty_columns_took_a_gigabyte() {
    let columns = MAX_COLUMNS + 1;
    let entries = vec![(varints(&[0, 0, 0, 0, 6, 0]), vec![]); columns];
    let parts = Parts::new(columns as u64, 0, body(&[(0, 0, &[])], &entries));
    assert!(refusal(&parts).contains("262145 columns; at most 262144"));
    let tag = TagSpec { raw: ValueType::Bool, scale: None, filter: String::new(), range: None };
    assert!(Buffer::new(vec![tag; columns], 1).is_err());
}

#[test]
fn a_buffer_larger_than_a_body_made_blocks_that_nobody_could_read() {
    let tag = TagSpec { raw: ValueType::Text, scale: None, filter: String::new(), range: None };
    assert!(Buffer::new(vec![tag.clone()], MAX_BYTES + 1).is_err());
    let mut buffer = Buffer::new(vec![tag], MAX_BYTES).unwrap();
    let mut text = String::from_utf8(vec![b'x'; 1 << 16]).unwrap();
    for count in 0..3000_i64 {
        text.replace_range(..8, &format!("{count:08}"));
        buffer.push(0, count, Value::Text(&text), 0).unwrap();
    }
    let stats = buffer.stats();
    assert!(stats.refused > 0 && stats.accepted > 1500, "{stats:?}");
    let (header, columns) = block::decode(&buffer.take().unwrap().encode(&META)).unwrap();
    assert_eq!(header.readings, stats.accepted);
    assert!(columns[0].column.is_ok());
}

#[test]
fn the_last_place_of_a_stream_could_not_be_read() {
    let mut column = Column::new(ValueType::Bool);
    column.push(1, Value::Bool(true), 0);
    let last = block::Meta { sequence: u64::MAX, ..META };
    assert_eq!(block::header(&block::encode(&[(0, column)], &last)).unwrap().meta, last);
    assert_eq!(block::header(&block::gap(&last, 1, (0, 0), 0, "")).unwrap().places, 1);
}

#[test]
fn more_readings_than_a_block_may_have_are_refused_before_they_are_decoded() {
    let half = MAX_READINGS as u64 / 2 + 1;
    let entries = vec![(varints(&BOOL_ENTRY), vec![1]); 2];
    let parts = Parts::new(2, 2 * half, body(&[(half, 0, &[0])], &entries));
    assert!(refusal(&parts).contains("more than 4194304 readings"));
    let parts = Parts::new(1, half, body(&[(2 * half, 0, &[0])], &entries[..1]));
    assert!(refusal(&parts).contains("at most 4194304"));
}

#[test]
fn a_body_that_is_longer_or_shorter_than_it_says_is_refused() {
    let parts = Parts::new(1, 1, body(&[(1, 0, &[0])], &[(varints(&BOOL_ENTRY), vec![1])]));
    assert!(block::decode(&parts.join()).is_ok());
    let length = parts.body.len() as u64;
    for wrong in [0, length - 1, length + 1, MAX_BODY as u64, MAX_BODY as u64 + 1, u64::MAX] {
        assert!(block::decode(&parts.join_stored(&parts.body, wrong)).is_err());
        let mut packed = parts.clone();
        packed.set_flags(1);
        let frame = zstd::bulk::compress(&parts.body, 3).unwrap();
        assert!(block::decode(&packed.join_stored(&frame, wrong)).is_err());
    }
}

#[test]
fn ramps_in_step_with_the_sample_were_stored_raw() {
    for count in [60_i64, 240, 480, 1000, 4800] {
        for unit in [8.0, 100.0, 1000.0] {
            let ramp: Vec<f64> = (0..count).map(|i| i as f64 / unit).collect();
            let (codec, bytes) = real::encode(&ramp);
            assert_eq!(codec, Codec::Decimal, "{count} steps of 1/{unit}");
            assert!(bytes.len() < 20);
        }
    }
}
