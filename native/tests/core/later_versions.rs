//! What a later minor version may add must not stop this one from reading the rest.

use _native::block;
use _native::codec::Codec;
use _native::column::{Note, NoteKind};
use _native::tag::ValueType;

use crate::cell::Cell;
use crate::columns::{rows, waves};
use crate::parts::{Body, Parts, varints};

const UINT8: u64 = ValueType::UInt8 as u64;
const CONSTANT: u64 = Codec::Constant as u64;

/// Three columns of two readings: a right one, `middle` (type, flags, codec), and a right one. The stream of the middle
/// one is `soft` and `hard`.
fn with_middle([kind, flags, codec]: [u64; 3], soft: &[u8], hard: &[u8]) -> Body {
    let right = [0, UINT8, 0, 0, CONSTANT];
    Body {
        times: vec![[2, Codec::Step as u64]],
        columns: vec![right, [0, kind, flags, 0, codec], right],
        // From 10 on by 1; then 9; and 9 again behind the middle column.
        streams: [&[20, 2, 18], soft, &[18]].concat(),
        hard: hard.to_vec(),
        ..Body::default()
    }
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
fn an_added_value_codec_leaves_the_other_columns_readable() {
    for codec in [18, 99, 255] {
        let body = with_middle([ValueType::Float32 as u64, 0, codec], &[3], &[1, 2, 3]);
        assert_eq!(problem(&body.parts(6)), format!("codec {codec} is not known to this version"));
    }
}

#[test]
fn an_added_type_leaves_the_other_columns_readable() {
    for kind in [32, 255] {
        let body = with_middle([kind, 0, CONSTANT], &[3], &[1, 2, 3]);
        assert_eq!(problem(&body.parts(6)), format!("type {kind} is not known to this version"));
        let body = with_middle([kind, 0, 99], &[0], &[]);
        assert_eq!(problem(&body.parts(6)), format!("type {kind} is not known to this version"));
    }
}

#[test]
fn qualities_and_absences_stand_before_an_added_stream() {
    // Qualities: two of 7. Presence: one, none. The length of the stream. A note of its own, before them all.
    let mut body = with_middle([ValueType::Float32 as u64, 3, 99], &[2, 7, 1, 1, 1, 0, 3], &[1, 2, 3]);
    assert_eq!(problem(&body.parts(6)), "codec 99 is not known to this version");
    body.columns[1][2] = 7;
    body.streams.splice(0..0, [2, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(problem(&body.parts(6)), "codec 99 is not known to this version");
}

#[test]
fn two_added_streams_and_one_of_pcodec_lie_behind_each_other() {
    let mut sink = _native::codec::Sink::default();
    let values = waves(3);
    assert_eq!(_native::codec::real::encode(&values, &mut sink), Codec::Pco);
    let double = ValueType::Float64 as u64;
    let body = Body {
        times: vec![[300, Codec::Step as u64]],
        columns: vec![[0, double, 0, 0, 18], [0, double, 0, 0, Codec::Pco as u64], [0, 99, 0, 0, 2]],
        streams: [&[20, 2, 3], &sink.soft[..], &[1]].concat(),
        hard: [&[9, 9, 9], &sink.hard[..], &[9]].concat(),
        ..Body::default()
    };
    let (_, columns) = block::decode(&body.parts(900).join()).unwrap();
    assert!(columns[0].column.is_err() && columns[2].column.is_err());
    let expected: Vec<_> =
        values.iter().zip(10..).map(|(value, time)| (time, Cell::Real64(value.to_bits()), 0)).collect();
    assert_eq!(rows(columns[1].column.as_ref().unwrap()), expected);
}

#[test]
fn an_id_that_this_major_version_does_not_have_makes_the_block_unreadable() {
    // Below 16 a stream has no length: nobody could say where the next one begins.
    for codec in 10..16 {
        let refusal = with_middle([UINT8, 0, codec], &[3], &[1, 2, 3]).refusal(6);
        assert_eq!(refusal, format!("not a readable block: codec {codec} is not known to this version"));
        let mut body = with_middle([UINT8, 0, CONSTANT], &[18], &[]);
        body.times[0][1] = codec;
        assert_eq!(body.refusal(6), refusal);
    }
    for kind in (13..16).chain(29..32) {
        let refusal = with_middle([kind, 0, CONSTANT], &[3], &[]).refusal(6);
        assert_eq!(refusal, format!("not a readable block: type {kind} is not known to this version"));
    }
    for wrong in [[256, 0, CONSTANT], [UINT8, 0, 256], [UINT8, 0, u64::MAX]] {
        assert!(with_middle(wrong, &[3], &[]).refusal(6).contains("not a readable block: an id of "));
    }
}

#[test]
fn a_codec_that_does_not_fit_its_type_or_a_broken_stream_makes_the_block_unreadable() {
    for (kind, codec, stream) in [
        (ValueType::Bool, Codec::Step, vec![2, 2]),
        (ValueType::Int8, Codec::Bitmap, vec![2]),
        (ValueType::Int8, Codec::Pco, vec![0]),
        (ValueType::Float64, Codec::Dictionary, vec![0]),
        (ValueType::Text, Codec::Decimal, vec![0]),
        (ValueType::Text, Codec::Constant, vec![1, 0xff]),
        (ValueType::Bool, Codec::Constant, vec![2]),
        (ValueType::Int64, Codec::Run, vec![0, 2]),
        (ValueType::Text, Codec::Dictionary, vec![3]),
        (ValueType::Float64, Codec::Pco, vec![0]),
    ] {
        let body = with_middle([kind as u64, 0, codec as u64], &stream, &[]);
        assert!(block::decode(&with_middle([UINT8, 0, 0], &[18], &[]).parts(6).join()).is_ok());
        assert!(body.refusal(6).starts_with("not a readable block"), "{kind:?} {codec:?}");
    }
}

#[test]
fn an_added_time_codec_leaves_columns_of_other_times_readable() {
    let column = |time| [0, UINT8, 0, time, CONSTANT];
    let body = Body {
        times: vec![[1, 99], [2, CONSTANT]],
        columns: vec![column(0), column(1)],
        streams: vec![2, 20, 18, 18], // the length of the unknown stream, then three constants
        hard: vec![1, 2],
        ..Body::default()
    };
    let (_, columns) = block::decode(&body.parts(3).join()).unwrap();
    assert_eq!(columns[0].column.clone().unwrap_err(), "codec 99 is not known to this version");
    assert_eq!(rows(columns[1].column.as_ref().unwrap()), [(10, Cell::Unsigned(9), 0), (10, Cell::Unsigned(9), 0)]);
}

#[test]
fn added_fields_unknown_flags_and_a_later_minor_version_are_read() {
    let mut body = with_middle([UINT8, 0xffff_fff8, CONSTANT], &[18], &[]);
    body.added = b"added later".to_vec();
    let mut parts = body.parts(6);
    parts.fixed[5] = 200;
    parts.set_flags(0xf0);
    let (header, columns) = block::decode(&parts.join()).unwrap();
    assert_eq!(header.version, (1, 200));
    assert!(columns.iter().all(|column| rows(column.column.as_ref().unwrap()).len() == 2));
}

#[test]
fn a_note_of_an_unknown_filter_is_passed_over() {
    for (kind, expected) in [(2, Some(NoteKind::Deadband)), (5, None), (0, None), (255, None)] {
        let mut body = with_middle([UINT8, 4, CONSTANT], &[18], &[]);
        body.streams.splice(0..0, [&[kind][..], &1.5_f64.to_le_bytes()].concat());
        let (_, columns) = block::decode(&body.parts(6).join()).unwrap();
        let notes: Vec<_> = columns.iter().map(|column| column.column.as_ref().unwrap().note).collect();
        assert_eq!(notes, [None, expected.map(|kind| Note { kind, bound: 1.5 }), None]);
    }
}

#[test]
fn another_major_version_is_refused_by_name() {
    for major in [0, 2, 255] {
        let mut parts = Parts::new(0, 0, varints(&[0]));
        parts.fixed[4] = major;
        let refusal = block::decode(&parts.join()).unwrap_err().to_string();
        assert_eq!(refusal, format!("not a readable block: version {major}.0; this program reads 1.x"));
    }
}
