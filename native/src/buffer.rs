//! The open columns of one epoch: push, then seal. Not locked by itself: its owner holds one lock over a whole push or
//! over the `mem::take` of a seal, never over the encoding.

mod history;
mod opcua;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use crate::block::{self, Meta};
use crate::column::{self, Column, Note, NoteKind};
use crate::decode::modbus::{Decoded, Field, Plan, Take};
use crate::decode::opcua::Structure;
use crate::error::{Error, Result};
use crate::filter::{Filter, Kind};
use crate::memory::Memory;
use crate::tag::{BAD_TYPE_MISMATCH, Last, TagSpec, Value};

pub use history::{Found, Span};
pub use opcua::Published;

/// The most memory that a buffer may be given. Half of a body's bound: the rest is for lengths, qualities and times, of
/// which `MAX_READINGS` readings have less than that.
pub const MAX_BYTES: usize = block::MAX_BODY / 2;

/// One tag's place in the buffer.
#[derive(Debug, Clone)]
struct Slot {
    /// Shared by all tags with the same: a plant has a hundred thousand tags, and few kinds of them.
    spec: Arc<TagSpec>,
    /// Most tags have none: a pointer is all that it costs them.
    filter: Option<Box<Filter>>,
    column: Column,
    /// The last reading, whether the filter let it through or not.
    latest: Last,
    /// Where its values go, if they are structures.
    structure: Option<Box<Structure>>,
    /// The time of the last value that an OPC UA server published.
    server_ns: i64,
    /// Set while the first value of a fresh OPC UA subscription is to come: what is not after this time (ns) is known.
    awaited: opcua::Awaited,
    /// The last reading that an OPC UA server published, where the last one came otherwise.
    published: Option<Box<Last>>,
    /// Whether the last reading was published.
    heard: bool,
    /// Whether its server filters: then ours does not, for two deadbands in a row keep neither's bound.
    theirs: bool,
    /// Whose blocks it shares; 0 until `regroup` says otherwise.
    group: u8,
}

impl Slot {
    /// Keeps what was published, before what was read or said takes its place.
    fn set_aside(&mut self) {
        if std::mem::take(&mut self.heard) {
            self.published = Some(Box::new(self.latest.clone()));
        }
    }

    fn new(spec: Arc<TagSpec>) -> Result<Self> {
        let kind = spec.reading_type();
        let mut found = Self {
            spec,
            filter: None,
            column: Column::new(kind),
            latest: Last::default(),
            awaited: opcua::Awaited::Nothing,
            published: None,
            heard: false,
            structure: None,
            server_ns: i64::MIN,
            theirs: false,
            group: 0,
        };
        // A share of a range that only the server knows waits for `Buffer::set_range`.
        if found.spec.range.is_none() && Filter::is_share(&found.spec.filter) {
            Filter::parse(&found.spec.filter, kind, Some((0.0, 1.0)))?;
        } else {
            found.filtered()?;
        }
        Ok(found)
    }

    /// Makes the filter that the spec asks for.
    fn filtered(&mut self) -> Result<()> {
        self.filter = Filter::parse(&self.spec.filter, self.spec.reading_type(), self.spec.range)?.map(Box::new);
        // What another filter left out since the last block is only within that one's bound.
        let bound = |note: Option<Note>| note.map(|note| note.bound);
        let (before, now) = (self.column.note, self.note());
        self.column.note = if bound(before) > bound(now) { before } else { now };
        Ok(())
    }

    /// What the filter lets a reader rely on.
    fn note(&self) -> Option<Note> {
        let (kind, bound) = self.filter.as_ref()?.bound();
        let kind = match kind {
            Kind::OnChange => NoteKind::OnChange,
            Kind::Deadband => NoteKind::Deadband,
            Kind::SwingingDoor => NoteKind::SwingingDoor,
            Kind::Grid => NoteKind::Grid,
        };
        Some(Note { kind, bound })
    }

    /// Everything since the last block that it was in, and an empty column in its place; `None` where it is in none now.
    fn take(&mut self) -> Option<Column> {
        if let Some(filter) = &mut self.filter {
            filter.flush(|time_ns, value, quality| {
                self.column.push(time_ns, value, quality);
            });
        }
        if self.column.is_empty() {
            return None;
        }
        let fresh = Column { note: self.note(), ..self.column.fresh() };
        Some(std::mem::replace(&mut self.column, fresh))
    }
}

/// What the buffer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Readings taken, filtered ones included.
    pub accepted: u64,
    /// Readings that their tag's filter held back.
    pub filtered: u64,
    /// Readings lost because the buffer was full.
    pub refused: u64,
    /// Readings whose value did not fit the tag's type.
    pub mistyped: u64,
    /// Readings that the next seal would take.
    pub pending_readings: u64,
    /// Bytes of memory that they take.
    pub pending_bytes: u64,
    /// Readings sealed.
    pub sealed_readings: u64,
    /// Blocks sealed.
    pub sealed_blocks: u64,
}

/// The buffer.
#[derive(Debug)]
pub struct Buffer {
    slots: Vec<Slot>,
    plans: Vec<Plan>,
    subscriptions: Vec<opcua::Handles>,
    max_bytes: usize,
    stats: Stats,
    /// Goes out with every `Taken`. Its lock is held while a block is encoded, and asked for by nothing else: no push ever
    /// waits for it.
    memory: Arc<Mutex<Memory>>,
}

/// What a seal took out of a buffer: everything the encoder needs, and nothing that a push could still change.
#[derive(Debug)]
pub struct Taken {
    columns: Vec<(u32, Column)>,
    memory: Arc<Mutex<Memory>>,
}

impl Taken {
    /// Compresses and checksums; takes time, so the buffer must not be locked meanwhile.
    ///
    /// What is remembered of the tags makes this quicker and is kept up to date by it. Where two blocks of a buffer are
    /// encoded at the same time, the second does not wait but goes without: its bytes are as right. So the bytes follow
    /// from the readings pushed so far wherever seals come one after the other, as an agent's do.
    pub fn encode(&self, meta: &Meta) -> Vec<u8> {
        match self.memory.try_lock() {
            Ok(mut memory) => block::encode_again(&self.columns, meta, &mut memory),
            // A panic left it half written: it is only hints, and a fresh search overwrites them.
            Err(TryLockError::Poisoned(poisoned)) => {
                self.memory.clear_poison();
                let mut memory = PoisonError::into_inner(poisoned);
                memory.clear();
                block::encode_again(&self.columns, meta, &mut memory)
            }
            Err(TryLockError::WouldBlock) => block::encode(&self.columns, meta),
        }
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Readings taken.
    pub fn readings(&self) -> usize {
        self.columns.iter().map(|(_, column)| column.len()).sum()
    }

    /// The earliest and the latest time.
    pub fn bounds(&self) -> (i64, i64) {
        block::bounds(&self.columns)
    }
}

/// Where the values of one Modbus response go.
struct Registers<'b> {
    slots: &'b mut [Slot],
    stats: &'b mut Stats,
    max_bytes: usize,
    time_ns: i64,
    kept: usize,
}

impl Take for Registers<'_> {
    #[inline(always)]
    fn take(&mut self, tag: u32, raw: Decoded<'_>) {
        let Some(slot) = self.slots.get_mut(tag as usize) else { return };
        let (value, quality) = match raw {
            Ok(raw) => (slot.spec.apply(raw), 0),
            Err(bad) => (Value::Absent, bad),
        };
        self.kept += usize::from(take(slot, self.stats, self.max_bytes, self.time_ns, value, quality));
    }
}

impl Buffer {
    /// A buffer for these tags that takes at most `max_bytes` of memory: what it holds has to fit one block.
    pub fn new(tags: Vec<TagSpec>, max_bytes: usize) -> Result<Self> {
        if tags.len() > block::MAX_COLUMNS {
            return Err(Error::Spec(format!("{} tags; at most {}", tags.len(), block::MAX_COLUMNS)));
        }
        if max_bytes > MAX_BYTES {
            return Err(Error::Spec(format!("max_bytes of {max_bytes}; at most {MAX_BYTES}")));
        }
        let memory = Arc::new(Mutex::new(Memory::new(tags.len())));
        let mut known = HashMap::new();
        let slots = tags
            .into_iter()
            .map(|spec| Slot::new(Arc::clone(known.entry(spec.key()).or_insert_with(|| Arc::new(spec)))));
        let slots = slots.collect::<Result<_>>()?;
        Ok(Self { slots, plans: Vec::new(), subscriptions: Vec::new(), max_bytes, stats: Stats::default(), memory })
    }

    /// The tag's spec.
    pub fn spec(&self, tag: u32) -> Result<&TagSpec> {
        let count = self.slots.len();
        self.slots.get(tag as usize).map(|slot| &*slot.spec).ok_or(Error::Unknown {
            what: "tag",
            number: tag as usize,
            count,
        })
    }

    /// Says of which range a tag's filter in percent takes its share: low and high of its readings. Until then such a tag
    /// lets everything through, if its spec has no range. The same range again changes nothing.
    pub fn set_range(&mut self, tag: u32, low: f64, high: f64) -> Result<()> {
        self.spec(tag)?;
        let Some(slot) = self.slots.get_mut(tag as usize) else { return Ok(()) };
        let before = Arc::make_mut(&mut slot.spec).range.replace((low, high));
        if before == Some((low, high)) || !Filter::is_share(&slot.spec.filter) {
            return Ok(());
        }
        slot.filtered().inspect_err(|_| Arc::make_mut(&mut slot.spec).range = before)
    }

    /// Says of tags whether their server filters (`theirs`), so that all of it is kept, or we do. Ours begins anew.
    pub fn set_filtering(&mut self, tags: &[u32], theirs: bool) -> Result<()> {
        for tag in tags {
            self.spec(*tag)?;
            let Some(slot) = self.slots.get_mut(*tag as usize) else { continue };
            if std::mem::replace(&mut slot.theirs, theirs) == theirs || slot.filter.is_none() {
                continue;
            }
            if let Some(filter) = &mut slot.filter {
                filter.flush(|time_ns, value, quality| {
                    slot.column.push(time_ns, value, quality);
                });
            }
            slot.filtered()?;
        }
        Ok(())
    }

    /// Prepares the decoding of one Modbus request.
    pub fn modbus_plan(&mut self, fields: Vec<Field>, bits: bool) -> Result<usize> {
        for field in &fields {
            let spec = self.spec(field.tag)?;
            if spec.raw != field.kind {
                return Err(Error::Spec(format!(
                    "tag {} is {}, not {}",
                    field.tag,
                    spec.raw.name(),
                    field.kind.name()
                )));
            }
        }
        self.plans.push(Plan::new(fields, bits)?);
        Ok(self.plans.len() - 1)
    }

    /// Decodes one Modbus response into its tags' columns. Returns how many readings passed their filters.
    pub fn push_registers(&mut self, plan: usize, payload: &[u8], time_ns: i64) -> Result<usize> {
        let count = self.plans.len();
        let Self { slots, plans, max_bytes, stats, .. } = self;
        let plan = plans.get(plan).ok_or(Error::Unknown { what: "plan", number: plan, count })?;
        let mut intake = Registers { slots, stats, max_bytes: *max_bytes, time_ns, kept: 0 };
        plan.decode_to(payload, &mut intake)?;
        Ok(intake.kept)
    }

    /// Takes one reading from any other source, its value as the device has it. Returns whether it passed its filter.
    pub fn push(&mut self, tag: u32, time_ns: i64, raw: Value<'_>, quality: u32) -> Result<bool> {
        self.spec(tag)?;
        let Self { slots, max_bytes, stats, .. } = self;
        Ok(slots.get_mut(tag as usize).is_some_and(|slot| {
            slot.set_aside();
            let value = slot.spec.apply(raw);
            take(slot, stats, *max_bytes, time_ns, value, quality)
        }))
    }

    /// Counts a value that its caller could not make fit its tag's type.
    pub fn count_mistyped(&mut self) {
        self.stats.mistyped += 1;
    }

    /// Takes out everything that was pushed, in one step: what is pushed from here on is the next block's.
    pub fn take(&mut self) -> Option<Taken> {
        if self.stats.pending_readings == 0 {
            return None;
        }
        let columns = self.slots.iter_mut().enumerate().filter_map(|(tag, slot)| Some((tag as u32, slot.take()?)));
        let columns = columns.collect();
        let taken = Taken { columns, memory: Arc::clone(&self.memory) };
        self.stats.sealed_readings += self.stats.pending_readings;
        self.stats.sealed_blocks += 1;
        self.stats.pending_readings = 0;
        self.stats.pending_bytes = 0;
        Some(taken)
    }

    /// Says of every tag to which group it belongs: a block may be asked to hold one group only (`part`).
    pub fn regroup(&mut self, groups: &[u8]) -> Result<()> {
        if groups.len() != self.slots.len() {
            return Err(Error::Spec(format!("{} groups for {} tags", groups.len(), self.slots.len())));
        }
        for (slot, group) in self.slots.iter_mut().zip(groups) {
            slot.group = *group;
        }
        Ok(())
    }

    /// Parts the tags of a group from what was taken; nothing where it has none of them.
    pub fn part(&mut self, taken: &mut Taken, group: u8) -> Option<Taken> {
        let mine = |tag: u32| self.slots.get(tag as usize).is_some_and(|slot| slot.group == group);
        let (columns, rest) = std::mem::take(&mut taken.columns).into_iter().partition(|(tag, _)| mine(*tag));
        taken.columns = rest;
        let part = Taken { columns, memory: Arc::clone(&taken.memory) };
        // What was taken counted as one block.
        self.stats.sealed_blocks += u64::from(!part.is_empty() && !taken.is_empty());
        (!part.is_empty()).then_some(part)
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The last reading of every tag that has one.
    pub fn latest(&self) -> impl Iterator<Item = (u32, &Last)> {
        let lasts = self.slots.iter().enumerate().map(|(tag, slot)| (tag as u32, &slot.latest));
        lasts.filter(|(_, last)| last.reading().is_some())
    }
}

/// Whether there is no room for a value.
#[inline(always)]
fn is_full(stats: &Stats, max_bytes: usize, value: Value<'_>) -> bool {
    stats.pending_bytes as usize + column::size(value) > max_bytes
        || stats.pending_readings as usize >= block::MAX_READINGS
}

#[inline(always)]
fn take(slot: &mut Slot, stats: &mut Stats, max_bytes: usize, time_ns: i64, value: Value<'_>, quality: u32) -> bool {
    if is_full(stats, max_bytes, value) {
        stats.refused += 1;
        return false;
    }
    stats.accepted += 1;
    let grown = match &mut slot.filter {
        None => Some(slot.column.push(time_ns, value, quality)),
        Some(_) if slot.theirs => Some(slot.column.push(time_ns, value, quality)),
        Some(filter) if filter.holds() => held(filter, &mut slot.column, &slot.latest, time_ns, value, quality),
        Some(filter) => match filter.pass(&slot.latest, time_ns, value, quality) {
            Some(value) => Some(slot.column.push(time_ns, value, quality)),
            None => None,
        },
    };
    slot.latest.remember(time_ns, value, quality);
    match grown {
        Some(bytes) => {
            stats.pending_bytes += bytes as u64;
            stats.pending_readings += 1;
        }
        None => stats.filtered += 1,
    }
    grown.is_some()
}

/// By how many bytes the pending readings grew, if they became one more. A held reading is pending from the start: the
/// next one either takes its place or comes on top.
fn held(
    filter: &mut Filter,
    column: &mut Column,
    latest: &Last,
    time_ns: i64,
    value: Value<'_>,
    quality: u32,
) -> Option<usize> {
    let before = (column.len(), filter.held().map(column::size));
    let mut bytes = 0;
    filter.offer(latest, time_ns, value, quality, |time_ns, value, quality| {
        bytes += column.push(time_ns, value, quality);
    });
    let after = (column.len(), filter.held().map(column::size));
    let readings = |(kept, held): (usize, Option<usize>)| kept + usize::from(held.is_some());
    (readings(after) > readings(before)).then(|| bytes + after.1.unwrap_or(0) - before.1.unwrap_or(0))
}

/// A reading whose value did not fit: the status that stands in for it.
pub const MISTYPED: u32 = BAD_TYPE_MISMATCH;
