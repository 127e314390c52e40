//! The block: sealed, compressed, checksummed columns of readings (docs/block-format.md).
//!
//! ```text
//! header   magic "HDRC" | major u8 | minor u8 | flags u16 | stream 16 bytes | sequence u64 | epoch u64 | first_ns i64
//!          varints: last_ns - first_ns | sealed_ns - last_ns (signed) | readings | columns | places | body | raw body
//! body     directory, then the columns' streams in its order; one zstd frame where that is shorter
//! trailer  CRC-32C of everything before it, u32
//! ```

use std::collections::HashMap;

use crate::codec::run::{self, Runs};
use crate::codec::{Codec, Encoded, Reader, broken, integer, put_signed, put_varint, real, text};
use crate::column::{Column, Values};
use crate::error::Result;
use crate::tag::ValueType;

/// The first four bytes of every block.
pub const MAGIC: [u8; 4] = *b"HDRC";
/// Major version: a reader refuses others.
pub const MAJOR: u8 = 1;
/// Minor version: later ones only add codecs and directory fields.
pub const MINOR: u8 = 0;
/// The most readings in a block; what bounds every allocation of a decoder.
pub const MAX_READINGS: usize = 1 << 22;
/// The most columns in a block, and so the most tags of a buffer; bounds what a decoder keeps for each.
pub const MAX_COLUMNS: usize = 1 << 18;
/// The most bytes of a body before compression.
pub const MAX_BODY: usize = 256 << 20;
/// The longest reason of a gap, in bytes.
pub const MAX_REASON: usize = 1024;

const FLAG_ZSTD: u16 = 1;
const FLAG_GAP: u16 = 2;
const FLAG_UNSYNCHRONIZED: u16 = 4;
const ENTRY_QUALITY: u8 = 1;
const ENTRY_ABSENT: u8 = 2;

/// What a block says of itself besides its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The stream's uuid.
    pub stream: [u8; 16],
    /// The place in the stream.
    pub sequence: u64,
    /// The epoch whose catalog names the tags.
    pub epoch: u64,
    /// The gateway's clock when it was sealed, ns UTC.
    pub sealed_ns: i64,
    /// Whether that clock was known to be right.
    pub synchronized: bool,
}

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Major and minor version.
    pub version: (u8, u8),
    /// Stream, sequence, epoch, seal time.
    pub meta: Meta,
    /// The earliest source time, ns UTC.
    pub first_ns: i64,
    /// The latest source time, ns UTC.
    pub last_ns: i64,
    /// Readings in the block; of a gap, readings lost.
    pub readings: u64,
    /// Columns in the block.
    pub columns: usize,
    /// How many places of the stream it stands for; more than 1 only in a gap.
    pub places: u64,
    /// Why it is a gap, if it is one.
    pub gap: Option<String>,
}

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

/// The earliest and the latest time of some columns.
pub fn bounds(columns: &[(u32, Column)]) -> (i64, i64) {
    let times = columns.iter().flat_map(|(_, column)| &column.times);
    times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(*time), last.max(*time)))
}

/// Encodes columns of at most `MAX_READINGS` readings together, at least one.
pub fn encode(columns: &[(u32, Column)], meta: &Meta) -> Vec<u8> {
    let mut times: Vec<(&[i64], Encoded)> = Vec::new();
    let mut places: HashMap<(usize, i64, i64), Vec<usize>> = HashMap::new();
    let mut entries = Vec::new();
    let mut streams = Vec::new();
    let mut next_tag = 0;
    for (tag, column) in columns {
        let time = shared_time(&column.times, &mut times, &mut places);
        let (codec, values) = encode_values(column);
        let mut entry = Vec::with_capacity(16);
        put_varint(&mut entry, u64::from(tag - next_tag));
        next_tag = tag + 1;
        let (bad, absent) = (!column.quality.all(0), !column.present.all(1));
        entry.push(column.kind as u8);
        entry.push(if bad { ENTRY_QUALITY } else { 0 } | if absent { ENTRY_ABSENT } else { 0 });
        put_varint(&mut entry, time as u64);
        entry.push(codec as u8);
        put_varint(&mut entry, values.len() as u64);
        streams.push(values);
        if bad {
            let quality = run::encode(&column.quality);
            put_varint(&mut entry, quality.len() as u64);
            streams.push(quality);
        }
        if absent {
            let present = run::encode(&column.present);
            put_varint(&mut entry, present.len() as u64);
            streams.push(present);
        }
        entries.push(entry);
    }
    let mut body = Vec::new();
    put_varint(&mut body, times.len() as u64);
    for (values, (codec, bytes)) in &times {
        put_varint(&mut body, values.len() as u64);
        body.push(*codec as u8);
        put_varint(&mut body, bytes.len() as u64);
    }
    for entry in &entries {
        put_varint(&mut body, entry.len() as u64);
        body.extend_from_slice(entry);
    }
    for bytes in times.iter().map(|(_, (_, bytes))| bytes).chain(&streams) {
        body.extend_from_slice(bytes);
    }
    let (first_ns, last_ns) = bounds(columns);
    let readings = columns.iter().map(|(_, column)| column.len() as u64).sum();
    let header = Header {
        version: (MAJOR, MINOR),
        meta: *meta,
        first_ns,
        last_ns,
        readings,
        columns: columns.len(),
        places: 1,
        gap: None,
    };
    write(&header, &body)
}

/// The place of a time column among those of the block: tags that are polled together share one.
fn shared_time<'a>(
    times: &'a [i64],
    known: &mut Vec<(&'a [i64], Encoded)>,
    places: &mut HashMap<(usize, i64, i64), Vec<usize>>,
) -> usize {
    let key = (times.len(), times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
    let alike = places.entry(key).or_default();
    if let Some(place) = alike.iter().find(|place| known.get(**place).is_some_and(|(other, _)| *other == times)) {
        return *place;
    }
    alike.push(known.len());
    known.push((times, integer::encode(times, 8)));
    known.len() - 1
}

fn encode_values(column: &Column) -> Encoded {
    match &column.values {
        Values::Bool(values) => run::encode_bools(values),
        Values::Integer(values) | Values::Unsigned(values) => integer::encode(values, column.kind.width()),
        Values::Real32(values) => real::encode(values),
        Values::Real64(values) => real::encode(values),
        Values::Text(values) => text::encode(values),
    }
}

/// A block that stands for `places` places of a stream, the first at `meta.sequence`, whose `readings` are missing.
pub fn gap(meta: &Meta, places: u64, bounds: (i64, i64), readings: u64, reason: &str) -> Vec<u8> {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    let reason = reason.get(..end).unwrap_or_default();
    let (first_ns, last_ns) = bounds;
    let header = Header {
        version: (MAJOR, MINOR),
        meta: *meta,
        first_ns,
        last_ns: last_ns.max(first_ns),
        readings,
        columns: 0,
        places: places.max(1),
        gap: Some(reason.to_owned()),
    };
    write(&header, reason.as_bytes())
}

fn write(header: &Header, body: &[u8]) -> Vec<u8> {
    // Compression can only fail for want of memory; the block is then as good uncompressed.
    let packed = if header.gap.is_some() {
        None
    } else {
        zstd::bulk::compress(body, 3).ok().filter(|packed| packed.len() < body.len())
    };
    let flags = packed.as_ref().map_or(0, |_| FLAG_ZSTD)
        | header.gap.as_ref().map_or(0, |_| FLAG_GAP)
        | if header.meta.synchronized { 0 } else { FLAG_UNSYNCHRONIZED };
    let stored = packed.as_deref().unwrap_or(body);
    let mut out = Vec::with_capacity(80 + stored.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[header.version.0, header.version.1]);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&header.meta.stream);
    out.extend_from_slice(&header.meta.sequence.to_le_bytes());
    out.extend_from_slice(&header.meta.epoch.to_le_bytes());
    out.extend_from_slice(&header.first_ns.to_le_bytes());
    put_varint(&mut out, header.last_ns.wrapping_sub(header.first_ns) as u64);
    put_signed(&mut out, header.meta.sealed_ns.wrapping_sub(header.last_ns));
    for number in [header.readings, header.columns as u64, header.places, stored.len() as u64, body.len() as u64] {
        put_varint(&mut out, number);
    }
    out.extend_from_slice(stored);
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Verifies the checksum, reads the header, and returns the body as stored, with its length before compression.
fn open(bytes: &[u8]) -> Result<(Header, &[u8], usize, bool)> {
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or_else(|| broken("shorter than its checksum"))?;
    // Before anything else: almost three quarters of damaged compressed columns would decode to wrong numbers.
    let (found, expected) = (crc32c::crc32c(content), u32::from_le_bytes(*checksum));
    if !content.starts_with(&MAGIC) {
        return Err(broken("it does not begin with HDRC"));
    }
    if found != expected {
        return Err(broken(format!("checksum {found:08x}, where {expected:08x} is written")));
    }
    let mut reader = Reader::new(content);
    reader.take(MAGIC.len())?;
    let version = (reader.byte()?, reader.byte()?);
    if version.0 != MAJOR {
        return Err(broken(format!("version {}.{}; this program reads {MAJOR}.x", version.0, version.1)));
    }
    let flags = u16::from_le_bytes(reader.array()?);
    let stream = reader.array()?;
    let (sequence, epoch) = (u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
    let first_ns = i64::from_le_bytes(reader.array()?);
    let last_ns = first_ns.wrapping_add(reader.varint()? as i64);
    let sealed_ns = last_ns.wrapping_add(reader.signed()?);
    let readings = reader.varint()?;
    let columns = reader.count(MAX_COLUMNS, "columns")?;
    let places = reader.varint()?;
    let stored = reader.count(MAX_BODY, "bytes of body")?;
    let raw = reader.count(MAX_BODY, "bytes of raw body")?;
    let body = reader.take(stored)?;
    reader.end()?;
    let is_gap = flags & FLAG_GAP != 0;
    if places == 0 || sequence.checked_add(places - 1).is_none() || (!is_gap && places != 1) {
        return Err(broken(format!("{places} places from {sequence}")));
    }
    let reason = || {
        std::str::from_utf8(body.get(..body.len().min(MAX_REASON)).unwrap_or_default())
            .map_err(|_| broken("a reason that is not UTF-8"))
    };
    let gap = if is_gap { Some(reason()?.to_owned()) } else { None };
    let meta = Meta { stream, sequence, epoch, sealed_ns, synchronized: flags & FLAG_UNSYNCHRONIZED == 0 };
    Ok((Header { version, meta, first_ns, last_ns, readings, columns, places, gap }, body, raw, flags & FLAG_ZSTD != 0))
}

/// Verifies a block and reads its header.
pub fn header(bytes: &[u8]) -> Result<Header> {
    open(bytes).map(|(header, ..)| header)
}

/// Verifies and decodes a block. A column of an unknown codec or type is reported, and does not harm the others.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<DecodedColumn>)> {
    let (header, stored, raw, packed) = open(bytes)?;
    if header.gap.is_some() {
        return Ok((header, Vec::new()));
    }
    let body = if packed {
        zstd::bulk::decompress(stored, raw).map_err(|why| broken(why.to_string()))?
    } else {
        stored.to_vec()
    };
    if body.len() != raw {
        return Err(broken(format!("a body of {} bytes, where {raw} are written", body.len())));
    }
    let columns = decode_body(&body, header.columns)?;
    let readings: u64 = columns.iter().map(|column| column.readings as u64).sum();
    if readings != header.readings {
        return Err(broken(format!("{readings} readings, where {} are written", header.readings)));
    }
    Ok((header, columns))
}

struct Entry {
    tag: u32,
    type_id: u8,
    time: usize,
    codec: u8,
    lengths: (usize, Option<usize>, Option<usize>),
}

fn decode_body(body: &[u8], count: usize) -> Result<Vec<DecodedColumn>> {
    let mut reader = Reader::new(body);
    let most = body.len();
    let (mut times, mut distinct) = (Vec::new(), 0);
    for _ in 0..reader.count(count, "time columns")? {
        let readings = reader.count(MAX_READINGS, "readings in a column")?;
        times.push((readings, reader.byte()?, reader.count(most, "bytes")?));
        // Also those that no entry names are decoded: a few bytes each could ask for all the memory there is.
        distinct += readings;
        if distinct > MAX_READINGS {
            return Err(broken(format!("more than {MAX_READINGS} times")));
        }
    }
    let mut entries = Vec::new();
    let (mut next_tag, mut total) = (0_u32, 0);
    for _ in 0..count {
        let length = reader.count(most, "bytes of an entry")?;
        let entry = entry(reader.take(length)?, next_tag, most)?;
        next_tag = entry.tag.checked_add(1).ok_or_else(|| broken("tag past 2^32"))?;
        total += times.get(entry.time).ok_or_else(|| broken("no such time column"))?.0;
        // Time columns are shared, so the sum is what a decoder will allocate: it is checked before any stream is read.
        if total > MAX_READINGS {
            return Err(broken(format!("more than {MAX_READINGS} readings")));
        }
        entries.push(entry);
    }
    let decoded: Vec<_> = times
        .into_iter()
        .map(|(readings, codec, length)| {
            let bytes = reader.take(length)?;
            let values = known(codec)
                .and_then(|codec| integer::decode(codec, bytes, readings, 8, true).map_err(|why| why.to_string()));
            Ok((readings, codec, values))
        })
        .collect::<Result<_>>()?;
    let mut columns = Vec::with_capacity(entries.len());
    let mut text_left = MAX_BODY;
    for entry in entries {
        let (values, quality, present) = entry.lengths;
        let values = reader.take(values)?;
        let quality = quality.map(|length| reader.take(length)).transpose()?;
        let present = present.map(|length| reader.take(length)).transpose()?;
        let (readings, time_codec, times) = decoded.get(entry.time).ok_or_else(|| broken("no such time column"))?;
        let column = times.as_ref().map_err(Clone::clone).and_then(|times| {
            let streams = Streams { values, quality, present };
            decode_column(&entry, times, &streams, text_left)
        });
        if let Ok(Column { values: Values::Text(texts), .. }) = &column {
            text_left = text_left.saturating_sub(texts.iter().map(str::len).sum());
        }
        let (tag, type_id, value_codec) = (entry.tag, entry.type_id, entry.codec);
        columns.push(DecodedColumn { tag, type_id, readings: *readings, time_codec: *time_codec, value_codec, column });
    }
    reader.end()?;
    Ok(columns)
}

fn entry(bytes: &[u8], next_tag: u32, most: usize) -> Result<Entry> {
    // What follows the known fields is of a later minor version, and skipped.
    let mut reader = Reader::new(bytes);
    let tag = u32::try_from(reader.varint()?)
        .ok()
        .and_then(|step| next_tag.checked_add(step))
        .ok_or_else(|| broken("tag past 2^32"))?;
    let (type_id, flags) = (reader.byte()?, reader.byte()?);
    let time = reader.count(MAX_READINGS, "time columns")?;
    let codec = reader.byte()?;
    let values = reader.count(most, "bytes")?;
    let quality = if flags & ENTRY_QUALITY == 0 { None } else { Some(reader.count(most, "bytes")?) };
    let present = if flags & ENTRY_ABSENT == 0 { None } else { Some(reader.count(most, "bytes")?) };
    Ok(Entry { tag, type_id, time, codec, lengths: (values, quality, present) })
}

struct Streams<'a> {
    values: &'a [u8],
    quality: Option<&'a [u8]>,
    present: Option<&'a [u8]>,
}

fn known(codec: u8) -> std::result::Result<Codec, String> {
    Codec::from_id(codec).ok_or_else(|| format!("codec {codec} is not known to this version"))
}

fn decode_column(
    entry: &Entry,
    times: &[i64],
    streams: &Streams<'_>,
    text_left: usize,
) -> std::result::Result<Column, String> {
    let kind = ValueType::from_id(entry.type_id)
        .ok_or_else(|| format!("type {} is not known to this version", entry.type_id))?;
    let codec = known(entry.codec)?;
    let read = || -> Result<Column> {
        let count = times.len();
        let quality = match streams.quality {
            Some(bytes) => run::decode::<u32>(bytes, count)?,
            None => Runs::of(0, count),
        };
        let present = match streams.present {
            Some(bytes) => run::decode::<u8>(bytes, count)?,
            None => Runs::of(1, count),
        };
        let count = present.iter().filter(|present| *present != 0).count();
        let (bytes, width) = (streams.values, kind.width());
        let values = match kind {
            ValueType::Bool => Values::Bool(run::decode_bools(codec, bytes, count)?),
            ValueType::Int8 | ValueType::Int16 | ValueType::Int32 | ValueType::Int64 => {
                Values::Integer(integer::decode(codec, bytes, count, width, true)?)
            }
            ValueType::UInt8 | ValueType::UInt16 | ValueType::UInt32 | ValueType::UInt64 => {
                Values::Unsigned(integer::decode(codec, bytes, count, width, false)?)
            }
            ValueType::Float32 => Values::Real32(real::decode(codec, bytes, count)?),
            ValueType::Float64 => Values::Real64(real::decode(codec, bytes, count)?),
            ValueType::Text => Values::Text(text::decode(codec, bytes, count, text_left)?),
        };
        Ok(Column { kind, times: times.to_vec(), values, present, quality, note: None })
    };
    read().map_err(|why| why.to_string())
}
