//! DateTime (OPC 10000-6, 5.2.2.5): ticks of 100 ns since 1601-01-01 UTC, to ns since 1970.

/// 1970-01-01 in ticks.
const EPOCH: i64 = 116_444_736_000_000_000;
const NS: i64 = 100;
/// The most units of 10 ps that fit a tick; more is taken as this (5.2.2.17).
const MOST: u16 = 9999;

/// ns since 1970. What i64 can't hold (before 1677, after 2262) is its earliest or latest, as are 0 and the maximum.
pub fn ns(ticks: i64) -> i64 {
    if ticks <= 0 { i64::MIN } else { (ticks - EPOCH).saturating_mul(NS) }
}

/// The time of a time stamp with its units of 10 ps, cut to ns; `None` where it says none, or one that i64 can't hold.
#[inline]
pub fn stamp(ticks: i64, picoseconds: u16) -> Option<i64> {
    if ticks <= 0 {
        return None;
    }
    (ticks - EPOCH).checked_mul(NS)?.checked_add(i64::from(picoseconds.min(MOST) / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_time() {
        assert_eq!(ns(EPOCH), 0);
        assert_eq!(ns(EPOCH + 1), 100);
        assert_eq!((ns(0), ns(-1), ns(1)), (i64::MIN, i64::MIN, i64::MIN));
        assert_eq!(ns(i64::MAX), i64::MAX);
        let last = EPOCH + i64::MAX / NS;
        assert_eq!((ns(last), ns(last + 1)), (i64::MAX / NS * NS, i64::MAX));
    }

    #[test]
    fn no_time_is_no_stamp() {
        for none in [0, -1, i64::MIN, 1, i64::MAX] {
            assert_eq!(stamp(none, 5), None);
        }
        assert_eq!(stamp(EPOCH + 3, 0), Some(300));
        assert_eq!(stamp(EPOCH + 3, 1234), Some(312));
        assert_eq!((stamp(EPOCH, 9999), stamp(EPOCH, 65535)), (Some(99), Some(99)));
    }
}
