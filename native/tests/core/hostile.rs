//! Bytes from outside: damaged ones are always noticed, and hostile ones behind a right checksum harm nobody.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::arrow;
use _native::block;

use crate::columns::{META, cases, columns};
use crate::parts::{Parts, reseal};

/// The most memory that the whole run may take at any time, the tests of the largest blocks beside these included.
const MOST_MEMORY_KIB: u64 = 1 << 21;

/// Decodes and converts, whatever it is; what can be read must have as many rows as it says.
fn survive(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok((header, columns)) = block::decode(bytes) {
        let readable = columns.iter().filter(|column| column.column.is_ok());
        let rows: usize = readable.map(|column| column.readings).sum();
        prop_assert_eq!(arrow::batch(&columns).unwrap().num_rows(), rows);
        for column in columns.iter().filter_map(|column| column.column.as_ref().ok()) {
            prop_assert_eq!(column.iter().count(), column.len());
        }
        prop_assert!(header.gap.is_some() || rows as u64 <= header.readings);
    }
    if let Some(peak) = peak_kib() {
        prop_assert!(peak < MOST_MEMORY_KIB, "{} KiB", peak);
    }
    Ok(())
}

/// The most resident memory so far, where the system says.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// Where to change a byte, and to what.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0xff)]), 1..6)
}

fn change(bytes: &mut [u8], changes: &[(prop::sample::Index, u8)]) {
    for (place, byte) in changes {
        bytes[place.index(bytes.len())] = *byte;
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn every_prefix_is_refused(columns in columns()) {
        let bytes = block::encode(&columns, &META);
        for end in 0..bytes.len() {
            prop_assert!(block::header(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn every_prefix_of_a_part_behind_a_right_checksum_is_refused(columns in columns()) {
        let parts = Parts::of(&block::encode(&columns, &META));
        for end in (0..parts.soft.len()).step_by(parts.soft.len() / 200 + 1) {
            let cut = Parts { soft: parts.soft[..end].to_vec(), ..parts.clone() };
            prop_assert!(block::decode(&cut.join()).is_err());
        }
        for end in (0..parts.hard.len()).step_by(parts.hard.len() / 200 + 1) {
            let cut = Parts { hard: parts.hard[..end].to_vec(), ..parts.clone() };
            prop_assert!(block::decode(&cut.join()).is_err());
        }
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn every_damaged_block_is_refused(columns in columns(), place in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut bytes = block::encode(&columns, &META);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        prop_assert!(block::header(&bytes).is_err());
        prop_assert!(block::decode(&bytes).is_err());
    }

    #[test]
    fn hostile_bytes_behind_a_right_checksum(columns in columns(), changes in changes()) {
        let mut bytes = block::encode(&columns, &META);
        change(&mut bytes, &changes);
        reseal(&mut bytes);
        survive(&bytes)?;
    }

    #[test]
    fn hostile_parts_behind_a_right_checksum(columns in columns(), soft in changes(), hard in changes()) {
        let mut parts = Parts::of(&block::encode(&columns, &META));
        if !parts.hard.is_empty() {
            change(&mut parts.hard, &hard);
        }
        survive(&parts.join())?;
        change(&mut parts.soft, &soft);
        survive(&parts.join())?;
    }

    // The directory is the first few bytes: the changes that count are there.
    #[test]
    fn a_hostile_directory(columns in columns(), changes in changes(), within in 1_usize..40) {
        let mut parts = Parts::of(&block::encode(&columns, &META));
        let end = within.min(parts.soft.len());
        change(&mut parts.soft[..end], &changes);
        survive(&parts.join())?;
        survive(&parts.join_packed())?;
    }

    // Where the boundary between the parts is, is only a number in the header.
    #[test]
    fn a_boundary_elsewhere(columns in columns(), place in any::<prop::sample::Index>()) {
        let mut parts = Parts::of(&block::encode(&columns, &META));
        let all = [&parts.soft[..], &parts.hard].concat();
        let (soft, hard) = all.split_at(place.index(all.len()));
        (parts.soft, parts.hard) = (soft.to_vec(), hard.to_vec());
        survive(&parts.join())?;
    }

    #[test]
    fn a_hostile_header(
        columns in columns(),
        numbers in vec(prop_oneof![any::<u64>(), 0_u64..5, Just(1 << 22), Just(u64::MAX)], 6),
        lengths in prop::array::uniform3(prop_oneof![3 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0_u64..600).prop_map(Some), 1 => Just(Some(256 << 20))]),
        flags in 0_u8..16,
    ) {
        let mut parts = Parts::of(&block::encode(&columns, &META));
        let right = [parts.hard.len(), parts.soft.len(), parts.soft.len()].map(|length| length as u64);
        parts.set_flags(flags);
        [parts.sequence, parts.span, parts.sealed, parts.readings, parts.columns, parts.places] = numbers.try_into().unwrap();
        let [hard, soft, unpacked] = [0, 1, 2].map(|at| lengths[at].unwrap_or(right[at]));
        survive(&parts.join_with(&parts.soft, [hard, soft], unpacked))?;
    }

    #[test]
    fn bytes_of_anybody(bytes in vec(any::<u8>(), 0..300), hard in vec(any::<u8>(), 0..30)) {
        prop_assert!(block::decode(&bytes).is_err());
        let columns = u64::from(bytes.first().copied().unwrap_or(0) % 4);
        survive(&Parts { hard, ..Parts::new(columns, 3, bytes) }.join())?;
    }
}
