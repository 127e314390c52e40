//! What a later minor version may add must not stop this one from reading the rest.

use _native::block;
use _native::codec::Codec;
use _native::tag::ValueType;

use crate::cell::Cell;
use crate::columns::rows;
use crate::parts::{Parts, body, varints};

/// Three columns: a right one, `middle`, and a right one.
fn with_middle(middle: Vec<u8>, streams: Vec<u8>) -> Parts {
    let right = (varints(&[0, ValueType::UInt8 as u64, 0, 0, Codec::Constant as u64, 1]), vec![2 * 9]);
    let entries = [right.clone(), (middle, streams), right];
    Parts::new(3, 6, body(&[(2, Codec::Step as u8, &[20, 2])], &entries))
}

/// The outer columns are read; what is said of the middle one is returned.
fn problem(parts: &Parts) -> String {
    let (_, columns) = block::decode(&parts.join()).unwrap();
    for column in [&columns[0], &columns[2]] {
        assert_eq!(rows(column.column.as_ref().unwrap()), [(10, Cell::Unsigned(9), 0), (11, Cell::Unsigned(9), 0)]);
    }
    assert_eq!(_native::arrow::batch(&columns).unwrap().num_rows(), 4);
    columns[1].column.clone().unwrap_err()
}

#[test]
fn an_unknown_value_codec_leaves_the_other_columns_readable() {
    let parts = with_middle(varints(&[0, ValueType::Float32 as u64, 0, 0, 16, 3]), vec![1, 2, 3]);
    assert_eq!(problem(&parts), "codec 16 is not known to this version");
}

#[test]
fn an_unknown_type_leaves_the_other_columns_readable() {
    let parts = with_middle(varints(&[0, 12, 0, 0, 0, 3]), vec![1, 2, 3]);
    assert_eq!(problem(&parts), "type 12 is not known to this version");
}

#[test]
fn a_codec_that_does_not_fit_its_type_or_a_broken_stream_leaves_the_other_columns_readable() {
    for (kind, codec, stream) in [
        (ValueType::Bool, Codec::Step, vec![2, 2]),
        (ValueType::Int8, Codec::Bitmap, vec![2]),
        (ValueType::Float64, Codec::Dictionary, vec![0]),
        (ValueType::Text, Codec::Decimal, vec![0]),
        (ValueType::Text, Codec::Constant, vec![0xff]),
        (ValueType::Float32, Codec::Raw, vec![1, 2, 3]),
        (ValueType::Bool, Codec::Constant, vec![2]),
        (ValueType::Int64, Codec::Run, vec![0, 2]),
    ] {
        let entry = varints(&[0, kind as u64, 0, 0, codec as u64, stream.len() as u64]);
        assert!(problem(&with_middle(entry, stream)).starts_with("not a readable block"));
    }
}

#[test]
fn an_unknown_time_codec_leaves_columns_of_other_times_readable() {
    let entry = |time| varints(&[0, ValueType::UInt8 as u64, 0, time, Codec::Constant as u64, 1]);
    let entries = [(entry(0), vec![18]), (entry(1), vec![18])];
    let parts = Parts::new(2, 3, body(&[(1, 99, &[1, 2]), (2, Codec::Constant as u8, &[20])], &entries));
    let (_, columns) = block::decode(&parts.join()).unwrap();
    assert_eq!(columns[0].column.clone().unwrap_err(), "codec 99 is not known to this version");
    assert_eq!(rows(columns[1].column.as_ref().unwrap()), [(10, Cell::Unsigned(9), 0), (10, Cell::Unsigned(9), 0)]);
}

#[test]
fn longer_entries_unknown_flags_and_a_later_minor_version_are_read() {
    let mut entry = varints(&[0, ValueType::UInt8 as u64, 0x44, 0, Codec::Constant as u64, 1]);
    entry.extend_from_slice(b"added later");
    let mut parts = with_middle(entry, vec![18]);
    parts.fixed[5] = 200;
    parts.set_flags(0x8000);
    let (header, columns) = block::decode(&parts.join()).unwrap();
    assert_eq!(header.version, (1, 200));
    assert!(columns.iter().all(|column| rows(column.column.as_ref().unwrap()).len() == 2));
}

#[test]
fn another_major_version_is_refused_by_name() {
    for major in [0, 2, 255] {
        let mut parts = with_middle(varints(&[0, 12, 0, 0, 0, 0]), vec![]);
        parts.fixed[4] = major;
        let refusal = block::decode(&parts.join()).unwrap_err().to_string();
        assert_eq!(refusal, format!("not a readable block: version {major}.0; this program reads 1.x"));
    }
}
