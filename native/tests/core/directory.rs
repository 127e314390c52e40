//! The arrays of a directory in their three forms, and directories that promise what is not there.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::block::{self, MAX_COLUMNS, MAX_READINGS};
use _native::codec::Codec;
use _native::column::Column;
use _native::tag::{Value, ValueType};

use crate::columns::{META, all_rows, cases, rows};
use crate::parts::{Body, Parts, varints};

/// Forms of an array.
const EQUAL: u64 = 0;
const COUNTING: u64 = 1;
const BOOL: [u64; 5] = [0, 0, 0, 0, 0];

/// A soft part whose arrays are all given: one time column, then steps, types, flags, places and codecs.
fn soft(distinct: u64, arrays: [[u64; 2]; 7], streams: &[u8]) -> Vec<u8> {
    let numbers: Vec<u64> = std::iter::once(distinct).chain(arrays.concat()).chain([0, 0]).collect();
    [varints(&numbers), streams.to_vec()].concat()
}

fn refusal(columns: u64, readings: u64, soft: Vec<u8>) -> String {
    block::decode(&Parts::new(columns, readings, soft).join()).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(cases(300))]

    /// Tags, types, times and flags of any pattern: equal, counting up, or neither.
    #[test]
    fn arrays_come_back(
        columns in vec((prop_oneof![Just(0_u32), 0_u32..3, 0_u32..100_000], 0_u8..3, 0_i64..4), 1..40),
        rising in any::<bool>(),
    ) {
        let mut next = 0;
        let columns: Vec<(u32, Column)> = columns.into_iter().enumerate().map(|(at, (step, kind, time))| {
            let tag = next + step;
            next = tag + 1;
            let (kind, value) = [
                (ValueType::Bool, Value::Bool(true)),
                (ValueType::Int8, Value::Integer(3)),
                (ValueType::Float32, Value::Real32(1.5)),
            ][usize::from(kind)];
            let mut column = Column::new(kind);
            let readings = if rising { at + 1 } else { time as usize + 1 };
            (0..readings as i64).for_each(|reading| _ = column.push(time + reading, value, u32::from(step == 1)));
            (tag, column)
        }).collect();
        let (_, decoded) = block::decode(&block::encode(&columns, &META)).unwrap();
        let expected: Vec<_> = columns.iter().map(|(tag, column)| (*tag, rows(column))).collect();
        prop_assert_eq!(all_rows(&decoded), expected);
    }
}

#[test]
fn an_array_has_three_forms_and_no_fourth() {
    // Times constant at 10, two bools of one reading each. Steps of 5: tags 5 and 11. Codec constant.
    let arrays = |steps, places| [[EQUAL, 1], [EQUAL, 0], steps, [EQUAL, 0], [EQUAL, 0], places, [EQUAL, 0]];
    let tags = |steps| {
        let parts = Parts::new(2, 2, soft(1, arrays(steps, [EQUAL, 0]), &[20, 1, 0]));
        all_rows(&block::decode(&parts.join()).unwrap().1).iter().map(|(tag, _)| *tag).collect::<Vec<_>>()
    };
    assert_eq!(tags([EQUAL, 5]), [5, 11]);
    assert_eq!(tags([COUNTING, 5]), [5, 12]);
    assert!(refusal(2, 2, soft(1, arrays([3, 5], [EQUAL, 0]), &[20, 1, 0])).ends_with("array form 3"));
    assert!(refusal(2, 2, soft(1, arrays([EQUAL, 5], [COUNTING, 0]), &[20, 1, 0])).ends_with("no such time column"));
    assert!(refusal(2, 2, soft(1, arrays([EQUAL, u64::MAX], [EQUAL, 0]), &[20, 1, 0])).ends_with("tag past 2^32"));
    assert!(
        refusal(2, 2, soft(1, arrays([EQUAL, u64::from(u32::MAX)], [EQUAL, 0]), &[20, 1, 0]))
            .ends_with("tag past 2^32")
    );
    assert!(refusal(2, 2, soft(1, arrays([COUNTING, u64::MAX], [EQUAL, 0]), &[20, 1, 0])).ends_with("tag past 2^32"));
}

#[test]
fn a_few_bytes_that_promise_many_columns_or_readings_are_refused() {
    let most = MAX_COLUMNS as u64;
    let arrays = |lengths, codecs| [lengths, [EQUAL, 0], [EQUAL, 0], [EQUAL, 0], [EQUAL, 0], [EQUAL, 0], codecs];
    let readings = MAX_READINGS as u64;
    for (distinct, lengths) in [
        (1, [EQUAL, readings + 1]),
        (1, [EQUAL, u64::MAX]),
        (2, [EQUAL, u64::MAX / 2 + 1]),
        (most, [EQUAL, 17]),
        (most, [COUNTING, 0]),
        (1, [EQUAL, 17]),
    ] {
        let soft = soft(distinct, arrays(lengths, [EQUAL, 0]), &[0; 9]);
        assert!(refusal(most, 17 * most, soft).ends_with("more than 4194304 readings"), "{distinct} {lengths:?}");
    }
    // As many as there may be, with nothing behind them.
    for codec in 0..20 {
        let soft = soft(
            1,
            [[EQUAL, readings], [EQUAL, codec], [EQUAL, 0], [EQUAL, 10], [EQUAL, 0], [EQUAL, 0], [EQUAL, 0]],
            &[],
        );
        assert!(block::decode(&Parts::new(1, readings, soft).join()).is_err(), "codec {codec}");
    }
    assert!(refusal(1, 1, varints(&[2])).ends_with("2 time columns; at most 1"));
}

#[test]
fn heads_and_added_fields_are_no_longer_than_what_is_left() {
    let directory = |added: u64, heads: u64| {
        let mut out = varints(&[1, EQUAL, 1, EQUAL, 0, EQUAL, 0, EQUAL, 0, EQUAL, 0, EQUAL, 0, EQUAL, 0]);
        out.extend(varints(&[added]));
        out.resize(out.len() + added.min(4) as usize, 7);
        out.extend(varints(&[heads]));
        out.extend([20, 1]);
        out
    };
    assert!(block::decode(&Parts::new(1, 1, directory(0, 0)).join()).is_ok());
    assert!(block::decode(&Parts::new(1, 1, directory(4, 0)).join()).is_ok());
    for (added, heads) in [(0, 1), (0, 2), (0, 3), (0, 1 << 20), (0, u64::MAX), (5, 0), (1 << 20, 0), (u64::MAX, 0)] {
        assert!(block::decode(&Parts::new(1, 1, directory(added, heads)).join()).is_err(), "{added} {heads}");
    }
}

#[test]
fn nothing_may_be_left_over_in_any_part() {
    let body = Body {
        times: vec![[3, Codec::Rice as u64]],
        columns: vec![BOOL],
        heads: vec![0, 0],
        streams: vec![20, 1],
        hard: vec![3],
        ..Body::default()
    };
    assert!(block::decode(&body.parts(3).join()).is_ok());
    for part in 0..3 {
        let mut wrong = body.clone();
        [&mut wrong.heads, &mut wrong.streams, &mut wrong.hard][part].push(0);
        assert!(wrong.refusal(3).ends_with("1 bytes too many"), "{}", wrong.refusal(3));
        let mut wrong = body.clone();
        [&mut wrong.heads, &mut wrong.streams, &mut wrong.hard][part].pop();
        assert!(block::decode(&wrong.parts(3).join()).is_err());
    }
    assert!(body.refusal(2).ends_with("3 readings, where 2 are written"));
}

#[test]
fn the_last_tag_there_can_be_is_read() {
    let mut column = Column::new(ValueType::Bool);
    column.push(5, Value::Bool(true), 0);
    let columns = [(7, column.clone()), (u32::MAX - 1, column.clone()), (u32::MAX, column)];
    let (_, found) = block::decode(&block::encode(&columns, &META)).unwrap();
    assert_eq!(found.iter().map(|each| each.tag).collect::<Vec<_>>(), [7, u32::MAX - 1, u32::MAX]);
}
