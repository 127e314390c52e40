//! OPC UA responses into their tags' columns. A response is walked twice, by the same code: once to see that all of it
//! can be read, and once to keep it.

use std::collections::HashMap;

use super::{Buffer, MISTYPED, Slot, Stats, take};
use crate::decode::opcua::{Content, DataValue, Fitted, Part, Publish, Scratch, Structure, fit, read_results};
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
    /// The same, and the subscription's holder wants to know what may be missing before it.
    Begun(i64),
    /// The subscription goes on over a new connection: the last value may come once more.
    Resumed,
}

const NONE: u32 = u32::MAX;
/// Values and other notifications of one response that are handed on undecoded, and their bytes. Whoever decodes them
/// makes objects of some hundred times their size.
const UNDECODED: usize = 1000;
const UNDECODED_BYTES: usize = 256 << 10;

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
    /// Where such values are missing: tag, and the times of the values before and after them. `i64::MIN` where none came
    /// before.
    pub missed: Vec<(u32, i64, i64)>,
    /// The same for the first values of a subscription that was made anew (`opcua_renewed`), where that was asked.
    pub begun: Vec<(u32, i64, i64)>,
    /// The subscription's new status.
    pub status: Option<u32>,
    /// Values that others have to decode: tag, time, StatusCode, encoded Variant.
    pub undecoded: Vec<(u32, i64, u32, &'a [u8])>,
    /// More of them than `UNDECODED` and `UNDECODED_BYTES` allow: they are lost.
    pub dropped: usize,
    /// Notifications of other kinds, each an encoded ExtensionObject.
    pub others: Vec<&'a [u8]>,
    /// Values that were the tag's last reading itself, sent once more after a resume. They are not kept.
    pub repeated: usize,
    /// The latest of all time stamps, the source's and the server's; `None` without any.
    pub newest_ns: Option<i64>,
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
    handed: Handed,
    /// Whether it is a server that publishes, and not one that was asked.
    published: bool,
}

/// What of one response is handed on undecoded.
#[derive(Debug, Default)]
struct Handed {
    count: usize,
    bytes: usize,
}

impl Handed {
    /// Whether so many bytes more may be.
    fn takes(&mut self, bytes: usize) -> bool {
        let (count, bytes) = (self.count + 1, self.bytes + bytes);
        let fits = count <= UNDECODED && bytes <= UNDECODED_BYTES;
        if fits {
            *self = Self { count, bytes };
        }
        fits
    }
}

impl<'b> Intake<'b> {
    fn new(slots: &'b mut [Slot], stats: &'b mut Stats, max_bytes: usize, received_ns: i64, published: bool) -> Self {
        Self { slots, stats, max_bytes, received_ns, scratch: Scratch::default(), handed: Handed::default(), published }
    }

    /// Keeps a value, or says that others have to decode it.
    #[inline]
    fn take<'a>(&mut self, published: &mut Published<'a>, tag: u32, value: &DataValue<'a>) {
        let Self { slots, stats, max_bytes, received_ns, scratch, handed, published: unasked } = self;
        let Some(slot) = slots.get_mut(tag as usize) else {
            published.unknown_handles += 1;
            return;
        };
        published.newest_ns = published.newest_ns.max(value.stamps.source).max(value.stamps.server);
        let stamps = value.stamps;
        let mut time_ns = if *unasked { stamps.or(*received_ns) } else { stamps.of_read(*received_ns) };
        let known_ns = slot.server_ns;
        // What was asked for is no answer to what is awaited.
        let awaited = if *unasked {
            slot.server_ns = known_ns.max(time_ns);
            std::mem::take(&mut slot.awaited)
        } else {
            Awaited::Nothing
        };
        if value.overflowed() {
            published.overflows.push(tag);
            published.missed.push((tag, known_ns, time_ns));
        }
        let said_before = match awaited {
            Awaited::Renewed(until_ns) => Some(until_ns),
            Awaited::Begun(until_ns) => {
                published.begun.push((tag, known_ns, time_ns));
                Some(if known_ns == i64::MIN { until_ns } else { known_ns })
            }
            Awaited::Nothing | Awaited::Resumed => None,
        };
        if let Some(known_ns) = said_before
            && (time_ns <= known_ns || slot.latest.reading().is_some_and(|(last_ns, ..)| last_ns == time_ns))
        {
            time_ns = *received_ns;
        }
        if let Some(structure) = slot.structure.take() {
            self.fields(published, &structure, awaited, time_ns, value);
            if let Some(slot) = self.slots.get_mut(tag as usize) {
                slot.structure = Some(structure);
            }
            return;
        }
        let content = value.value.content();
        if let Content::Other(bytes) = content {
            if handed.takes(bytes.len()) {
                published.undecoded.push((tag, time_ns, value.status, bytes));
            } else {
                published.dropped += 1;
            }
            return;
        }
        let how = (*unasked, awaited);
        let kept = keep(slot, stats, *max_bytes, scratch, how, (time_ns, content, value.status));
        published.count(kept);
    }

    /// Keeps a structure's fields, each as a reading of its tag.
    fn fields(
        &mut self,
        published: &mut Published<'_>,
        structure: &Structure,
        awaited: Awaited,
        time_ns: i64,
        value: &DataValue<'_>,
    ) {
        let Self { slots, stats, max_bytes, scratch, published: unasked, .. } = self;
        let found = structure.read(value.value.whole());
        for (place, tag) in structure.tags().enumerate() {
            let Some(slot) = slots.get_mut(tag as usize) else { continue };
            // Another structure than it was said to be is mistyped, unless there is none.
            let content = match (&found, value.value.content()) {
                (Some(found), _) => found.get(place).copied().unwrap_or(Content::Null),
                (None, Content::Null) => Content::Null,
                (None, _) => Content::Other(&[]),
            };
            let how = (*unasked, awaited);
            let kept = keep(slot, stats, *max_bytes, scratch, how, (time_ns, content, value.status));
            published.count(kept);
        }
    }
}

/// What became of a value.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Repeated,
    Reading { grew: bool },
}

impl Published<'_> {
    fn count(&mut self, kept: Kept) {
        match kept {
            Kept::Repeated => self.repeated += 1,
            Kept::Reading { grew } => {
                self.readings += 1;
                self.grew += usize::from(grew);
            }
        }
    }
}

/// Fits a value to its tag, and keeps it.
#[inline]
fn keep(
    slot: &mut Slot,
    stats: &mut Stats,
    max_bytes: usize,
    scratch: &mut Scratch,
    (unasked, awaited): (bool, Awaited),
    (time_ns, content, code): (i64, Content<'_>, u32),
) -> Kept {
    let (raw, quality) = match fit(content, slot.spec.raw, scratch) {
        Fitted::Value(raw) => (raw, code),
        // OPC 10000-4, 7.11: the value of a bad status is to be ignored, so the status says more than its type.
        Fitted::NotText | Fitted::Mistyped if code >> 31 == 1 => (Value::Absent, code),
        Fitted::NotText => (Value::Absent, BAD_DECODING_ERROR),
        Fitted::Mistyped => {
            stats.mistyped += 1;
            (Value::Absent, MISTYPED)
        }
    };
    let fitting = slot.spec.apply(raw);
    if !unasked {
        slot.set_aside();
    } else if awaited == Awaited::Resumed
        && slot.published.as_deref().unwrap_or(&slot.latest).is(time_ns, fitting, quality)
    {
        return Kept::Repeated;
    } else {
        slot.published = None;
    }
    slot.heard = unasked;
    Kept::Reading { grew: take(slot, stats, max_bytes, time_ns, fitting, quality) }
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
    /// With `spans`, `Published::begun` says of each first value what may be missing before it.
    pub fn opcua_renewed(&mut self, subscription: usize, known_ns: i64, spans: bool) -> Result<()> {
        self.await_of_all(subscription, if spans { Awaited::Begun(known_ns) } else { Awaited::Renewed(known_ns) })
    }

    /// Says that a subscription goes on over a new connection. Some servers then send a last value once more, under a
    /// sequence number of its own (node-opcua 2.182, where its `PublishRequests` had run out): it is left out.
    pub fn opcua_resumed(&mut self, subscription: usize) -> Result<()> {
        self.await_of_all(subscription, Awaited::Resumed)
    }

    /// Says that a tag's node has a structure, and which of its fields are which tags: that tag itself may be one. From
    /// then on its values are theirs.
    pub fn opcua_structure(&mut self, tag: u32, structure: Structure) -> Result<()> {
        for each in structure.tags().chain([tag]) {
            self.spec(each)?;
        }
        if let Some(slot) = self.slots.get_mut(tag as usize) {
            slot.structure = Some(Box::new(structure));
        }
        Ok(())
    }

    /// The tags whose server published values with times after this one, and the times of the last of them.
    pub fn opcua_known(&self, after_ns: i64) -> impl Iterator<Item = (u32, i64)> {
        let known = self.slots.iter().enumerate().map(|(tag, slot)| (tag as u32, slot.server_ns));
        known.filter(move |(_, time_ns)| *time_ns > after_ns)
    }

    /// Takes over what `opcua_known` said in an earlier run. Unknown tags are passed over.
    pub fn opcua_know(&mut self, known: &[(u32, i64)]) {
        for (tag, time_ns) in known {
            if let Some(slot) = self.slots.get_mut(*tag as usize) {
                slot.server_ns = slot.server_ns.max(*time_ns);
            }
        }
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
        let mut intake = Intake::new(slots, stats, *max_bytes, received_ns, true);
        publish.walk(|part| match part {
            Part::Value { handle, value } => intake.take(&mut published, handles.tag(handle), value),
            Part::Status(status) => published.status = Some(status),
            Part::Other(bytes) if intake.handed.takes(bytes.len()) => published.others.push(bytes),
            Part::Other(_) => published.dropped += 1,
        })?;
        published.refused = (intake.stats.refused - before) as usize;
        Ok(published)
    }

    /// Decodes a ReadResponse: result i is of `tags[i]`, at the server's time. Keeps all of it, or nothing.
    pub fn push_read<'a>(&mut self, tags: &[u32], body: &'a [u8], received_ns: i64) -> Result<Published<'a>> {
        for tag in tags {
            self.spec(*tag)?;
        }
        read_results(body, tags.len(), |_, _| {})?;
        let Self { slots, max_bytes, stats, .. } = self;
        let mut published = Published::default();
        let before = stats.refused;
        let mut intake = Intake::new(slots, stats, *max_bytes, received_ns, false);
        read_results(body, tags.len(), |at, value| {
            intake.take(&mut published, tags.get(at).copied().unwrap_or(NONE), value);
        })?;
        published.refused = (intake.stats.refused - before) as usize;
        Ok(published)
    }
}
