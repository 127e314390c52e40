//! `HistoryReadResponse` of raw values (OPC 10000-4, 5.11.3; OPC 10000-11, 6.4.3 and 6.5.2).

use super::cursor::{self, Cursor};
use super::data_value::DataValue;
use super::diagnostic;
use super::extension::Extension;
use super::response::{self, SERVICE_FAULT};
use crate::error::{Error, Result};

const HISTORY_READ: u32 = 667;
const HISTORY_DATA: u32 = 658;

/// What a response says of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeHistory<'a> {
    /// How the read went.
    pub status: u32,
    /// What to ask for the rest with; empty where there is none.
    pub point: &'a [u8],
}

/// Hands the values of each node to `take` with the node's place, and then says of the node what else there is. Refuses
/// a body that does not have `expected` results, or whose service failed; `take` may have been called by then.
pub fn read_history<'a>(
    body: &'a [u8],
    expected: usize,
    mut take: impl FnMut(usize, &DataValue<'a>),
) -> Result<Vec<NodeHistory<'a>>> {
    let (type_id, result, mut from) = response::open(body)?;
    if type_id == SERVICE_FAULT || (type_id == HISTORY_READ && result >> 31 == 1) {
        return Err(Error::Service(result));
    }
    if type_id != HISTORY_READ {
        return Ok(Cursor::new(body).refuse("no HistoryReadResponse")?);
    }
    let before = from;
    if from.count(4 + 4 + 3)?.unwrap_or(0) != expected {
        return Ok(before.refuse("not as many results as nodes")?);
    }
    let mut found = Vec::with_capacity(expected);
    for at in 0..expected {
        let status = from.u32()?;
        let point = from.bytes()?.unwrap_or_default();
        let part = Extension::read(&mut from)?;
        if let (Some(HISTORY_DATA), Some(body)) = (part.type_id, part.body) {
            values(body, |value| take(at, value))?;
        }
        found.push(NodeHistory { status, point });
    }
    diagnostic::skip_all(&mut from)?;
    from.finish("more than a response")?;
    Ok(found)
}

/// A `HistoryData`.
fn values<'a>(mut from: Cursor<'a>, mut take: impl FnMut(&DataValue<'a>)) -> cursor::Result<()> {
    let count = from.count(1)?.unwrap_or(0);
    for _ in 0..count {
        take(&DataValue::read(&mut from, 0)?);
    }
    from.finish("more than a HistoryData")
}
