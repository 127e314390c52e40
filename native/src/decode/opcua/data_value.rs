//! DataValue (OPC 10000-6, 5.2.2.17): a value with its status and times.

use super::cursor::Cursor;
use super::time;
use super::variant::{self, Variant};
use crate::error::Result;

/// A DataValue.
#[derive(Debug, Clone, Copy)]
pub struct DataValue<'a> {
    /// What it is.
    pub value: Variant<'a>,
    /// How good it is; 0 (Good) where that is left out.
    pub status: u32,
    /// When it was so.
    pub stamps: Stamps,
}

/// The times of a DataValue, in ns since 1970, where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    /// The source's.
    pub source: Option<i64>,
    /// The server's.
    pub server: Option<i64>,
}

impl Stamps {
    /// The best time that there is.
    #[inline]
    pub fn or(self, received_ns: i64) -> i64 {
        self.source.or(self.server).unwrap_or(received_ns)
    }
}

const VALUE: u8 = 0x01;
const STATUS: u8 = 0x02;
const SOURCE: u8 = 0x04;
const SERVER: u8 = 0x08;
const SOURCE_PICO: u8 = 0x10;
const SERVER_PICO: u8 = 0x20;
const KNOWN: u8 = VALUE | STATUS | SOURCE | SERVER | SOURCE_PICO | SERVER_PICO;

/// The info type of a DataValue, and the overflow bit (OPC 10000-4, 7.39.1).
const OVERFLOW: u32 = 0x0000_0480;
const OVERFLOW_MASK: u32 = 0x0000_0c80;

impl<'a> DataValue<'a> {
    #[inline]
    pub(super) fn read(from: &mut Cursor<'a>) -> Result<Self> {
        let mask = mask(from)?;
        let value = if mask & VALUE == 0 { Variant::Null } else { Variant::read(from)? };
        let status = if mask & STATUS == 0 { 0 } else { from.u32()? };
        let source = stamp(from, mask & SOURCE != 0, mask & SOURCE_PICO != 0)?;
        let server = stamp(from, mask & SERVER != 0, mask & SERVER_PICO != 0)?;
        Ok(Self { value, status, stamps: Stamps { source, server } })
    }

    /// Passes over a DataValue at some depth.
    pub(super) fn skip(from: &mut Cursor<'_>, depth: u32) -> Result<()> {
        let mask = mask(from)?;
        if mask & VALUE != 0 {
            variant::skip(from, depth)?;
        }
        let width = |bit: u8, width: usize| if mask & bit == 0 { 0 } else { width };
        from.take(
            width(STATUS, 4) + width(SOURCE, 8) + width(SOURCE_PICO, 2) + width(SERVER, 8) + width(SERVER_PICO, 2),
        )?;
        Ok(())
    }

    /// Whether the server's queue was full, and it dropped values next to this one.
    pub fn overflowed(&self) -> bool {
        self.status & OVERFLOW_MASK == OVERFLOW
    }
}

#[inline]
fn mask(from: &mut Cursor<'_>) -> Result<u8> {
    let before = *from;
    let mask = from.u8()?;
    if mask & !KNOWN == 0 { Ok(mask) } else { before.refuse("no such DataValue") }
}

/// Picoseconds follow the time that they refine, and are there to be passed over even where that is left out.
#[inline]
fn stamp(from: &mut Cursor<'_>, ticks: bool, picoseconds: bool) -> Result<Option<i64>> {
    let ticks = if ticks { from.i64()? } else { 0 };
    let picoseconds = if picoseconds { from.u16()? } else { 0 };
    Ok(time::stamp(ticks, picoseconds))
}
