//! Arrays and bytes from outside: what they claim is bounded before it is there, and a full buffer is never too much.

use _native::block::{self, MAX_ELEMENTS, MAX_READINGS};
use _native::buffer::{Buffer, MAX_BYTES};
use _native::codec::Codec;
use _native::tag::{TagSpec, Value, ValueType};
use _native::values::{Items, MAX_LENGTH, Values};

use crate::columns::META;
use crate::parts::{Body, varints};

/// A block of one column of arrays: its lengths and what its elements take.
fn arrays(kind: ValueType, readings: u64, codec: Codec, heads: &[u8], soft: &[u8]) -> Body {
    Body {
        times: vec![[readings, 0]],
        columns: vec![[0, kind as u64, 0, 0, codec as u64]],
        heads: heads.to_vec(),
        streams: [&[0], soft].concat(),
        ..Body::default()
    }
}

#[test]
fn a_few_bytes_claimed_more_elements_than_memory_has() {
    let constant = |kind: ValueType, readings: u64, length: u64, element: &[u8]| {
        let lengths = varints(&[2 * length]);
        arrays(kind, readings, Codec::Constant, &[Codec::Constant as u8], &[&lengths, element].concat())
    };
    let most = MAX_LENGTH as u64;
    let (_, columns) = block::decode(&constant(ValueType::Int64Array, 16, most, &[2]).parts(16).join()).unwrap();
    assert_eq!(columns[0].column.as_ref().unwrap().values.elements(), MAX_ELEMENTS);
    for (kind, element) in [
        (ValueType::BoolArray, &[1][..]),
        (ValueType::Int64Array, &[2]),
        (ValueType::Float64Array, &[0; 8]),
        (ValueType::TextArray, &[0]),
        (ValueType::BytesArray, &[0]),
    ] {
        let refusal = constant(kind, 17, most, element).refusal(17);
        assert_eq!(refusal, "not a readable block: more than 16777216 elements");
        let readings = MAX_READINGS as u64;
        assert_eq!(constant(kind, readings, most, element).refusal(readings), refusal);
        for wrong in [most + 1, 1 << 40, (1 << 63) - 1] {
            assert!(constant(kind, 1, wrong, element).refusal(1).contains("elements; at most 1048576"));
        }
    }
    // A length of -1, and two columns that together have too many.
    let negative = arrays(ValueType::Int8Array, 1, Codec::Constant, &[0], &[1, 2]);
    assert!(negative.refusal(1).contains("an array of -1 elements"));
    let mut two = constant(ValueType::Int64Array, 16, most, &[2]);
    two.columns.push([0, ValueType::BoolArray as u64, 0, 0, 0]);
    two.heads.push(0);
    two.streams.extend([2, 1]);
    assert!(two.refusal(32).contains("more than 16777216 elements"));
}

#[test]
fn arrays_of_texts_are_bounded_like_texts() {
    let text = vec![b'x'; 1 << 10];
    let column = [&varints(&[2 << 18, 1 << 10])[..], &text].concat();
    let body = |readings| arrays(ValueType::TextArray, readings, Codec::Constant, &[0], &column);
    assert!(block::decode(&body(1).parts(1).join()).is_ok());
    assert!(body(2).refusal(2).contains("strings of more than 268435456 bytes"));
}

#[test]
fn elements_that_are_not_there_were_made_up() {
    for (kind, codec, heads, soft) in [
        (ValueType::Int32Array, Codec::Raw, vec![0], vec![8, 1, 0, 0, 0]),
        (ValueType::Float32Array, Codec::Raw, vec![0], vec![8, 1, 0, 0, 0]),
        (ValueType::BoolArray, Codec::Bitmap, vec![0], vec![200, 1]),
        (ValueType::BytesArray, Codec::Raw, vec![0], vec![8, 1, 7]),
        (ValueType::Int32Array, Codec::Bitmap, vec![0], vec![8, 1]),
        (ValueType::Int32Array, Codec::Constant, vec![Codec::Pco as u8], vec![8, 1]),
        (ValueType::Int32Array, Codec::Constant, vec![77], vec![8, 1]),
        (ValueType::Int32Array, Codec::Constant, vec![], vec![8, 1]),
        (ValueType::Float64Array, Codec::Pco, vec![0], vec![8, 0]),
    ] {
        let refusal = arrays(kind, 1, codec, &heads, &soft).refusal(1);
        assert!(refusal.starts_with("not a readable block"), "{kind:?} {codec:?}: {refusal}");
    }
}

#[test]
fn elements_past_their_type_make_one_column_unreadable() {
    let body = arrays(ValueType::Int8Array, 1, Codec::Constant, &[0], &varints(&[4, 256]));
    let (_, columns) = block::decode(&body.parts(1).join()).unwrap();
    assert_eq!(columns[0].column.clone().unwrap_err(), "values that int8[] can't have");
}

#[test]
fn the_lengths_of_arrays_stand_before_a_stream_of_an_added_codec() {
    // Two of 2 elements, in a codec that nobody knows; behind it a right column.
    let mut body = arrays(ValueType::Float32Array, 2, Codec::Constant, &[0], &[4, 3]);
    body.columns[0][4] = 99;
    body.columns.push([0, ValueType::UInt8 as u64, 0, 0, 0]);
    body.streams.push(18);
    body.hard = vec![1, 2, 3];
    let (_, columns) = block::decode(&body.parts(4).join()).unwrap();
    assert_eq!(columns[0].column.clone().unwrap_err(), "codec 99 is not known to this version");
    assert!(columns[1].column.is_ok());
}

#[test]
fn what_a_full_buffer_holds_of_arrays_is_a_block_that_can_be_read() {
    let tag = |raw| TagSpec { raw, scale: None, filter: String::new(), range: None };
    let mut buffer = Buffer::new(vec![tag(ValueType::BoolArray), tag(ValueType::TextArray)], MAX_BYTES).unwrap();
    let (mut bools, mut texts) = (Values::new(ValueType::Bool), Values::new(ValueType::Text));
    for at in 0..MAX_LENGTH {
        assert!(bools.push(Value::Bool(at % 3 == 0)) && texts.push(Value::Text("")));
    }
    for count in 0..20 {
        let items = Items::of(if count % 2 == 0 { &bools } else { &texts });
        buffer.push(count % 2, i64::from(count), Value::Array(items), 0).unwrap();
    }
    let stats = buffer.stats();
    assert_eq!((stats.accepted, stats.refused), (15, 5));
    let (_, columns) = block::decode(&buffer.take().unwrap().encode(&META)).unwrap();
    assert!(columns.iter().all(|column| column.column.is_ok()));
    // One element more than an array may have does not fit its type.
    assert!(bools.push(Value::Bool(true)));
    buffer.push(0, 1, Value::Array(Items::of(&bools)), 0).unwrap();
    assert_eq!(buffer.take().unwrap().readings(), 1);
    assert_eq!(buffer.latest().next().and_then(|(_, last)| last.reading()).map(|(time, ..)| time), Some(1));
}
