//! One value of a built-in type.

use super::cursor::{Cursor, Result};
use super::time;

/// The built-in types by their number (OPC 10000-6, 5.1.2).
pub(super) mod id {
    pub(in super::super) const NULL: u8 = 0;
    pub(in super::super) const BOOLEAN: u8 = 1;
    pub(in super::super) const SBYTE: u8 = 2;
    pub(in super::super) const BYTE: u8 = 3;
    pub(in super::super) const INT16: u8 = 4;
    pub(in super::super) const UINT16: u8 = 5;
    pub(in super::super) const INT32: u8 = 6;
    pub(in super::super) const UINT32: u8 = 7;
    pub(in super::super) const INT64: u8 = 8;
    pub(in super::super) const UINT64: u8 = 9;
    pub(in super::super) const FLOAT: u8 = 10;
    pub(in super::super) const DOUBLE: u8 = 11;
    pub(in super::super) const STRING: u8 = 12;
    pub(in super::super) const DATE_TIME: u8 = 13;
    pub(in super::super) const GUID: u8 = 14;
    pub(in super::super) const BYTE_STRING: u8 = 15;
    pub(in super::super) const XML_ELEMENT: u8 = 16;
    pub(in super::super) const NODE_ID: u8 = 17;
    pub(in super::super) const EXPANDED_NODE_ID: u8 = 18;
    pub(in super::super) const STATUS_CODE: u8 = 19;
    pub(in super::super) const QUALIFIED_NAME: u8 = 20;
    pub(in super::super) const LOCALIZED_TEXT: u8 = 21;
    pub(in super::super) const EXTENSION_OBJECT: u8 = 22;
    pub(in super::super) const DATA_VALUE: u8 = 23;
    pub(in super::super) const VARIANT: u8 = 24;
    pub(in super::super) const DIAGNOSTIC_INFO: u8 = 25;
}

/// One value of a built-in type that a tag can have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// Boolean
    Bool(bool),
    /// Any signed integer, so enumerations too
    Integer(i64),
    /// Any unsigned integer, and StatusCode
    Unsigned(u64),
    /// Float
    Real32(f32),
    /// Double
    Real64(f64),
    /// String, XmlElement and the text of a LocalizedText; `None` for a null one.
    Text(Option<&'a [u8]>),
    /// ByteString; `None` for a null one.
    Bytes(Option<&'a [u8]>),
    /// DateTime, in ns since 1970 (see `time::ns`)
    Time(i64),
    /// Guid, as encoded
    Guid(&'a [u8; 16]),
    /// NodeId, ExpandedNodeId, as encoded
    NodeId(&'a [u8]),
    /// QualifiedName: the namespace's index, and the name
    Name(u16, Option<&'a [u8]>),
}

impl<'a> Scalar<'a> {
    /// The value of a type that was passed over before; `None` for a type that no tag can have.
    #[inline]
    pub(super) fn of(kind: u8, bytes: &'a [u8]) -> Option<Self> {
        let mut from = Cursor::new(bytes);
        Some(match kind {
            id::DOUBLE => Self::Real64(f64::from_le_bytes(from.array().ok()?)),
            id::FLOAT => Self::Real32(f32::from_le_bytes(from.array().ok()?)),
            id::BOOLEAN => Self::Bool(from.u8().ok()? != 0),
            id::SBYTE => Self::Integer(i64::from(i8::from_le_bytes(from.array().ok()?))),
            id::BYTE => Self::Unsigned(u64::from(from.u8().ok()?)),
            id::INT16 => Self::Integer(i64::from(i16::from_le_bytes(from.array().ok()?))),
            id::UINT16 => Self::Unsigned(u64::from(from.u16().ok()?)),
            id::INT32 => Self::Integer(i64::from(from.i32().ok()?)),
            id::UINT32 | id::STATUS_CODE => Self::Unsigned(u64::from(from.u32().ok()?)),
            id::INT64 => Self::Integer(from.i64().ok()?),
            id::UINT64 => Self::Unsigned(u64::from_le_bytes(from.array().ok()?)),
            id::DATE_TIME => Self::Time(time::ns(from.i64().ok()?)),
            id::STRING | id::XML_ELEMENT => Self::Text(from.bytes().ok()?),
            id::BYTE_STRING => Self::Bytes(from.bytes().ok()?),
            id::GUID => Self::Guid(bytes.first_chunk()?),
            id::NODE_ID | id::EXPANDED_NODE_ID => Self::NodeId(bytes),
            id::QUALIFIED_NAME => Self::Name(from.u16().ok()?, from.bytes().ok()?),
            id::LOCALIZED_TEXT => Self::Text(localized(&mut from).ok()?),
            _ => return None,
        })
    }
}

/// The text of a LocalizedText, in whatever language it came.
pub(super) fn localized<'a>(from: &mut Cursor<'a>) -> Result<Option<&'a [u8]>> {
    let before = *from;
    let mask = from.u8()?;
    if mask & !3 != 0 {
        return before.refuse("no such LocalizedText");
    }
    if mask & 1 != 0 {
        from.bytes()?;
    }
    if mask & 2 != 0 { from.bytes() } else { Ok(None) }
}
