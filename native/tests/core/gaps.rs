//! A gap says where it is, how much is missing and why.

use proptest::prelude::*;

use _native::block::{self, MAX_REASON};

use crate::columns::{META, cases, meta};
use crate::parts::{FLAG_GAP, Parts};

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn gaps_come_back_as_they_were(
        meta in meta(),
        places in 1_u64..1 << 40,
        from_ns in any::<i64>(),
        to_ns in any::<i64>(),
        readings in any::<u64>(),
        reason in "\\PC{0,1200}",
    ) {
        let meta = block::Meta { sequence: meta.sequence >> 1, ..meta };
        let (header, columns) =
            block::decode(&block::gap(&meta, places, (from_ns, to_ns), readings, &reason)).unwrap();
        prop_assert!(columns.is_empty());
        prop_assert_eq!((header.meta, header.places, header.readings), (meta, places, readings));
        prop_assert_eq!((header.first_ns, header.last_ns), (from_ns, to_ns.max(from_ns)));
        let found = header.gap.unwrap();
        prop_assert!(reason.starts_with(&found));
        // Cut only where it has to be, and by less than a character.
        prop_assert!(found.len() == reason.len() || (MAX_REASON - 3..=MAX_REASON).contains(&found.len()));
    }
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    for (shift, kept) in [("", 1024), ("a", 1024 - 3), ("ab", 1024 - 2), ("abc", 1024 - 1)] {
        let reason = format!("{shift}{}", "🏭".repeat(300));
        let header = block::header(&block::gap(&META, 1, (0, 0), 0, &reason)).unwrap();
        assert_eq!(header.gap.as_deref(), reason.get(..kept));
    }
}

#[test]
fn a_gap_of_no_places_is_none() {
    assert_eq!(block::header(&block::gap(&META, 0, (0, 0), 0, "")).unwrap().places, 1);
    let mut parts = Parts::of(&block::gap(&META, 3, (5, 6), 7, "gone"));
    parts.places = 0;
    assert!(block::header(&parts.join()).is_err());
    parts.places = u64::MAX;
    assert!(block::header(&parts.join()).is_err(), "places past 2^64");
    parts.places = 3;
    parts.set_flags(parts.flags() & !FLAG_GAP);
    assert!(block::header(&parts.join()).is_err(), "only a gap stands for several places");
}

#[test]
fn a_gap_that_is_more_than_that_is_refused() {
    let gap = Parts::of(&block::gap(&META, 1, (0, 0), 0, "gone"));
    let refused = |parts: Parts| block::header(&parts.join()).unwrap_err().to_string().contains("more than that");
    assert!(block::header(&Parts { soft: vec![b'x'; MAX_REASON], ..gap.clone() }.join()).is_ok());
    assert!(refused(Parts { soft: vec![b'x'; MAX_REASON + 1], ..gap.clone() }));
    assert!(refused(Parts { columns: 1, ..gap.clone() }));
    assert!(refused(Parts { hard: vec![0], ..gap.clone() }));
    assert!(block::header(&gap.join_packed()).is_err());
}

#[test]
fn a_reason_that_is_not_text_is_refused() {
    let mut parts = Parts::of(&block::gap(&META, 1, (0, 0), 0, "gone"));
    parts.soft = vec![0xff];
    assert!(block::header(&parts.join()).is_err());
}
