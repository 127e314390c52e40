//! A correction says which blocks' times are off, and by how much.

use proptest::prelude::*;

use _native::block::{self, Correction};

use crate::columns::{META, cases, meta};
use crate::parts::{FLAG_GAP, Parts};

const FLAG_CORRECTION: u8 = 8;

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn corrections_come_back_as_they_were(
        meta in meta(),
        stream in any::<[u8; 16]>(),
        places in any::<(u64, u64)>(),
        offset_ns in any::<i64>(),
    ) {
        let it = Correction { stream, first: places.0.min(places.1), last: places.0.max(places.1), offset_ns };
        let (header, columns) = block::decode(&block::correction(&meta, it)).unwrap();
        prop_assert!(columns.is_empty());
        prop_assert_eq!((header.kind(), header.correction), ("correction", Some(it)));
        prop_assert_eq!((header.meta, header.places, header.readings), (meta, 1, 0));
        prop_assert_eq!((header.first_ns, header.last_ns), (meta.sealed_ns, meta.sealed_ns));
    }
}

#[test]
fn a_correction_is_nothing_else_and_is_whole() {
    let block = block::correction(&META, Correction { stream: [1; 16], first: 2, last: 9, offset_ns: 1 });
    let right = Parts::of(&block);
    assert!(block::header(&right.join()).is_ok());
    type Harm = fn(&mut Parts);
    let harms: [Harm; 7] = [
        |parts| parts.set_flags(parts.flags() | FLAG_GAP),
        |parts| parts.readings = 1,
        |parts| parts.columns = 1,
        |parts| parts.places = 2,
        |parts| parts.hard = vec![0],
        |parts| parts.soft.push(0),
        |parts| drop(parts.soft.pop()),
    ];
    for harm in harms {
        let mut parts = right.clone();
        harm(&mut parts);
        assert!(block::header(&parts.join()).is_err());
    }
    let mut parts = right.clone();
    parts.soft.truncate(16);
    parts.soft.extend([2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]);
    assert!(block::header(&parts.join()).is_err(), "places past 2^64");
    assert_eq!(right.flags() & FLAG_CORRECTION, FLAG_CORRECTION);
}
