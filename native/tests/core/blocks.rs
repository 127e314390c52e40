//! Whatever columns are sealed come back bit for bit.

use std::collections::HashSet;

use proptest::prelude::*;

use _native::arrow;
use _native::block::{self, MAX_READINGS};
use _native::body;
use _native::column::Column;
use _native::memory::Memory;
use _native::tag::{Family, Value, ValueType};

use crate::columns::{META, all_rows, cases, columns, meta, rows};
use crate::parts::Parts;

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn columns_come_back_as_they_were(columns in columns(), meta in meta()) {
        let bytes = block::encode(&columns, &meta);
        let (header, decoded) = block::decode(&bytes).unwrap();
        prop_assert_eq!(&header, &block::header(&bytes).unwrap());
        prop_assert_eq!(header.meta, meta);
        prop_assert_eq!((header.version, header.places, header.gap), ((1, 0), 1, None));
        let expected: Vec<_> = columns.iter().map(|(tag, column)| (*tag, rows(column))).collect();
        prop_assert_eq!(all_rows(&decoded), expected);
        prop_assert_eq!((header.first_ns, header.last_ns), block::bounds(&columns));
        let count: usize = columns.iter().map(|(_, column)| column.len()).sum();
        prop_assert_eq!(header.readings as usize, count);
        let kinds: Vec<_> = decoded.iter().map(|column| column.column.as_ref().unwrap().kind).collect();
        prop_assert_eq!(kinds, columns.iter().map(|(_, column)| column.kind).collect::<Vec<_>>());
        let notes: Vec<_> = decoded.iter().map(|column| column.column.as_ref().unwrap().note).collect();
        prop_assert_eq!(notes, columns.iter().map(|(_, column)| column.note).collect::<Vec<_>>());
    }

    /// What is written where a codec should ever fail to read its own column back.
    #[test]
    fn columns_written_plainly_come_back_too(columns in columns()) {
        let (origin, _) = block::bounds(&columns);
        let plain = body::encode(&columns, origin, true, &mut Memory::default());
        let decoded = body::decode(&plain.soft, &plain.hard, columns.len(), origin).unwrap();
        for (found, (_, column)) in decoded.iter().zip(&columns) {
            prop_assert!(found.column.as_ref().unwrap().same(column));
        }
    }

    #[test]
    fn equal_readings_make_equal_blocks(columns in columns()) {
        prop_assert_eq!(block::encode(&columns, &META), block::encode(&columns.clone(), &META));
    }

    #[test]
    fn equal_time_columns_are_stored_once(columns in columns()) {
        let distinct: HashSet<&Vec<i64>> = columns.iter().map(|(_, column)| &column.times).collect();
        let parts = Parts::of(&block::encode(&columns, &META));
        prop_assert_eq!(usize::from(parts.soft[0]), distinct.len());
    }

    #[test]
    fn arrow_has_every_reading_in_the_column_of_its_type(columns in columns()) {
        let (_, decoded) = block::decode(&block::encode(&columns, &META)).unwrap();
        let batch = arrow::batch(&decoded).unwrap();
        prop_assert_eq!(batch.schema(), arrow::schema());
        let mut row = 0;
        for (_, column) in &columns {
            for (_, value, _) in column.iter() {
                let valid: Vec<usize> = (3..15).filter(|place| batch.column(*place).is_valid(row)).collect();
                let place = match column.kind.family() {
                    Family::Bool => 3,
                    Family::Integer => 4,
                    Family::Unsigned => 5,
                    Family::Real32 | Family::Real64 => 6,
                    Family::Text => 7,
                    Family::Bytes => 8,
                };
                let wanted = match value {
                    Value::Absent => vec![],
                    Value::Array(_) => vec![place + 6],
                    _ => vec![place],
                };
                prop_assert_eq!(valid, wanted);
                row += 1;
            }
        }
        prop_assert_eq!(batch.num_rows(), row);
    }
}

#[test]
fn a_value_of_another_kind_is_kept_as_a_bad_reading() {
    let mut column = Column::new(ValueType::Int16);
    column.push(1, Value::Real64(1.5), 0);
    assert_eq!(rows(&column), [(1, crate::cell::Cell::Absent, 0x8074_0000)]);
}

#[test]
fn the_fullest_block_there_may_be_comes_back() {
    let mut column = Column::new(ValueType::UInt64);
    (0..MAX_READINGS as u64).for_each(|count| _ = column.push(count as i64 * 1_000_000, Value::Unsigned(count), 0));
    let bytes = block::encode(&[(3, column.clone())], &META);
    assert!(bytes.len() < 200, "a counter on a tick is two steps");
    let (header, decoded) = block::decode(&bytes).unwrap();
    assert_eq!(header.readings as usize, MAX_READINGS);
    assert_eq!(decoded[0].column.as_ref().unwrap(), &column);
}
