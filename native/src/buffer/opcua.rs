//! OPC UA responses into their tags' columns. A response is walked twice, by the same code: once to see that all of it
//! can be read, and once to keep it.

use std::collections::HashMap;

use super::{Buffer, MISTYPED, Slot, Stats, take};
use crate::decode::opcua::{Content, DataValue, Fitted, Part, Publish, Scratch, fit, read_results};
use crate::error::{Error, Result};
use crate::tag::{BAD_DECODING_ERROR, Value};

/// Which tag a client handle is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handles {
    /// The tag of handle i at i. What is no handle is no tag.
    Dense(Vec<u32>),
    /// For handles that are far apart.
    Sparse(HashMap<u32, u32>),
}

/// What a tag's next value may be, other than news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    #[default]
    Nothing,
    /// The subscription was made anew: what was read up to this time in ns may be said once more.
    Renewed(i64),
    /// The subscription goes on over a new connection: the last value may come once more.
    Resumed,
}

const NONE: u32 = u32::MAX;

impl Handles {
    fn new(pairs: &[(u32, u32)]) -> Result<Self> {
        let sparse: HashMap<u32, u32> = pairs.iter().copied().collect();
        if sparse.len() < pairs.len() {
            return Err(Error::Spec("a client handle that stands for two tags".to_owned()));
        }
        let span = pairs.iter().map(|(handle, _)| *handle as usize + 1).max().unwrap_or(0);
        if span > 1024 + 4 * pairs.len() {
            return Ok(Self::Sparse(sparse));
        }
        Ok(Self::Dense((0..span as u32).map(|handle| sparse.get(&handle).copied().unwrap_or(NONE)).collect()))
    }

    /// Every tag, and some that do not exist.
    fn tags(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Dense(tags) => Box::new(tags.iter().copied()),
            Self::Sparse(tags) => Box::new(tags.values().copied()),
        }
    }

    /// The tag; one that does not exist where there is none.
    #[inline]
    fn tag(&self, handle: u32) -> u32 {
        match self {
            Self::Dense(tags) => tags.get(handle as usize).copied().unwrap_or(NONE),
            Self::Sparse(tags) => tags.get(&handle).copied().unwrap_or(NONE),
        }
    }
}

/// What a response brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published<'a> {
    /// The sequence number; of a keep-alive the next one's. 0 of a ReadResponse.
    pub sequence: u32,
    /// Whether more notifications wait at the server.
    pub more: bool,
    /// Readings decoded, filtered and refused ones included.
    pub readings: usize,
    /// By how many the pending readings grew.
    pub grew: usize,
    /// Readings lost because the buffer was full.
    pub refused: usize,
    /// The tags whose server dropped values.
    pub overflows: Vec<u32>,
    /// The subscription's new status.
    pub status: Option<u32>,
    /// Values that others have to decode: tag, time, StatusCode, encoded Variant.
    pub undecoded: Vec<(u32, i64, u32, &'a [u8])>,
    /// Notifications of other kinds, each an encoded ExtensionObject.
    pub others: Vec<&'a [u8]>,
    /// Values that were the tag's last reading itself, sent once more after a resume. They are not kept.
    pub repeated: usize,
    /// Values of handles that the subscription does not have.
    pub unknown_handles: usize,
}

/// Where the values of one response go.
struct Intake<'b> {
    slots: &'b mut [Slot],
    stats: &'b mut Stats,
    max_bytes: usize,
    received_ns: i64,
    scratch: Scratch,
}

impl Intake<'_> {
    /// Keeps a value, or says that others have to decode it.
    #[inline]
    fn take<'a>(&mut self, published: &mut Published<'a>, tag: u32, value: &DataValue<'a>) {
        let Self { slots, stats, max_bytes, received_ns, scratch } = self;
        let Some(slot) = slots.get_mut(tag as usize) else {
            published.unknown_handles += 1;
            return;
        };
        if value.overflowed() {
            published.overflows.push(tag);
        }
        let mut time_ns = value.stamps.or(*received_ns);
        let awaited = std::mem::take(&mut slot.awaited);
        if let Awaited::Renewed(known_ns) = awaited
            && (time_ns <= known_ns || slot.latest.reading().is_some_and(|(last_ns, ..)| last_ns == time_ns))
        {
            time_ns = *received_ns;
        }
        let content = value.value.content();
        if let Content::Other(bytes) = content {
            published.undecoded.push((tag, time_ns, value.status, bytes));
            return;
        }
        let (raw, quality) = match fit(content, slot.spec.raw, scratch) {
            Fitted::Value(raw) => (raw, value.status),
            // OPC 10000-4, 7.11: the value of a bad status is to be ignored, so the status says more than its type.
            Fitted::NotText | Fitted::Mistyped if value.status >> 31 == 1 => (Value::Absent, value.status),
            Fitted::NotText => (Value::Absent, BAD_DECODING_ERROR),
            Fitted::Mistyped => {
                stats.mistyped += 1;
                (Value::Absent, MISTYPED)
            }
        };
        let fitting = slot.spec.apply(raw);
        if awaited == Awaited::Resumed && slot.latest.reading() == Some((time_ns, fitting, quality)) {
            published.repeated += 1;
            return;
        }
        published.readings += 1;
        published.grew += usize::from(take(slot, stats, *max_bytes, time_ns, fitting, quality));
    }
}

impl Buffer {
    /// The (client handle, tag) pairs of one subscription. The same pairs again are the same subscription: who makes a
    /// subscription anew after each reconnect does not fill the memory.
    pub fn opcua_subscription(&mut self, pairs: &[(u32, u32)]) -> Result<usize> {
        for (_, tag) in pairs {
            self.spec(*tag)?;
        }
        let handles = Handles::new(pairs)?;
        if let Some(known) = self.subscriptions.iter().position(|known| *known == handles) {
            return Ok(known);
        }
        self.subscriptions.push(handles);
        Ok(self.subscriptions.len() - 1)
    }

    /// Says that a subscription was made anew: its server sends every value once, changed or not. What was read before,
    /// up to `known_ns` or with the time of the tag's last reading, is not that reading again: it holds now.
    pub fn opcua_renewed(&mut self, subscription: usize, known_ns: i64) -> Result<()> {
        self.await_of_all(subscription, Awaited::Renewed(known_ns))
    }

    /// Says that a subscription goes on over a new connection. Some servers then send a last value once more, under a
    /// sequence number of its own (node-opcua 2.182, where its `PublishRequests` had run out): it is left out.
    pub fn opcua_resumed(&mut self, subscription: usize) -> Result<()> {
        self.await_of_all(subscription, Awaited::Resumed)
    }

    fn await_of_all(&mut self, subscription: usize, awaited: Awaited) -> Result<()> {
        let count = self.subscriptions.len();
        let handles = self.subscriptions.get(subscription);
        let handles = handles.ok_or(Error::Unknown { what: "subscription", number: subscription, count })?;
        for tag in handles.tags() {
            if let Some(slot) = self.slots.get_mut(tag as usize) {
                slot.awaited = awaited;
            }
        }
        Ok(())
    }

    /// Decodes a PublishResponse or a RepublishResponse into its tags' columns. Keeps all of it, or nothing.
    pub fn push_publish<'a>(&mut self, subscription: usize, body: &'a [u8], received_ns: i64) -> Result<Published<'a>> {
        let count = self.subscriptions.len();
        let Self { slots, subscriptions, max_bytes, stats, .. } = self;
        let handles = subscriptions.get(subscription);
        let handles = handles.ok_or(Error::Unknown { what: "subscription", number: subscription, count })?;
        let publish = Publish::read(body)?;
        publish.walk(|_| {})?;
        let mut published = Published { sequence: publish.sequence, more: publish.more, ..Published::default() };
        let before = stats.refused;
        let mut intake = Intake { slots, stats, max_bytes: *max_bytes, received_ns, scratch: Scratch::default() };
        publish.walk(|part| match part {
            Part::Value { handle, value } => intake.take(&mut published, handles.tag(handle), value),
            Part::Status(status) => published.status = Some(status),
            Part::Other(bytes) => published.others.push(bytes),
        })?;
        published.refused = (intake.stats.refused - before) as usize;
        Ok(published)
    }

    /// Decodes a ReadResponse: result i is of `tags[i]`. Keeps all of it, or nothing.
    pub fn push_read<'a>(&mut self, tags: &[u32], body: &'a [u8], received_ns: i64) -> Result<Published<'a>> {
        for tag in tags {
            self.spec(*tag)?;
        }
        read_results(body, tags.len(), |_, _| {})?;
        let Self { slots, max_bytes, stats, .. } = self;
        let mut published = Published::default();
        let before = stats.refused;
        let mut intake = Intake { slots, stats, max_bytes: *max_bytes, received_ns, scratch: Scratch::default() };
        read_results(body, tags.len(), |at, value| {
            intake.take(&mut published, tags.get(at).copied().unwrap_or(NONE), value);
        })?;
        published.refused = (intake.stats.refused - before) as usize;
        Ok(published)
    }
}
