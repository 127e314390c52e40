//! ExtensionObject (OPC 10000-6, 5.2.2.15): a structure in its wrapping.

use super::cursor::{Cursor, Result};
use super::node_id::NodeId;

/// One, its body undecoded.
pub(super) struct Extension<'a> {
    /// The number of its encoding, where that is of OPC UA's own namespace.
    pub(super) type_id: Option<u32>,
    /// A body in the binary encoding.
    pub(super) body: Option<Cursor<'a>>,
    /// All of it, as encoded.
    pub(super) whole: &'a [u8],
}

impl<'a> Extension<'a> {
    pub(super) fn read(from: &mut Cursor<'a>) -> Result<Self> {
        let before = *from;
        let type_id = NodeId::read(from)?.well_known();
        let at = *from;
        let body = match from.u8()? {
            0 => None,
            encoding @ (1 | 2) => {
                let length = from.count(1)?.unwrap_or(0);
                let part = from.part(length)?;
                (encoding == 1).then_some(part)
            }
            _ => return at.refuse("no such encoding of an ExtensionObject"),
        };
        Ok(Self { type_id, body, whole: from.since(&before) })
    }
}
