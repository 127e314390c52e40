//! A block taken apart and put together again with a right checksum: how tests make what no encoder writes.

use _native::codec::{Reader, put_varint};

pub(crate) const FLAG_ZSTD: u16 = 1;
pub(crate) const FLAG_GAP: u16 = 2;
const FIXED: usize = 48;

/// The header's varints, the body before compression, and what stands before both.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) fixed: Vec<u8>,
    pub(crate) span: u64,
    pub(crate) sealed: u64,
    pub(crate) readings: u64,
    pub(crate) columns: u64,
    pub(crate) places: u64,
    pub(crate) body: Vec<u8>,
}

impl Parts {
    /// A block of `columns` columns and this body, not compressed.
    pub(crate) fn new(columns: u64, readings: u64, body: Vec<u8>) -> Self {
        let mut fixed = b"HDRC\x01\0".to_vec();
        fixed.resize(FIXED, 0);
        Self { fixed, span: 0, sealed: 0, readings, columns, places: 1, body }
    }

    /// Takes a right block apart.
    pub(crate) fn of(block: &[u8]) -> Self {
        let (fixed, rest) = block.split_at(FIXED);
        let mut reader = Reader::new(rest);
        let [span, sealed, readings, columns, places, stored, raw] = [(); 7].map(|()| reader.varint().unwrap());
        let stored = reader.take(stored as usize).unwrap();
        let mut parts = Self { fixed: fixed.to_vec(), span, sealed, readings, columns, places, body: stored.to_vec() };
        if parts.flags() & FLAG_ZSTD != 0 {
            parts.body = zstd::bulk::decompress(stored, raw as usize).unwrap();
            parts.set_flags(parts.flags() & !FLAG_ZSTD);
        }
        parts
    }

    pub(crate) fn flags(&self) -> u16 {
        u16::from_le_bytes([self.fixed[6], self.fixed[7]])
    }

    pub(crate) fn set_flags(&mut self, flags: u16) {
        self.fixed[6..8].copy_from_slice(&flags.to_le_bytes());
    }

    /// The block, its body stored as it is.
    pub(crate) fn join(&self) -> Vec<u8> {
        self.join_stored(&self.body, self.body.len() as u64)
    }

    /// The block with its body in a zstd frame.
    pub(crate) fn join_packed(&self) -> Vec<u8> {
        let mut packed = self.clone();
        packed.set_flags(self.flags() | FLAG_ZSTD);
        packed.join_stored(&zstd::bulk::compress(&self.body, 3).unwrap(), self.body.len() as u64)
    }

    /// The block with any stored body, and any length that it claims to have before compression.
    pub(crate) fn join_stored(&self, stored: &[u8], raw: u64) -> Vec<u8> {
        let mut out = self.fixed.clone();
        let stored_length = stored.len() as u64;
        for number in [self.span, self.sealed, self.readings, self.columns, self.places, stored_length, raw] {
            put_varint(&mut out, number);
        }
        out.extend_from_slice(stored);
        out.extend_from_slice(&[0; 4]);
        reseal(&mut out);
        out
    }
}

/// Writes the right checksum over whatever stands before it.
pub(crate) fn reseal(block: &mut [u8]) {
    let (content, checksum) = block.split_last_chunk_mut::<4>().unwrap();
    *checksum = crc32c::crc32c(content).to_le_bytes();
}

/// A body: its time columns (readings, codec, stream) and its entries, each with its streams.
pub(crate) fn body(times: &[(u64, u8, &[u8])], entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = varints(&[times.len() as u64]);
    for (readings, codec, stream) in times {
        put_varint(&mut out, *readings);
        out.push(*codec);
        put_varint(&mut out, stream.len() as u64);
    }
    for (entry, _) in entries {
        put_varint(&mut out, entry.len() as u64);
        out.extend_from_slice(entry);
    }
    for (_, _, stream) in times {
        out.extend_from_slice(stream);
    }
    for (_, streams) in entries {
        out.extend_from_slice(streams);
    }
    out
}

/// Numbers as varints end to end. An entry of small numbers is one: tag step, type, flags, time, codec, lengths.
pub(crate) fn varints(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        put_varint(&mut out, *number);
    }
    out
}
