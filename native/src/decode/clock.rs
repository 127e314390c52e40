//! Dates and times of day to ns UTC since 1970.

/// A moment by the calendar. A device that keeps local time is read as if it kept UTC: nothing in its registers tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calendar {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) millisecond: u64,
}

impl Calendar {
    /// ns since 1970; `None` where there is no such day or time (month 13, 29 February 2023, second 60).
    pub(super) fn ns(self) -> Option<i64> {
        let Self { year, month, day, hour, minute, millisecond } = self;
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u64::from(leap),
            _ => return None,
        };
        if day == 0 || day > days || hour > 23 || minute > 59 || millisecond > 59_999 || !(1970..=2262).contains(&year)
        {
            return None;
        }
        // Years begin in March here, so that the leap day is a year's last (Fliegel and Van Flandern's trick).
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        let milliseconds = ((days * 24 + hour) * 60 + minute) * 60_000 + millisecond;
        scaled(milliseconds, 1_000_000)
    }
}

/// `count` units of `ns` each; `None` past the year 2262, where ns no longer fit.
pub(super) fn scaled(count: u64, ns: i64) -> Option<i64> {
    i64::try_from(count).ok()?.checked_mul(ns)
}

/// The number that `digits` packed decimal digits spell, the last one lowest; `None` where one is above 9.
pub(super) fn decimal(packed: u64, digits: u32) -> Option<u64> {
    (0..digits).rev().try_fold(0, |number, at| {
        let digit = packed >> (4 * at) & 0xf;
        (digit < 10).then(|| number * 10 + digit)
    })
}

/// A year of two digits, or of four.
pub(super) fn century(year: u64) -> u64 {
    if year < 100 { 2000 + year } else { year }
}
