//! PublishResponse and RepublishResponse (OPC 10000-4, 5.14.5, 5.14.6 and 7.25).

use super::cursor::{self, Cursor};
use super::data_value::DataValue;
use super::diagnostic;
use super::extension::Extension;
use super::response::{self, SERVICE_FAULT};
use super::time;
use crate::error::{Error, Result};

const PUBLISH: u32 = 829;
const REPUBLISH: u32 = 835;
const DATA_CHANGE: u32 = 811;
const STATUS_CHANGE: u32 = 820;

/// A response with all that is around its values. The values stay where they lie until `walk`.
#[derive(Debug, Clone)]
pub struct Publish<'a> {
    /// The service's result. Where that is bad, or of a ServiceFault, nothing else is known.
    pub result: u32,
    /// 0 of a RepublishResponse, which does not say.
    pub subscription: u32,
    /// Whether more notifications wait at the server.
    pub more: bool,
    /// The sequence number; of a keep-alive the next one's.
    pub sequence: u32,
    /// ns since 1970; 0 where it says none.
    pub published_ns: i64,
    available: &'a [u8],
    results: &'a [u8],
    parts: Cursor<'a>,
    count: usize,
}

/// What a response notifies of.
#[derive(Debug)]
pub enum Part<'p, 'a> {
    /// A monitored item's value.
    Value {
        /// The item, as its client calls it.
        handle: u32,
        /// The value.
        value: &'p DataValue<'a>,
    },
    /// The subscription's new status.
    Status(u32),
    /// Another kind of notification, such as events: the encoded ExtensionObject.
    Other(&'a [u8]),
}

impl<'a> Publish<'a> {
    /// Reads all but the values.
    pub fn read(body: &'a [u8]) -> Result<Self> {
        let (type_id, result, mut from) = response::open(body)?;
        let mut found = Self {
            result,
            subscription: 0,
            more: false,
            sequence: 0,
            published_ns: 0,
            available: &[],
            results: &[],
            parts: from,
            count: 0,
        };
        match type_id {
            SERVICE_FAULT => {}
            PUBLISH => {
                found.subscription = from.u32()?;
                found.available = from.words()?;
                found.more = from.u8()? != 0;
                found.message(&mut from)?;
                found.results = from.words()?;
                diagnostic::skip_all(&mut from)?;
            }
            REPUBLISH => found.message(&mut from)?,
            _ => return Ok(Cursor::new(body).refuse("no PublishResponse")?),
        }
        from.finish("more than a response")?;
        Ok(found)
    }

    /// A NotificationMessage.
    fn message(&mut self, from: &mut Cursor<'a>) -> cursor::Result<()> {
        self.sequence = from.u32()?;
        self.published_ns = time::stamp(from.i64()?, 0).unwrap_or(0);
        self.count = from.count(3)?.unwrap_or(0);
        self.parts = *from;
        (0..self.count).try_for_each(|_| Extension::read(from).map(|_| ()))
    }

    /// The sequence numbers that the server can send again.
    pub fn available(&self) -> impl Iterator<Item = u32> {
        cursor::words(self.available)
    }

    /// What became of each acknowledgement.
    pub fn results(&self) -> impl Iterator<Item = u32> {
        cursor::words(self.results)
    }

    /// Whether it only says that the subscription lives.
    pub fn keep_alive(&self) -> bool {
        self.result >> 31 == 0 && self.count == 0
    }

    /// The subscription's new status, if it has one. No value is read.
    pub fn status(&self) -> Result<Option<u32>> {
        let (mut from, mut found) = (self.parts, None);
        for _ in 0..self.count {
            let part = Extension::read(&mut from)?;
            if let (Some(STATUS_CHANGE), Some(body)) = (part.type_id, part.body) {
                found = Some(status(body)?);
            }
        }
        Ok(found)
    }

    /// Hands everything that it notifies of to `take`, in order, until something can't be read.
    #[inline]
    pub fn walk(&self, mut take: impl FnMut(Part<'_, 'a>)) -> Result<()> {
        if self.result >> 31 == 1 {
            return Err(Error::Service(self.result));
        }
        let mut from = self.parts;
        for _ in 0..self.count {
            let part = Extension::read(&mut from)?;
            match (part.type_id, part.body) {
                (Some(DATA_CHANGE), Some(body)) => values(body, &mut take)?,
                (Some(STATUS_CHANGE), Some(body)) => take(Part::Status(status(body)?)),
                _ => take(Part::Other(part.whole)),
            }
        }
        Ok(())
    }
}

/// A DataChangeNotification.
#[inline]
fn values<'a>(mut from: Cursor<'a>, take: &mut impl FnMut(Part<'_, 'a>)) -> cursor::Result<()> {
    // A handle, and a DataValue's mask: no notification claims more values than a fifth of its bytes.
    let count = from.count(5)?.unwrap_or(0);
    for _ in 0..count {
        let handle = from.u32()?;
        take(Part::Value { handle, value: &DataValue::read(&mut from, 0)? });
    }
    diagnostic::skip_all(&mut from)?;
    from.finish("more than a DataChangeNotification")
}

/// A StatusChangeNotification.
fn status(mut from: Cursor<'_>) -> cursor::Result<u32> {
    let status = from.u32()?;
    diagnostic::skip(&mut from)?;
    from.finish("more than a StatusChangeNotification")?;
    Ok(status)
}
