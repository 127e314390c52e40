//! What every response begins with, and ReadResponse (OPC 10000-4, 7.33 and 5.11.2).

use super::cursor::{self, Cursor};
use super::data_value::DataValue;
use super::diagnostic;
use super::extension::Extension;
use super::node_id::NodeId;
use super::time;
use crate::error::{Error, Result};

/// The type ids of the binary encodings (OPC 10000-6, annex A).
pub(super) const SERVICE_FAULT: u32 = 397;
/// `ReadResponse`
const READ: u32 = 634;

/// The type id and the result of a response, and the cursor at what follows its header.
pub(super) fn open(body: &[u8]) -> cursor::Result<(u32, u32, Cursor<'_>)> {
    let mut from = Cursor::new(body);
    let Some(type_id) = NodeId::read(&mut from)?.well_known() else {
        return Cursor::new(body).refuse("a response of an unknown type");
    };
    from.take(8 + 4)?; // time stamp, request handle
    let result = from.u32()?;
    diagnostic::skip(&mut from)?;
    let strings = from.count(4)?.unwrap_or(0);
    (0..strings).try_for_each(|_| from.bytes().map(|_| ()))?;
    Extension::read(&mut from)?;
    Ok((type_id, result, from))
}

/// When the server sent a response, in ns since 1970; 0 where it does not say.
pub fn sent_ns(body: &[u8]) -> Result<i64> {
    let mut from = Cursor::new(body);
    NodeId::read(&mut from)?;
    Ok(time::stamp(from.i64()?, 0).unwrap_or(0))
}

/// Hands every result of a ReadResponse to `take`: its place, and its value. Refuses a body that does not have `expected`
/// results, or whose service failed; `take` may have been called by then.
pub fn read_results<'a>(body: &'a [u8], expected: usize, mut take: impl FnMut(usize, &DataValue<'a>)) -> Result<()> {
    let (type_id, result, mut from) = open(body)?;
    if type_id == SERVICE_FAULT || (type_id == READ && result >> 31 == 1) {
        return Err(Error::Service(result));
    }
    if type_id != READ {
        return Ok(Cursor::new(body).refuse("no ReadResponse")?);
    }
    let before = from;
    let found = from.count(1)?.unwrap_or(0);
    if found != expected {
        return Ok(before.refuse("not as many results as tags")?);
    }
    for at in 0..found {
        take(at, &DataValue::read(&mut from, 0)?);
    }
    diagnostic::skip_all(&mut from)?;
    Ok(from.finish("more than a response")?)
}
