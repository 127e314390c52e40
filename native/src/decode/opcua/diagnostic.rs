//! DiagnosticInfo (OPC 10000-6, 5.2.2.12), which nothing here is made of.

use super::MAX_DEPTH;
use super::cursor::{Cursor, Result};

/// Passes over one.
pub(super) fn skip(from: &mut Cursor<'_>) -> Result<()> {
    for _ in 0..MAX_DEPTH {
        let before = *from;
        let mask = from.u8()?;
        if mask & 0x80 != 0 {
            return before.refuse("no such DiagnosticInfo");
        }
        from.take(4 * (mask & 0x0f).count_ones() as usize)?;
        if mask & 0x10 != 0 {
            from.bytes()?;
        }
        if mask & 0x20 != 0 {
            from.u32()?;
        }
        if mask & 0x40 == 0 {
            return Ok(());
        }
    }
    from.refuse("DiagnosticInfos nested too deep")
}

/// Passes over an array of them.
pub(super) fn skip_all(from: &mut Cursor<'_>) -> Result<()> {
    let count = from.count(1)?.unwrap_or(0);
    (0..count).try_for_each(|_| skip(from))
}
