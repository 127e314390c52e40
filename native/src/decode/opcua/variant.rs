//! Variant (OPC 10000-6, 5.2.2.16): a value of any type, or many of one.

use super::MAX_DEPTH;
use super::cursor::{Cursor, Result};
use super::data_value::DataValue;
use super::diagnostic;
use super::extension::Extension;
use super::node_id::NodeId;
use super::scalar::{self, Scalar, id};

const ARRAY: u8 = 0x80;
const DIMENSIONS: u8 = 0x40;

/// Any value, as encoded. That all of it can be read was seen when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Variant<'a> {
    encoding: u8,
    /// What follows the encoding's byte.
    content: &'a [u8],
    /// With that byte.
    whole: &'a [u8],
}

/// What a Variant has in it.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// No value, or a null array.
    Null,
    /// One value.
    Scalar(Scalar<'a>),
    /// Many of one type.
    Array(Array<'a>),
    /// What a tag can't have and others have to decode (structures, matrices, values in values): the encoded Variant.
    Other(&'a [u8]),
}

/// An array of one of the types of `Scalar`.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a> {
    kind: u8,
    count: usize,
    elements: Cursor<'a>,
}

impl<'a> Array<'a> {
    /// One whose elements were passed over before.
    pub(super) fn of(kind: u8, count: usize, elements: Cursor<'a>) -> Self {
        Self { kind, count, elements }
    }

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
        (0..count).map_while(move |_| {
            let before = elements;
            element(kind, &mut elements, 0).ok()?;
            Scalar::of(kind, elements.since(&before))
        })
    }
}

impl<'a> Variant<'a> {
    /// No value.
    pub(super) const NULL: Self = Self { encoding: id::NULL, content: &[], whole: &[id::NULL] };

    /// Passes over one that may have values in it, `depth` levels of them above.
    #[inline]
    pub(super) fn read(from: &mut Cursor<'a>, depth: u32) -> Result<Self> {
        let before = *from;
        let encoding = from.u8()?;
        let start = *from;
        match fixed(encoding) {
            Some(width) => {
                from.take(width)?;
            }
            None => long(encoding, from, depth)?,
        }
        Ok(Self { encoding, content: from.since(&start), whole: from.since(&before) })
    }

    /// All of it, as encoded.
    pub fn whole(&self) -> &'a [u8] {
        self.whole
    }

    /// What it has in it.
    #[inline]
    pub fn content(&self) -> Content<'a> {
        if self.encoding & !(ARRAY | DIMENSIONS) == id::NULL {
            return Content::Null;
        }
        if self.encoding & (ARRAY | DIMENSIONS) != 0 {
            return self.array();
        }
        Scalar::of(self.encoding, self.content).map_or(Content::Other(self.whole), Content::Scalar)
    }

    fn array(&self) -> Content<'a> {
        let kind = self.encoding & !(ARRAY | DIMENSIONS);
        let mut elements = Cursor::new(self.content);
        let Ok(Some(count)) = elements.count(least(kind).max(1)) else { return Content::Null };
        let mut after = elements;
        let matrix = self.encoding & DIMENSIONS != 0
            && (0..count)
                .try_for_each(|_| element(kind, &mut after, 0))
                .and_then(|()| after.words())
                .is_ok_and(|sizes| sizes.len() > 4);
        if matrix || kind > id::LOCALIZED_TEXT {
            return Content::Other(self.whole);
        }
        Content::Array(Array { kind, count, elements })
    }
}

/// Passes over what is not of a fixed width: an array, a text, or worse.
#[inline(never)]
fn long(encoding: u8, from: &mut Cursor<'_>, depth: u32) -> Result<()> {
    let kind = encoding & !(ARRAY | DIMENSIONS);
    if encoding & ARRAY == 0 {
        return if encoding & DIMENSIONS == 0 {
            element(kind, from, depth)
        } else {
            from.refuse("dimensions of no array")
        };
    }
    let at = *from;
    // Elements of no bytes, of which five bytes could claim 2^31, count as if they had some.
    let count = from.count(least(kind).max(1))?.unwrap_or(0);
    match fixed(kind) {
        Some(0) if count > 0 => return at.refuse("an array of Nulls"),
        Some(width) => {
            from.take(count * width)?;
        }
        None => (0..count).try_for_each(|_| element(kind, from, depth))?,
    }
    if encoding & DIMENSIONS != 0 {
        from.words()?;
    }
    Ok(())
}

/// The bytes of a value, where that is always the same number.
#[inline]
fn fixed(kind: u8) -> Option<usize> {
    Some(match kind {
        id::NULL => 0,
        id::BOOLEAN | id::SBYTE | id::BYTE => 1,
        id::INT16 | id::UINT16 => 2,
        id::INT32 | id::UINT32 | id::FLOAT | id::STATUS_CODE => 4,
        id::INT64 | id::UINT64 | id::DOUBLE | id::DATE_TIME => 8,
        id::GUID => 16,
        _ => return None,
    })
}

/// The least bytes of a value.
pub(super) fn least(kind: u8) -> usize {
    match kind {
        id::LOCALIZED_TEXT | id::DATA_VALUE | id::VARIANT | id::DIAGNOSTIC_INFO => 1,
        id::NODE_ID | id::EXPANDED_NODE_ID => 2,
        id::EXTENSION_OBJECT => 3,
        id::QUALIFIED_NAME => 6,
        kind => fixed(kind).unwrap_or(4),
    }
}

/// Passes over one value of a type.
pub(super) fn element(kind: u8, from: &mut Cursor<'_>, depth: u32) -> Result<()> {
    if let Some(width) = fixed(kind) {
        return from.take(width).map(|_| ());
    }
    match kind {
        // The last are kept for later versions of the specification, which says to take them as ByteStrings.
        id::STRING | id::XML_ELEMENT | id::BYTE_STRING | 26..=31 => from.bytes().map(|_| ()),
        id::NODE_ID | id::EXPANDED_NODE_ID => NodeId::read(from).map(|_| ()),
        id::QUALIFIED_NAME => from.u16().and_then(|_| from.bytes()).map(|_| ()),
        id::LOCALIZED_TEXT => scalar::localized(from).map(|_| ()),
        id::EXTENSION_OBJECT => Extension::read(from).map(|_| ()),
        id::DIAGNOSTIC_INFO => diagnostic::skip(from),
        id::DATA_VALUE | id::VARIANT if depth >= MAX_DEPTH => from.refuse("values nested too deep"),
        id::DATA_VALUE => DataValue::read(from, depth + 1).map(|_| ()),
        id::VARIANT => Variant::read(from, depth + 1).map(|_| ()),
        _ => from.refuse("no such built-in type"),
    }
}
