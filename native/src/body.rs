//! A block's body: the directory, then the streams of its columns.
//!
//! The directory is kept as arrays, one a field: where all columns are alike an array is two bytes. No stream carries a
//! length, because each finds its own end; only those of codecs and types that a later minor version may add (ids from
//! `FIRST_ADDED_CODEC` and `FIRST_ADDED_TYPE` on) do, so that a reader which does not know them can pass over them.

use std::collections::HashMap;

use crate::codec::integer::{put_array, read_array};
use crate::codec::run::{self, Runs};
use crate::codec::{Codec, Reader, Sink, Source, broken, integer, put_varint, real, text};
use crate::column::{Column, Note, NoteKind, Values};
use crate::error::Result;
use crate::memory::{Half, Memory};
use crate::tag::{Family, ValueType};
use crate::values::{Arrays, MAX_LENGTH};

/// The most readings in a block; what bounds every allocation of a decoder.
pub const MAX_READINGS: usize = 1 << 22;
/// The most columns in a block, and so the most tags of a buffer; bounds what a decoder keeps for each.
pub const MAX_COLUMNS: usize = 1 << 18;
/// The most bytes of a body before compression.
pub const MAX_BODY: usize = 256 << 20;
/// The most elements of all arrays in a block.
pub const MAX_ELEMENTS: usize = 1 << 24;
/// Codec ids from here on carry their stream's length in front.
const FIRST_ADDED_CODEC: u8 = 16;
/// Type ids from here on do too. Those of arrays are below: their elements take the codecs, and the compression, that
/// columns of the elements' type have.
const FIRST_ADDED_TYPE: u8 = 32;
const HAS_QUALITY: u64 = 1;
const HAS_ABSENT: u64 = 2;
const HAS_NOTE: u64 = 4;

/// One column of a decoded block.
#[derive(Debug, Clone)]
pub struct DecodedColumn {
    /// The tag's index in its epoch.
    pub tag: u32,
    /// The type id as written.
    pub type_id: u8,
    /// Readings.
    pub readings: usize,
    /// Codec id of its times.
    pub time_codec: u8,
    /// Codec id of its values.
    pub value_codec: u8,
    /// The readings, or why they can't be read.
    pub column: std::result::Result<Column, String>,
}

/// Encodes columns; `origin` is the earliest time of them all, from which times count.
/// With `plain` values are written as they are.
pub fn encode(columns: &[(u32, Column)], origin: i64, plain: bool, memory: &mut Memory) -> Sink {
    let mut times = Times {
        origin,
        known: Vec::new(),
        places: HashMap::new(),
        codecs: Vec::new(),
        streams: Sink { plain, ..Sink::default() },
    };
    let mut fields: [Vec<u64>; 5] = Default::default();
    let mut notes = Vec::new();
    let mut streams = Sink { plain, ..Sink::default() };
    let mut next_tag = 0;
    for (tag, column) in columns {
        let has = |has: bool, flag: u64| if has { flag } else { 0 };
        let (bad, absent) = (!column.quality.all(0), !column.present.all(1));
        let flags = has(bad, HAS_QUALITY) | has(absent, HAS_ABSENT) | has(column.note.is_some(), HAS_NOTE);
        // Absences come before the values: they say how many values there are.
        if bad {
            run::encode(&column.quality, &mut streams.soft);
        }
        if absent {
            run::encode(&column.present, &mut streams.soft);
        }
        streams.hint = memory.recall(*tag, Half::Values);
        let codec = put_values(&column.values, column.kind.width(), &mut streams);
        memory.keep(*tag, Half::Values, streams.hint);
        let place = times.place(*tag, &column.times, memory) as u64;
        let entry = [u64::from(*tag) - next_tag, column.kind as u64, flags, place, codec as u64];
        next_tag = u64::from(*tag) + 1;
        for (field, value) in fields.iter_mut().zip(entry) {
            field.push(value);
        }
        if let Some(note) = column.note {
            notes.push(note.kind as u8);
            notes.extend_from_slice(&note.bound.to_le_bytes());
        }
    }
    let mut out = Vec::with_capacity(streams.soft.len() + times.streams.soft.len() + 64);
    put_varint(&mut out, times.known.len() as u64);
    let lengths: Vec<u64> = times.known.iter().map(|each| each.len() as u64).collect();
    put_array(&mut out, &lengths);
    put_array(&mut out, &times.codecs);
    for field in &fields {
        put_array(&mut out, field);
    }
    put_varint(&mut out, 0); // nothing of a later minor version
    put_varint(&mut out, (times.streams.heads.len() + streams.heads.len()) as u64);
    for part in [&times.streams.heads, &streams.heads, &notes, &times.streams.soft, &streams.soft] {
        out.extend_from_slice(part);
    }
    let mut hard = times.streams.hard;
    hard.append(&mut streams.hard);
    Sink { soft: out, hard, ..Sink::default() }
}

/// The distinct time columns of a block: tags that are polled together share one.
struct Times<'a> {
    origin: i64,
    known: Vec<&'a [i64]>,
    places: HashMap<(usize, i64, i64), Vec<usize>>,
    codecs: Vec<u64>,
    streams: Sink,
}

impl<'a> Times<'a> {
    fn place(&mut self, tag: u32, times: &'a [i64], memory: &mut Memory) -> usize {
        // Most columns share the times of the one before.
        if let Some(last) = self.known.len().checked_sub(1).filter(|last| self.known.get(*last) == Some(&times)) {
            return last;
        }
        let key = (times.len(), times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        let alike = self.places.entry(key).or_default();
        if let Some(place) = alike.iter().find(|place| self.known.get(**place).is_some_and(|other| *other == times)) {
            return *place;
        }
        alike.push(self.known.len());
        self.known.push(times);
        let counted: Vec<i64> = times.iter().map(|time| time.wrapping_sub(self.origin)).collect();
        self.streams.hint = memory.recall(tag, Half::Times);
        self.codecs.push(integer::encode(&counted, 8, &mut self.streams) as u64);
        memory.keep(tag, Half::Times, self.streams.hint);
        self.known.len() - 1
    }
}

/// Of arrays the lengths come first, and then the elements as a column of their own; the codec is theirs.
fn put_values(values: &Values, width: usize, out: &mut Sink) -> Codec {
    match values {
        Values::Bool(values) => run::encode_bools(values, &mut out.soft),
        Values::Integer(values) | Values::Unsigned(values) => integer::encode(values, width, out),
        Values::Real32(values) => real::encode(values, out),
        Values::Real64(values) => real::encode(values, out),
        Values::Text(values) => text::encode(values, out),
        Values::Bytes(values) => text::encode(values, out),
        Values::Array(arrays) => {
            let lengths: Vec<i64> = arrays.lengths().map(|length| length as i64).collect();
            if !lengths.is_empty() {
                integer::put_nested(out, &lengths);
            }
            put_values(arrays.elements(), width, out)
        }
    }
}

/// Decodes a body of `count` columns. A column of an unknown codec or type is reported, and does not harm the others.
pub fn decode(soft: &[u8], hard: &[u8], count: usize, origin: i64) -> Result<Vec<DecodedColumn>> {
    if count > MAX_COLUMNS {
        return Err(broken(format!("{count} columns; at most {MAX_COLUMNS}")));
    }
    let mut source = Source { heads: Reader::new(&[]), soft: Reader::new(soft), hard: Reader::new(hard) };
    let reader = &mut source.soft;
    let distinct = reader.count(count, "time columns")?;
    let lengths = read_array(reader, distinct)?;
    let time_codecs = read_array(reader, distinct)?;
    let [steps, types, flags, places, codecs] = fields(reader, count)?;
    let added = reader.count(soft.len(), "bytes of added fields")?;
    reader.take(added)?;
    let heads = reader.count(soft.len(), "bytes of heads")?;
    source.heads = Reader::new(reader.take(heads)?);
    let reader = &mut source.soft;
    // Time columns are shared, so the sums are what a decoder will allocate: they are checked before any stream is read.
    let mut counts = Vec::with_capacity(distinct);
    bounded(lengths.iter().copied())?;
    for length in lengths {
        counts.push(length as usize);
    }
    let length_of = |place: &u64| usize::try_from(*place).ok().and_then(|place| counts.get(place).copied());
    let readings: Vec<usize> = places
        .iter()
        .map(|place| length_of(place).ok_or_else(|| broken("no such time column")))
        .collect::<Result<_>>()?;
    bounded(readings.iter().map(|each| *each as u64))?;
    let mut notes = Vec::with_capacity(count);
    for flags in &flags {
        notes.push(if flags & HAS_NOTE == 0 { None } else { read_note(reader)? });
    }
    let mut times = Vec::with_capacity(distinct);
    for (codec, readings) in time_codecs.iter().zip(&counts) {
        times.push(read_times(&mut source, *codec, *readings, origin)?);
    }
    let mut columns = Vec::with_capacity(count);
    let (mut next_tag, mut left) = (0_u64, Left { text: MAX_BODY, elements: MAX_ELEMENTS });
    let entries = steps.iter().zip(types).zip(flags).zip(places.iter().zip(codecs)).zip(readings.iter().zip(notes));
    for ((((step, kind), flags), (place, codec)), (readings, note)) in entries {
        let tag = next_tag.checked_add(*step).and_then(|tag| u32::try_from(tag).ok());
        let tag = tag.ok_or_else(|| broken("tag past 2^32"))?;
        next_tag = u64::from(tag) + 1;
        let (type_id, value_codec) = (id(kind)?, id(codec)?);
        let shape = Shape { type_id, value_codec, flags, readings: *readings };
        let read = read_column(&mut source, &shape, left)?;
        let (time_codec, column) = match times.get(*place as usize) {
            Some((time_codec, Ok(times))) => {
                (*time_codec, read.map(|read| Column { times: times.clone(), note, ..read }))
            }
            Some((time_codec, Err(why))) => (*time_codec, Err(why.clone())),
            None => return Err(broken("no such time column")),
        };
        if let Ok(column) = &column {
            left.text = left.text.saturating_sub(column.values.text_len());
            left.elements = left.elements.saturating_sub(column.values.elements());
        }
        columns.push(DecodedColumn { tag, type_id, readings: *readings, time_codec, value_codec, column });
    }
    source.heads.end()?;
    source.soft.end()?;
    source.hard.end()?;
    Ok(columns)
}

fn fields(reader: &mut Reader<'_>, count: usize) -> Result<[Vec<u64>; 5]> {
    let mut found: [Vec<u64>; 5] = Default::default();
    for field in &mut found {
        *field = read_array(reader, count)?;
    }
    Ok(found)
}

fn bounded(mut lengths: impl Iterator<Item = u64>) -> Result<()> {
    let total = lengths.try_fold(0_u64, u64::checked_add).filter(|total| *total <= MAX_READINGS as u64);
    total.map(|_| ()).ok_or_else(|| broken(format!("more than {MAX_READINGS} readings")))
}

fn id(value: u64) -> Result<u8> {
    u8::try_from(value).map_err(|_| broken(format!("an id of {value}")))
}

/// A note of a kind that a later version added is none that we could tell anybody.
fn read_note(reader: &mut Reader<'_>) -> Result<Option<Note>> {
    let (kind, bound) = (NoteKind::from_id(reader.byte()?), f64::from_le_bytes(reader.array()?));
    Ok(kind.map(|kind| Note { kind, bound }))
}

type ReadTimes = (u8, std::result::Result<Vec<i64>, String>);

fn read_times(source: &mut Source<'_>, codec: u64, readings: usize, origin: i64) -> Result<ReadTimes> {
    let codec = id(codec)?;
    let (mut stream, framed) = framed(source, codec >= FIRST_ADDED_CODEC)?;
    let Some(known) = Codec::from_id(codec) else {
        return Ok((codec, Err(unknown("codec", codec, framed)?)));
    };
    let mut times = integer::decode(known, stream.as_mut().unwrap_or(source), readings, 8, true)?;
    for time in &mut times {
        *time = time.wrapping_add(origin);
    }
    Ok((codec, Ok(times)))
}

/// The stream of an added codec or type: it lies whole in the hard part, its length in the soft one.
fn framed<'a>(source: &mut Source<'a>, added: bool) -> Result<(Option<Source<'a>>, bool)> {
    if !added {
        return Ok((None, false));
    }
    let length = source.soft.count(source.hard.rest().len(), "bytes of a stream")?;
    let hard = Reader::new(source.hard.take(length)?);
    Ok((Some(Source { heads: Reader::new(&[]), soft: Reader::new(&[]), hard }), true))
}

/// Why a column can't be read by this version; an error of the block where its end is not known either.
fn unknown(what: &str, id: u8, framed: bool) -> Result<String> {
    let why = format!("{what} {id} is not known to this version");
    if framed { Ok(why) } else { Err(broken(why)) }
}

struct Shape {
    type_id: u8,
    value_codec: u8,
    flags: u64,
    readings: usize,
}

/// What the columns of a block may still become in memory, whatever few bytes they are made of.
#[derive(Clone, Copy)]
struct Left {
    /// Bytes of strings and bytes.
    text: usize,
    /// Elements of arrays.
    elements: usize,
}

/// The values, qualities and absences of one column; its times are added by the caller.
fn read_column(source: &mut Source<'_>, shape: &Shape, left: Left) -> Result<std::result::Result<Column, String>> {
    let (quality, present) = read_quality(&mut source.soft, shape)?;
    let count = present.iter().filter(|present| *present != 0).count();
    let kind = ValueType::from_id(shape.type_id);
    let lengths = match kind.and_then(ValueType::element) {
        Some(_) => Some(read_lengths(source, count, left.elements)?),
        None => None,
    };
    let added = shape.value_codec >= FIRST_ADDED_CODEC || shape.type_id >= FIRST_ADDED_TYPE;
    let (mut stream, framed) = framed(source, added)?;
    let Some(kind) = kind else {
        return Ok(Err(unknown("type", shape.type_id, framed)?));
    };
    let Some(codec) = Codec::from_id(shape.value_codec) else {
        return Ok(Err(unknown("codec", shape.value_codec, framed)?));
    };
    let count = lengths.as_ref().map_or(count, |lengths| lengths.iter().sum());
    let values = read_values(codec, kind, stream.as_mut().unwrap_or(source), count, left.text)?;
    if !fits(kind, &values) {
        return Ok(Err(format!("values that {} can't have", kind.name())));
    }
    let values = match lengths {
        Some(lengths) => {
            Values::Array(Arrays::of(lengths, values).ok_or_else(|| broken("fewer elements than written"))?)
        }
        None => values,
    };
    Ok(Ok(Column { kind, times: Vec::new(), values, present, quality, note: None }))
}

/// The lengths of `count` arrays, which together have at most `most` elements: checked before any element is read.
fn read_lengths(source: &mut Source<'_>, count: usize, most: usize) -> Result<Vec<usize>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut left = most;
    let lengths = integer::read_nested(source, count)?.into_iter().map(|length| {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_LENGTH)
            .ok_or_else(|| broken(format!("an array of {length} elements; at most {MAX_LENGTH}")))?;
        left = left.checked_sub(length).ok_or_else(|| broken(format!("more than {MAX_ELEMENTS} elements")))?;
        Ok(length)
    });
    lengths.collect()
}

/// Integers travel at 64 bits: a stream may hold what its type does not.
fn fits(kind: ValueType, values: &Values) -> bool {
    let bits = kind.width() * 8;
    match values {
        Values::Integer(values) if bits < 64 => values.iter().all(|value| value >> (bits - 1) == value >> 63),
        Values::Unsigned(values) if bits < 64 => values.iter().all(|value| value >> bits == 0),
        _ => true,
    }
}

fn read_quality(reader: &mut Reader<'_>, shape: &Shape) -> Result<(Runs<u32>, Runs<u8>)> {
    let count = shape.readings;
    let quality = if shape.flags & HAS_QUALITY == 0 { Runs::of(0, count) } else { run::decode(reader, count)? };
    let present = if shape.flags & HAS_ABSENT == 0 { Runs::of(1, count) } else { run::decode_flags(reader, count)? };
    Ok((quality, present))
}

/// The values, or the elements of all arrays.
fn read_values(
    codec: Codec,
    kind: ValueType,
    source: &mut Source<'_>,
    count: usize,
    text_left: usize,
) -> Result<Values> {
    let width = kind.width();
    Ok(match kind.family() {
        Family::Bool => Values::Bool(run::decode_bools(codec, &mut source.soft, count)?),
        Family::Integer => Values::Integer(integer::decode(codec, source, count, width, true)?),
        Family::Unsigned => Values::Unsigned(integer::decode(codec, source, count, width, false)?),
        Family::Real32 => Values::Real32(real::decode(codec, source, count)?),
        Family::Real64 => Values::Real64(real::decode(codec, source, count)?),
        Family::Text => Values::Text(text::decode(codec, source, count, text_left)?),
        Family::Bytes => Values::Bytes(text::decode(codec, source, count, text_left)?),
    })
}
