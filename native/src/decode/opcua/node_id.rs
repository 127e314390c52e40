//! NodeId and ExpandedNodeId (OPC 10000-6, 5.2.2.9 and 5.2.2.10).

use super::cursor::{Cursor, Result};

/// What names a node in its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// `i=`
    Numeric(u32),
    /// `s=`, UTF-8 unless the other side is wrong
    Text(&'a [u8]),
    /// `g=`, as encoded
    Guid([u8; 16]),
    /// `b=`
    Opaque(&'a [u8]),
}

/// A node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId<'a> {
    /// The namespace's index, unless there is a `uri`.
    pub(super) namespace: u16,
    /// The name in there.
    pub(super) key: Key<'a>,
    /// The namespace of an ExpandedNodeId.
    pub(super) uri: Option<&'a [u8]>,
    /// The server of an ExpandedNodeId; 0 is the one that is asked.
    pub(super) server: u32,
}

const URI: u8 = 0x80;
const SERVER: u8 = 0x40;

impl<'a> NodeId<'a> {
    pub(super) fn read(from: &mut Cursor<'a>) -> Result<Self> {
        let before = *from;
        let encoding = from.u8()?;
        let (namespace, key) = match encoding & !(URI | SERVER) {
            0 => (0, Key::Numeric(u32::from(from.u8()?))),
            1 => (u16::from(from.u8()?), Key::Numeric(u32::from(from.u16()?))),
            2 => (from.u16()?, Key::Numeric(from.u32()?)),
            3 => (from.u16()?, Key::Text(from.bytes()?.unwrap_or_default())),
            4 => (from.u16()?, Key::Guid(from.array()?)),
            5 => (from.u16()?, Key::Opaque(from.bytes()?.unwrap_or_default())),
            _ => return before.refuse("no such kind of NodeId"),
        };
        let uri = if encoding & URI == 0 { None } else { from.bytes()? };
        let server = if encoding & SERVER == 0 { 0 } else { from.u32()? };
        Ok(Self { namespace, key, uri, server })
    }

    /// One that was passed over before.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        Self::read(&mut Cursor::new(bytes)).ok()
    }

    /// The number of a node of OPC UA's own namespace; `None` for any other node.
    pub(super) fn well_known(&self) -> Option<u32> {
        match self {
            Self { namespace: 0, key: Key::Numeric(number), uri: None, server: 0 } => Some(*number),
            _ => None,
        }
    }
}
