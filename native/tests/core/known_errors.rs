//! Mistakes that were made once. Each test is named after what went wrong.

use _native::block::{self, MAX_BODY, MAX_COLUMNS, MAX_READINGS};
use _native::buffer::{Buffer, MAX_BYTES};
use _native::codec::{Codec, Sink, real};
use _native::column::Column;
use _native::tag::{TagSpec, Value, ValueType};
use _native::values::{MAX_LENGTH, Values};

use crate::columns::{META, waves};
use crate::parts::{Body, FLAG_ZSTD, varints};

/// A bool column on time column 0, its values a constant of one byte.
const BOOL: [u64; 5] = [0, 0, 0, 0, 0];

#[test]
fn time_columns_that_no_entry_named_took_all_memory() {
    // 300 constant time columns of the largest size are 10 GB decoded, and were 2 kB of block.
    let times = [vec![[1, 0]], vec![[MAX_READINGS as u64, 0]; 300]].concat();
    let mut body = Body { times, columns: vec![BOOL; 301], streams: vec![1; 602], ..Body::default() };
    assert!(body.refusal(301).contains("more than 4194304 readings"));
    body.times.truncate(1);
    body.streams = [vec![0], vec![1; 301]].concat();
    assert!(block::decode(&body.parts(301).join()).is_ok());
}

#[test]
fn millions_of_empty_columns_took_a_gigabyte() {
    let columns = MAX_COLUMNS + 1;
    let body = Body { times: vec![[0, 0]], columns: vec![BOOL; columns], ..Body::default() };
    assert!(body.refusal(0).contains("262145 columns; at most 262144"));
    let body = Body { columns: vec![BOOL; MAX_COLUMNS], ..body };
    assert_eq!(block::decode(&body.parts(0).join()).unwrap().1.len(), MAX_COLUMNS);
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
    let body = Body { times: vec![[half, 0]], columns: vec![BOOL; 2], streams: vec![0, 1, 1], ..Body::default() };
    assert!(body.refusal(2 * half).contains("more than 4194304 readings"));
    let body = Body { times: vec![[2 * half, 0]], columns: vec![BOOL], streams: vec![0, 1], ..Body::default() };
    assert!(body.refusal(2 * half).contains("more than 4194304 readings"));
}

#[test]
fn a_part_that_is_longer_or_shorter_than_it_says_is_refused() {
    let body = Body { times: vec![[1, 0]], columns: vec![BOOL], streams: vec![0, 1], ..Body::default() };
    let mut parts = body.parts(1);
    assert!(block::decode(&parts.join()).is_ok());
    let length = parts.soft.len() as u64;
    let frame = zstd::bulk::compress(&parts.soft, 3).unwrap();
    for wrong in [0, length - 1, length + 1, MAX_BODY as u64, MAX_BODY as u64 + 1, u64::MAX] {
        parts.set_flags(0);
        assert!(block::decode(&parts.join_with(&parts.soft, [0, wrong], 0)).is_err());
        assert!(block::decode(&parts.join_with(&parts.soft, [wrong.max(1), length], 0)).is_err());
        parts.set_flags(FLAG_ZSTD);
        assert!(block::decode(&parts.join_stored(&frame, wrong)).is_err());
    }
}

#[test]
fn ramps_in_step_with_the_sample_were_stored_raw() {
    for count in [60_i64, 240, 480, 1000, 4800] {
        for unit in [8.0, 100.0, 1000.0] {
            let ramp: Vec<f64> = (0..count).map(|i| i as f64 / unit).collect();
            let mut sink = Sink::default();
            assert_eq!(real::encode(&ramp, &mut sink), Codec::Decimal, "{count} steps of 1/{unit}");
            assert!(sink.since([0; 3]) < 20);
        }
    }
}

#[test]
fn a_few_bytes_of_rice_codes_or_of_pcodec_claimed_millions_of_values() {
    let readings = MAX_READINGS as u64;
    for (kind, codec, heads, soft, hard) in [
        (ValueType::Int64, Codec::Rice, vec![0, 0], vec![0], vec![0xff; 9]),
        (ValueType::Int64, Codec::Delta, vec![0], vec![0; 9], vec![]),
        (ValueType::Int64, Codec::Hold, vec![8, 0, 0], vec![0; 9], vec![0xff; 9]),
        (ValueType::Int64, Codec::Raw, vec![], vec![0; 9], vec![]),
        (ValueType::Float64, Codec::Raw, vec![], vec![0; 9], vec![]),
        (ValueType::Float64, Codec::Decimal, vec![0, 8, 0, 0], vec![0], vec![0xff; 9]),
        (ValueType::Float64, Codec::Pco, vec![], vec![9], vec![4; 9]),
        (ValueType::Text, Codec::Dictionary, vec![8, 0, 0], vec![2, 0, 0, 0], vec![0xff; 9]),
        (ValueType::Bool, Codec::Bitmap, vec![], vec![0xff; 9], vec![]),
    ] {
        let columns = vec![[0, kind as u64, 0, 0, codec as u64]];
        let mut body = Body { times: vec![[readings, 0]], columns, heads, streams: vec![0], hard, ..Body::default() };
        body.streams.extend(soft);
        assert!(body.refusal(readings).starts_with("not a readable block"), "{codec:?}");
    }
}

#[test]
fn a_pcodec_stream_of_another_count_was_read_in_part() {
    let values = waves(7);
    let mut sink = Sink::default();
    assert_eq!(real::encode(&values, &mut sink), Codec::Pco);
    let body = |readings| Body {
        times: vec![[readings, Codec::Step as u64]],
        columns: vec![[0, ValueType::Float64 as u64, 0, 0, Codec::Pco as u64]],
        streams: [&[0, 2], &sink.soft[..]].concat(),
        hard: sink.hard.clone(),
        ..Body::default()
    };
    assert!(block::decode(&body(300).parts(300).join()).is_ok());
    for wrong in [0, 1, 128, 255, 256, 257, 299, 301, 512, 4096, MAX_READINGS as u64] {
        assert!(body(wrong).refusal(wrong).starts_with("not a readable block"), "{wrong}");
    }
}

#[test]
fn a_presence_or_a_bool_of_2_was_taken_for_1() {
    for (column, runs) in [([0, 0, 0, 0, 5], vec![3, 1]), ([0, 0, 2, 0, 0], vec![3, 1, 1])] {
        let mut body = Body { times: vec![[3, 0]], columns: vec![column], ..Body::default() };
        body.streams = [vec![0], runs].concat();
        assert!(block::decode(&body.parts(3).join()).is_ok());
        body.streams[2] = 2;
        assert!(body.refusal(3).ends_with("a flag that is not 0 or 1"));
    }
}

#[test]
fn values_past_their_type_were_read_as_they_are() {
    let constant = |kind: ValueType, zigzag: u64| {
        let mut body = Body { times: vec![[1, 0]], columns: vec![[0, kind as u64, 0, 0, 0], BOOL], ..Body::default() };
        body.streams = [vec![0], varints(&[zigzag]), vec![1]].concat();
        let (_, columns) = block::decode(&body.parts(2).join()).unwrap();
        assert!(columns[1].column.is_ok(), "the others can be read");
        columns[0].column.clone().map(|_| ())
    };
    for (kind, most) in [(ValueType::Int8, 127), (ValueType::Int16, 32_767), (ValueType::Int32, (1_u64 << 31) - 1)] {
        assert_eq!((constant(kind, 2 * most), constant(kind, 2 * most + 1)), (Ok(()), Ok(())));
        let refusal = Err(format!("values that {} can't have", kind.name()));
        assert_eq!((constant(kind, 2 * most + 2), constant(kind, 2 * most + 3)), (refusal.clone(), refusal));
    }
    for (kind, most) in [(ValueType::UInt8, 255), (ValueType::UInt16, 65_535), (ValueType::UInt32, (1_u64 << 32) - 1)] {
        assert_eq!((constant(kind, 0), constant(kind, 2 * most)), (Ok(()), Ok(())));
        let refusal = Err(format!("values that {} can't have", kind.name()));
        assert_eq!((constant(kind, 1), constant(kind, 2 * most + 2)), (refusal.clone(), refusal));
    }
}

#[test]
fn to_keep_one_array_copied_those_of_the_whole_block() {
    // 16 arrays of 2^20 elements, in some 40 bytes: 2 GB of copies for 128 MB of values, and far more with more arrays.
    let (kind, length) = (ValueType::Int64Array as u64, MAX_LENGTH as u64);
    let streams = [vec![0], varints(&[2 * length]), vec![2]].concat();
    let columns = vec![[0, kind, 0, 0, Codec::Constant as u64]];
    let body = Body { times: vec![[16, 0]], columns, heads: vec![0], streams, ..Body::default() };
    let (_, columns) = block::decode(&body.parts(16).join()).unwrap();
    let column = columns[0].column.as_ref().unwrap();
    let kept = column.iter().map(|(_, value, _)| match value {
        Value::Array(items) => items.to_values(),
        other => panic!("{other:?}"),
    });
    for kept in kept.take(2) {
        let Values::Integer(kept) = kept else { panic!("{kept:?}") };
        assert_eq!(kept.len(), MAX_LENGTH);
        assert!(kept.capacity() < 2 * MAX_LENGTH, "room for {}", kept.capacity());
    }
}
