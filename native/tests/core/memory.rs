//! What an encoder remembers makes blocks quicker to write, and none of them wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::block::{self, bounds};
use _native::body;
use _native::buffer::Buffer;
use _native::column::Column;
use _native::memory::Memory;
use _native::tag::{TagSpec, Value, ValueType};

use crate::columns::{META, all_rows, cases, columns, mix, rows};

/// Most tags of `columns()` lie below this.
const TAGS: usize = 3000;
const SECOND: i64 = 1_000_000_000;

proptest! {
    #![proptest_config(cases(150))]

    /// The body is decoded here and not by `block::encode`, which would write plainly what does not come back.
    #[test]
    fn whatever_is_remembered_every_column_comes_back(blocks in vec(columns(), 1..6)) {
        let mut memory = Memory::new(TAGS);
        // Each block twice: after others, which mislead, and after itself.
        for columns in blocks.iter().flat_map(|columns| [columns, columns]) {
            // All at the tags that the block before had, so that what is known of one is told of another.
            let columns: Vec<_> = columns.iter().enumerate().map(|(tag, (_, column))| (tag as u32, column.clone())).collect();
            let (origin, _) = bounds(&columns);
            let body = body::encode(&columns, origin, false, &mut memory);
            let decoded = body::decode(&body.soft, &body.hard, columns.len(), origin).unwrap();
            let expected: Vec<_> = columns.iter().map(|(tag, column)| (*tag, rows(column))).collect();
            prop_assert_eq!(all_rows(&decoded), expected);
        }
    }

    #[test]
    fn the_same_history_gives_the_same_bytes(blocks in vec(columns(), 1..5)) {
        let through = || {
            let mut memory = Memory::new(TAGS);
            blocks.iter().map(|columns| block::encode_again(columns, &META, &mut memory)).collect::<Vec<_>>()
        };
        prop_assert_eq!(through(), through());
    }
}

/// Blocks of a tag that walks in tenths, once a second and some ms late.
fn walk(seed: u64, blocks: usize, readings: usize, digits: f64) -> Vec<Vec<(u32, Column)>> {
    let mut level = 700.0_f64;
    let mut at = 0;
    let mut block = |_| {
        let mut column = Column::new(ValueType::Float64);
        for _ in 0..readings {
            at += 1;
            let random = mix(seed, at);
            level += (random % 41) as f64 - 20.0;
            let late = i64::from((random >> 36).count_ones()) * 1_000_000;
            column.push(at as i64 * SECOND + late, Value::Real64(level / digits), 0);
        }
        vec![(0, column)]
    };
    (0..blocks).map(&mut block).collect()
}

fn size(blocks: &[Vec<(u32, Column)>], memory: &mut Memory) -> usize {
    blocks.iter().map(|columns| block::encode_again(columns, &META, memory).len()).sum()
}

#[test]
fn a_memory_costs_next_to_no_bytes() {
    for readings in [10, 60, 300] {
        let blocks = walk(readings as u64, 100, readings, 10.0);
        let fresh: usize = blocks.iter().map(|columns| block::encode(columns, &META).len()).sum();
        let remembered = size(&blocks, &mut Memory::new(1));
        assert!(remembered <= fresh + fresh / 200, "{readings} readings: {remembered} bytes, {fresh} without a memory");
    }
}

#[test]
fn a_tag_that_changes_its_ways_is_looked_at_anew_at_once() {
    let mut memory = Memory::new(1);
    size(&walk(1, 5, 300, 10.0), &mut memory);
    // Hundredths, then steps of a thousand, then held, then moving again.
    for changed in [walk(2, 1, 300, 100.0), walk(3, 1, 300, 0.001), held(), walk(4, 1, 300, 10.0)] {
        let (now, fresh) = (size(&changed, &mut memory), size(&changed, &mut Memory::default()));
        assert!(now <= fresh + fresh / 50, "{now} bytes, {fresh} without a memory");
    }
}

fn held() -> Vec<Vec<(u32, Column)>> {
    let mut column = Column::new(ValueType::Float64);
    for at in 0..300 {
        column.push(at * SECOND, Value::Real64((at / 50) as f64), 0);
    }
    vec![vec![(0, column)]]
}

#[test]
fn two_blocks_of_a_buffer_may_be_encoded_at_once_and_in_any_order() {
    let spec = TagSpec { raw: ValueType::Float64, scale: None, filter: String::new(), range: None };
    let mut buffer = Buffer::new(vec![spec], 1 << 20).unwrap();
    let mut taken = Vec::new();
    for columns in walk(5, 40, 50, 10.0) {
        for (time_ns, value, quality) in columns[0].1.iter() {
            buffer.push(0, time_ns, value, quality).unwrap();
        }
        taken.push((columns, buffer.take().unwrap()));
    }
    std::thread::scope(|scope| {
        for part in taken.chunks(10) {
            scope.spawn(move || {
                for (columns, taken) in part.iter().rev() {
                    let (_, decoded) = block::decode(&taken.encode(&META)).unwrap();
                    assert_eq!(all_rows(&decoded), [(0, rows(&columns[0].1))]);
                }
            });
        }
    });
}
