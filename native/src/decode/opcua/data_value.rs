//! DataValue (OPC 10000-6, 5.2.2.17): a value with its status and times.

use super::cursor::{Cursor, Result};
use super::time;
use super::variant::Variant;

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

    /// When the server was asked for it: a source's time, which some servers send unasked, may be long past and comes
    /// again with each read.
    #[inline]
    pub fn of_read(self, received_ns: i64) -> i64 {
        self.server.unwrap_or(received_ns)
    }
}

const VALUE: u8 = 0x01;
const STATUS: u8 = 0x02;
const SOURCE: u8 = 0x04;
const SERVER: u8 = 0x08;
const SOURCE_PICO: u8 = 0x10;
const SERVER_PICO: u8 = 0x20;
const KNOWN: u8 = VALUE | STATUS | SOURCE | SERVER | SOURCE_PICO | SERVER_PICO;

/// The overflow bit, which means that only with the info type of a DataValue (OPC 10000-4, 7.39.1); but a server is known
/// (async-opcua 0.19) that sets the bit and leaves the type out. A loss that was not one costs less than one unseen.
const OVERFLOW: u32 = 0x0000_0080;
const OTHER_TYPES: u32 = 0x0000_0800;

impl<'a> DataValue<'a> {
    /// Reads one whose value may have values in it, `depth` levels of them above.
    #[inline]
    pub(super) fn read(from: &mut Cursor<'a>, depth: u32) -> Result<Self> {
        let before = *from;
        let mask = from.u8()?;
        if mask & !KNOWN != 0 {
            return before.refuse("no such DataValue");
        }
        let value = if mask & VALUE == 0 { Variant::NULL } else { Variant::read(from, depth)? };
        let status = if mask & STATUS == 0 { 0 } else { from.u32()? };
        let source = stamp(from, mask & SOURCE != 0, mask & SOURCE_PICO != 0)?;
        let server = stamp(from, mask & SERVER != 0, mask & SERVER_PICO != 0)?;
        Ok(Self { value, status, stamps: Stamps { source, server } })
    }

    /// Whether the server's queue was full, and it dropped values next to this one.
    pub fn overflowed(&self) -> bool {
        self.status & (OVERFLOW | OTHER_TYPES) == OVERFLOW
    }
}

/// Picoseconds follow the time that they refine, and are there to be passed over even where that is left out.
#[inline]
fn stamp(from: &mut Cursor<'_>, ticks: bool, picoseconds: bool) -> Result<Option<i64>> {
    let ticks = if ticks { from.i64()? } else { 0 };
    let picoseconds = if picoseconds { from.u16()? } else { 0 };
    Ok(time::stamp(ticks, picoseconds))
}
