//! Variant (OPC 10000-6, 5.2.2.16) and the built-in types in it.

use super::MAX_DEPTH;
use super::cursor::Cursor;
use super::data_value::DataValue;
use super::diagnostic;
use super::extension::Extension;
use super::node_id::NodeId;
use super::time;
use crate::error::Result;

const ARRAY: u8 = 0x80;
const DIMENSIONS: u8 = 0x40;

/// The built-in types by their number (OPC 10000-6, 5.1.2).
mod id {
    pub(super) const NULL: u8 = 0;
    pub(super) const BOOLEAN: u8 = 1;
    pub(super) const SBYTE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const INT16: u8 = 4;
    pub(super) const UINT16: u8 = 5;
    pub(super) const INT32: u8 = 6;
    pub(super) const UINT32: u8 = 7;
    pub(super) const INT64: u8 = 8;
    pub(super) const UINT64: u8 = 9;
    pub(super) const FLOAT: u8 = 10;
    pub(super) const DOUBLE: u8 = 11;
    pub(super) const STRING: u8 = 12;
    pub(super) const DATE_TIME: u8 = 13;
    pub(super) const GUID: u8 = 14;
    pub(super) const BYTE_STRING: u8 = 15;
    pub(super) const XML_ELEMENT: u8 = 16;
    pub(super) const NODE_ID: u8 = 17;
    pub(super) const EXPANDED_NODE_ID: u8 = 18;
    pub(super) const STATUS_CODE: u8 = 19;
    pub(super) const QUALIFIED_NAME: u8 = 20;
    pub(super) const LOCALIZED_TEXT: u8 = 21;
    pub(super) const EXTENSION_OBJECT: u8 = 22;
    pub(super) const DATA_VALUE: u8 = 23;
    pub(super) const VARIANT: u8 = 24;
    pub(super) const DIAGNOSTIC_INFO: u8 = 25;
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
    Guid([u8; 16]),
    /// NodeId, ExpandedNodeId
    NodeId(NodeId<'a>),
    /// QualifiedName: the namespace's index, and the name
    Name(u16, Option<&'a [u8]>),
}

/// An array of one of the types of `Scalar`. That all of it can be read was seen when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a> {
    kind: u8,
    count: usize,
    elements: Cursor<'a>,
}

impl<'a> Array<'a> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Scalar<'a>> + use<'a> {
        let Self { kind, count, mut elements } = *self;
        (0..count).map_while(move |_| scalar(kind, &mut elements).ok().flatten())
    }
}

/// Any value.
#[derive(Debug, Clone, Copy)]
pub enum Variant<'a> {
    /// No value, or a null array.
    Null,
    /// One value.
    Scalar(Scalar<'a>),
    /// Many of one type.
    Array(Array<'a>),
    /// What a tag can't have and others have to decode (structures, matrices, values in values): the encoded Variant.
    Other(&'a [u8]),
}

impl<'a> Variant<'a> {
    #[inline]
    pub(super) fn read(from: &mut Cursor<'a>) -> Result<Self> {
        let before = *from;
        let encoding = from.u8()?;
        if encoding & (ARRAY | DIMENSIONS) != 0 {
            return array(before, encoding, from, 0);
        }
        if encoding == id::NULL {
            return Ok(Self::Null);
        }
        if let Some(found) = scalar(encoding, from)? {
            return Ok(Self::Scalar(found));
        }
        other(encoding, from, 0)?;
        Ok(Self::Other(from.since(&before)))
    }
}

/// Passes over a Variant at some depth.
pub(super) fn skip(from: &mut Cursor<'_>, depth: u32) -> Result<()> {
    let before = *from;
    match from.u8()? {
        id::NULL => Ok(()),
        encoding if encoding & (ARRAY | DIMENSIONS) != 0 => array(before, encoding, from, depth).map(|_| ()),
        kind => element(kind, from, depth),
    }
}

fn array<'a>(before: Cursor<'a>, encoding: u8, from: &mut Cursor<'a>, depth: u32) -> Result<Variant<'a>> {
    let kind = encoding & !(ARRAY | DIMENSIONS);
    if encoding & ARRAY == 0 {
        return before.refuse("a Variant with dimensions that is no array");
    }
    let at = *from;
    let least = width(kind);
    let Some(count) =
        (if least == 0 { from.i32().map(|count| usize::try_from(count).ok())? } else { from.count(least)? })
    else {
        if encoding & DIMENSIONS != 0 {
            from.words()?;
        }
        return Ok(Variant::Null);
    };
    if least == 0 && count > 0 {
        // Elements of no bytes: five bytes could claim 2^31 of them.
        return at.refuse("an array of Nulls");
    }
    let elements = *from;
    match fixed(kind) {
        Some(width) => {
            from.take(count * width)?;
        }
        None => (0..count).try_for_each(|_| element(kind, from, depth))?,
    }
    let matrix = encoding & DIMENSIONS != 0 && from.words()?.len() > 4;
    if matrix || kind > id::LOCALIZED_TEXT {
        return Ok(Variant::Other(from.since(&before)));
    }
    Ok(Variant::Array(Array { kind, count, elements }))
}

/// The least bytes of an element.
fn width(kind: u8) -> usize {
    match kind {
        id::NULL => 0,
        id::STRING | id::BYTE_STRING | id::XML_ELEMENT => 4,
        id::NODE_ID | id::EXPANDED_NODE_ID => 2,
        id::QUALIFIED_NAME => 6,
        id::EXTENSION_OBJECT => 3,
        id::LOCALIZED_TEXT | id::DATA_VALUE | id::VARIANT | id::DIAGNOSTIC_INFO => 1,
        kind => fixed(kind).unwrap_or(4),
    }
}

/// The bytes of an element, where that is always the same.
fn fixed(kind: u8) -> Option<usize> {
    Some(match kind {
        id::BOOLEAN | id::SBYTE | id::BYTE => 1,
        id::INT16 | id::UINT16 => 2,
        id::INT32 | id::UINT32 | id::FLOAT | id::STATUS_CODE => 4,
        id::INT64 | id::UINT64 | id::DOUBLE | id::DATE_TIME => 8,
        id::GUID => 16,
        _ => return None,
    })
}

/// Passes over one value of a type.
fn element(kind: u8, from: &mut Cursor<'_>, depth: u32) -> Result<()> {
    match scalar(kind, from)? {
        Some(_) => Ok(()),
        None => other(kind, from, depth),
    }
}

/// A value that a tag can have; `None`, and nothing read, for the other types.
#[inline]
fn scalar<'a>(kind: u8, from: &mut Cursor<'a>) -> Result<Option<Scalar<'a>>> {
    Ok(Some(match kind {
        id::DOUBLE => Scalar::Real64(f64::from_le_bytes(from.array()?)),
        id::FLOAT => Scalar::Real32(f32::from_le_bytes(from.array()?)),
        id::BOOLEAN => Scalar::Bool(from.u8()? != 0),
        id::SBYTE => Scalar::Integer(i64::from(i8::from_le_bytes(from.array()?))),
        id::BYTE => Scalar::Unsigned(u64::from(from.u8()?)),
        id::INT16 => Scalar::Integer(i64::from(i16::from_le_bytes(from.array()?))),
        id::UINT16 => Scalar::Unsigned(u64::from(from.u16()?)),
        id::INT32 => Scalar::Integer(i64::from(from.i32()?)),
        id::UINT32 | id::STATUS_CODE => Scalar::Unsigned(u64::from(from.u32()?)),
        id::INT64 => Scalar::Integer(from.i64()?),
        id::UINT64 => Scalar::Unsigned(u64::from_le_bytes(from.array()?)),
        id::DATE_TIME => Scalar::Time(time::ns(from.i64()?)),
        _ => return wide(kind, from),
    }))
}

/// The types of `scalar` that are no numbers.
fn wide<'a>(kind: u8, from: &mut Cursor<'a>) -> Result<Option<Scalar<'a>>> {
    Ok(Some(match kind {
        id::STRING | id::XML_ELEMENT => Scalar::Text(from.bytes()?),
        id::BYTE_STRING => Scalar::Bytes(from.bytes()?),
        id::GUID => Scalar::Guid(from.array()?),
        id::NODE_ID | id::EXPANDED_NODE_ID => Scalar::NodeId(NodeId::read(from)?),
        id::QUALIFIED_NAME => Scalar::Name(from.u16()?, from.bytes()?),
        id::LOCALIZED_TEXT => Scalar::Text(localized(from)?),
        _ => return Ok(None),
    }))
}

/// The text of a LocalizedText, in whatever language it came.
fn localized<'a>(from: &mut Cursor<'a>) -> Result<Option<&'a [u8]>> {
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

/// Passes over a value of the types that no tag can have.
fn other(kind: u8, from: &mut Cursor<'_>, depth: u32) -> Result<()> {
    if depth >= MAX_DEPTH {
        return from.refuse("values nested too deep");
    }
    match kind {
        id::EXTENSION_OBJECT => Extension::read(from).map(|_| ()),
        id::DATA_VALUE => DataValue::skip(from, depth + 1),
        id::VARIANT => skip(from, depth + 1),
        id::DIAGNOSTIC_INFO => diagnostic::skip(from),
        // Kept for later versions of the specification, which says to take them as ByteStrings.
        26..=31 => from.bytes().map(|_| ()),
        _ => from.refuse("no such built-in type"),
    }
}
