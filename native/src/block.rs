//! The block: sealed, compressed, checksummed columns of readings (docs/block-format.md).
//!
//! ```text
//! header   magic "HDRC" | major u8 | minor u8 | flags u8 | stream 16 bytes | epoch u64 | first_ns i64
//!          varints: sequence | last_ns - first_ns | sealed_ns - last_ns (signed) | readings | columns | places
//!                   hard part | soft part as stored | soft part before compression (only where it is compressed)
//! soft     directory and the columns' streams (`body.rs`); one zstd frame where that is shorter
//! hard     what of the streams is dense already
//! trailer  CRC-32C of everything before it, u32
//! ```

use crate::body;
use crate::codec::{Reader, broken, put_signed, put_varint};
use crate::column::Column;
use crate::error::Result;
use crate::memory::Memory;

pub use crate::body::{DecodedColumn, MAX_BODY, MAX_COLUMNS, MAX_ELEMENTS, MAX_READINGS};

/// The first four bytes of every block.
pub const MAGIC: [u8; 4] = *b"HDRC";
/// Major version: a reader refuses others.
pub const MAJOR: u8 = 1;
/// Minor version: later ones only add codecs and directory fields.
pub const MINOR: u8 = 0;
/// The longest reason of a gap, in bytes.
pub const MAX_REASON: usize = 1024;

const FLAG_ZSTD: u8 = 1;
const FLAG_GAP: u8 = 2;
const FLAG_UNSYNCHRONIZED: u8 = 4;
const FLAG_CORRECTION: u8 = 8;

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

/// What a correction says: by how much the gateway's own times in some blocks of a stream are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    /// The uuid of the stream that the blocks are in.
    pub stream: [u8; 16],
    /// The first block's place.
    pub first: u64,
    /// The last block's place.
    pub last: u64,
    /// What is to be added to those times, ns.
    pub offset_ns: i64,
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
    /// What it corrects, if it is a correction.
    pub correction: Option<Correction>,
}

impl Header {
    /// "readings", "gap" or "correction".
    pub fn kind(&self) -> &'static str {
        match (&self.gap, &self.correction) {
            (Some(_), _) => "gap",
            (_, Some(_)) => "correction",
            _ => "readings",
        }
    }
}

/// The earliest and the latest time of some columns.
pub fn bounds(columns: &[(u32, Column)]) -> (i64, i64) {
    let times = columns.iter().flat_map(|(_, column)| &column.times);
    times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(*time), last.max(*time)))
}

/// Encodes columns of at most `MAX_READINGS` readings together, at least one.
///
/// What was encoded is decoded again and compared before anybody may let go of the columns. Should a codec ever fail
/// that, the block is written plainly: a byte too many is no loss, a wrong value is.
pub fn encode(columns: &[(u32, Column)], meta: &Meta) -> Vec<u8> {
    encode_again(columns, meta, &mut Memory::default())
}

/// The same with what is remembered of earlier blocks of these tags, and of this one by the next.
pub fn encode_again(columns: &[(u32, Column)], meta: &Meta, memory: &mut Memory) -> Vec<u8> {
    let packed = encode_as(columns, meta, false, memory);
    if reads_back(&packed, columns) {
        return packed;
    }
    memory.clear();
    encode_as(columns, meta, true, &mut Memory::default())
}

fn encode_as(columns: &[(u32, Column)], meta: &Meta, plain: bool, memory: &mut Memory) -> Vec<u8> {
    let (first_ns, last_ns) = bounds(columns);
    let body = body::encode(columns, first_ns, plain, memory);
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
        correction: None,
    };
    write(&header, &body.soft, &body.hard)
}

fn reads_back(bytes: &[u8], columns: &[(u32, Column)]) -> bool {
    decode(bytes).is_ok_and(|(_, found)| {
        found.len() == columns.len()
            && found.iter().zip(columns).all(|(found, (tag, column))| {
                found.tag == *tag && found.column.as_ref().is_ok_and(|found| found.same(column))
            })
    })
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
        correction: None,
    };
    write(&header, reason.as_bytes(), &[])
}

/// A block without readings, that says by how much the times in others are off.
pub fn correction(meta: &Meta, correction: Correction) -> Vec<u8> {
    let header = Header {
        version: (MAJOR, MINOR),
        meta: *meta,
        first_ns: meta.sealed_ns,
        last_ns: meta.sealed_ns,
        readings: 0,
        columns: 0,
        places: 1,
        gap: None,
        correction: Some(correction),
    };
    let mut soft = correction.stream.to_vec();
    put_varint(&mut soft, correction.first);
    put_varint(&mut soft, correction.last.saturating_sub(correction.first));
    put_signed(&mut soft, correction.offset_ns);
    write(&header, &soft, &[])
}

fn read_correction(soft: &[u8]) -> Result<Correction> {
    let mut reader = Reader::new(soft);
    let (stream, first, more) = (reader.array()?, reader.varint()?, reader.varint()?);
    let offset_ns = reader.signed()?;
    reader.end()?;
    let last = first.checked_add(more).ok_or_else(|| broken(format!("a correction of {more} places after {first}")))?;
    Ok(Correction { stream, first, last, offset_ns })
}

fn write(header: &Header, soft: &[u8], hard: &[u8]) -> Vec<u8> {
    // Compression can only fail for want of memory; the block is then as good uncompressed.
    let packed = if header.gap.is_some() || header.correction.is_some() {
        None
    } else {
        zstd::bulk::compress(soft, 3).ok().filter(|packed| packed.len() < soft.len())
    };
    let flags = packed.as_ref().map_or(0, |_| FLAG_ZSTD)
        | header.gap.as_ref().map_or(0, |_| FLAG_GAP)
        | header.correction.map_or(0, |_| FLAG_CORRECTION)
        | if header.meta.synchronized { 0 } else { FLAG_UNSYNCHRONIZED };
    let stored = packed.as_deref().unwrap_or(soft);
    let mut out = Vec::with_capacity(80 + stored.len() + hard.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[header.version.0, header.version.1, flags]);
    out.extend_from_slice(&header.meta.stream);
    out.extend_from_slice(&header.meta.epoch.to_le_bytes());
    out.extend_from_slice(&header.first_ns.to_le_bytes());
    put_varint(&mut out, header.meta.sequence);
    put_varint(&mut out, header.last_ns.wrapping_sub(header.first_ns) as u64);
    put_signed(&mut out, header.meta.sealed_ns.wrapping_sub(header.last_ns));
    let lengths = [hard.len() as u64, stored.len() as u64];
    for number in [header.readings, header.columns as u64, header.places].into_iter().chain(lengths) {
        put_varint(&mut out, number);
    }
    if packed.is_some() {
        put_varint(&mut out, soft.len() as u64);
    }
    out.extend_from_slice(stored);
    out.extend_from_slice(hard);
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The parts of a block behind its header.
struct Parts<'a> {
    soft: &'a [u8],
    hard: &'a [u8],
    /// The length of the soft part before compression, where it is compressed.
    unpacked: Option<usize>,
}

/// Verifies the checksum, reads the header, and returns the parts as stored.
fn open(bytes: &[u8]) -> Result<(Header, Parts<'_>)> {
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or_else(|| broken("shorter than its checksum"))?;
    // Before anything else: most damaged columns would decode without an error, to wrong numbers.
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
    let flags = reader.byte()?;
    let stream = reader.array()?;
    let epoch = u64::from_le_bytes(reader.array()?);
    let first_ns = i64::from_le_bytes(reader.array()?);
    let sequence = reader.varint()?;
    let last_ns = first_ns.wrapping_add(reader.varint()? as i64);
    let sealed_ns = last_ns.wrapping_add(reader.signed()?);
    let readings = reader.varint()?;
    let columns = reader.count(MAX_COLUMNS, "columns")?;
    let places = reader.varint()?;
    let hard = reader.count(MAX_BODY, "bytes of the hard part")?;
    let stored = reader.count(MAX_BODY, "bytes of the soft part")?;
    let unpacked =
        if flags & FLAG_ZSTD == 0 { None } else { Some(reader.count(MAX_BODY, "bytes of the soft part unpacked")?) };
    let soft = reader.take(stored)?;
    let hard = reader.take(hard)?;
    reader.end()?;
    let is_gap = flags & FLAG_GAP != 0;
    if places == 0 || sequence.checked_add(places - 1).is_none() || (!is_gap && places != 1) {
        return Err(broken(format!("{places} places from {sequence}")));
    }
    if is_gap && (unpacked.is_some() || columns != 0 || !hard.is_empty() || soft.len() > MAX_REASON) {
        return Err(broken("a gap that is more than that"));
    }
    let reason = || std::str::from_utf8(soft).map_err(|_| broken("a reason that is not UTF-8"));
    let gap = if is_gap { Some(reason()?.to_owned()) } else { None };
    let is_correction = flags & FLAG_CORRECTION != 0;
    if is_correction && (is_gap || unpacked.is_some() || readings != 0 || columns != 0 || !hard.is_empty()) {
        return Err(broken("a correction that is more than that"));
    }
    let correction = if is_correction { Some(read_correction(soft)?) } else { None };
    let meta = Meta { stream, sequence, epoch, sealed_ns, synchronized: flags & FLAG_UNSYNCHRONIZED == 0 };
    let header = Header { version, meta, first_ns, last_ns, readings, columns, places, gap, correction };
    Ok((header, Parts { soft, hard, unpacked }))
}

/// Verifies a block and reads its header.
pub fn header(bytes: &[u8]) -> Result<Header> {
    open(bytes).map(|(header, _)| header)
}

/// Verifies and decodes a block. A column of an unknown codec or type is reported, and does not harm the others.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<DecodedColumn>)> {
    let (header, parts) = open(bytes)?;
    if header.gap.is_some() || header.correction.is_some() {
        return Ok((header, Vec::new()));
    }
    let unpacked = match parts.unpacked {
        Some(length) => Some(unpack(parts.soft, length)?),
        None => None,
    };
    let soft = unpacked.as_deref().unwrap_or(parts.soft);
    let columns = body::decode(soft, parts.hard, header.columns, header.first_ns)?;
    let readings: u64 = columns.iter().map(|column| column.readings as u64).sum();
    if readings != header.readings {
        return Err(broken(format!("{readings} readings, where {} are written", header.readings)));
    }
    Ok((header, columns))
}

fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>> {
    let found = zstd::bulk::decompress(packed, length).map_err(|why| broken(why.to_string()))?;
    if found.len() == length {
        Ok(found)
    } else {
        Err(broken(format!("a soft part of {} bytes, where {length} are written", found.len())))
    }
}
