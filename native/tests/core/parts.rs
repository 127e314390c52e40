//! A block taken apart and put together again with a right checksum: how tests make what no encoder writes.

use _native::block;
use _native::codec::{Reader, put_varint};

pub(crate) const FLAG_ZSTD: u8 = 1;
pub(crate) const FLAG_GAP: u8 = 2;
const FIXED: usize = 39;

/// The header's varints, the soft part before compression, the hard part, and what stands before them all.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) fixed: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) span: u64,
    pub(crate) sealed: u64,
    pub(crate) readings: u64,
    pub(crate) columns: u64,
    pub(crate) places: u64,
    pub(crate) soft: Vec<u8>,
    pub(crate) hard: Vec<u8>,
}

impl Parts {
    /// A block of `columns` columns and this soft part, not compressed, whose first time is 0.
    pub(crate) fn new(columns: u64, readings: u64, soft: Vec<u8>) -> Self {
        let mut fixed = b"HDRC\x01\0".to_vec();
        fixed.resize(FIXED, 0);
        Self { fixed, sequence: 0, span: 0, sealed: 0, readings, columns, places: 1, soft, hard: Vec::new() }
    }

    /// Takes a right block apart.
    pub(crate) fn of(block: &[u8]) -> Self {
        let (fixed, rest) = block.split_at(FIXED);
        let mut reader = Reader::new(rest);
        let [sequence, span, sealed, readings, columns, places, hard, stored] =
            [(); 8].map(|()| reader.varint().unwrap());
        let mut parts = Self { sequence, span, sealed, places, ..Self::new(columns, readings, Vec::new()) };
        parts.fixed = fixed.to_vec();
        parts.soft = if parts.flags() & FLAG_ZSTD == 0 {
            reader.take(stored as usize).unwrap().to_vec()
        } else {
            let unpacked = reader.varint().unwrap() as usize;
            zstd::bulk::decompress(reader.take(stored as usize).unwrap(), unpacked).unwrap()
        };
        parts.set_flags(parts.flags() & !FLAG_ZSTD);
        parts.hard = reader.take(hard as usize).unwrap().to_vec();
        parts
    }

    pub(crate) fn flags(&self) -> u8 {
        self.fixed[6]
    }

    pub(crate) fn set_flags(&mut self, flags: u8) {
        self.fixed[6] = flags;
    }

    /// The block, its soft part stored as it is.
    pub(crate) fn join(&self) -> Vec<u8> {
        self.join_stored(&self.soft, self.soft.len() as u64)
    }

    /// The block with its soft part in a zstd frame.
    pub(crate) fn join_packed(&self) -> Vec<u8> {
        let mut packed = self.clone();
        packed.set_flags(self.flags() | FLAG_ZSTD);
        packed.join_stored(&zstd::bulk::compress(&self.soft, 3).unwrap(), self.soft.len() as u64)
    }

    /// The block with any stored soft part, and any length that it claims to have before compression.
    pub(crate) fn join_stored(&self, stored: &[u8], unpacked: u64) -> Vec<u8> {
        let lengths = [self.hard.len() as u64, stored.len() as u64];
        self.join_with(stored, lengths, unpacked)
    }

    /// The block with any lengths at all: of its hard part, of its soft part as stored, and of that unpacked.
    pub(crate) fn join_with(&self, stored: &[u8], [hard, soft]: [u64; 2], unpacked: u64) -> Vec<u8> {
        let mut out = self.fixed.clone();
        let numbers = [self.sequence, self.span, self.sealed, self.readings, self.columns, self.places, hard, soft];
        out.extend_from_slice(&varints(&numbers));
        if self.flags() & FLAG_ZSTD != 0 {
            put_varint(&mut out, unpacked);
        }
        out.extend_from_slice(stored);
        out.extend_from_slice(&self.hard);
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

/// A body in its pieces: any directory over any streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    /// Readings and codec of each time column.
    pub(crate) times: Vec<[u64; 2]>,
    /// Tag step, type, flags, time column and codec of each column.
    pub(crate) columns: Vec<[u64; 5]>,
    /// The area that later minor versions add to.
    pub(crate) added: Vec<u8>,
    pub(crate) heads: Vec<u8>,
    /// Notes, then the streams' soft bytes.
    pub(crate) streams: Vec<u8>,
    pub(crate) hard: Vec<u8>,
}

impl Body {
    /// The soft part, each array of its directory written out.
    pub(crate) fn soft(&self) -> Vec<u8> {
        let mut out = varints(&[self.times.len() as u64]);
        let mut array = |values: Vec<u64>| {
            out.push(2);
            out.extend(varints(&values));
        };
        for field in 0..2 {
            array(self.times.iter().map(|each| each[field]).collect());
        }
        for field in 0..5 {
            array(self.columns.iter().map(|each| each[field]).collect());
        }
        put_varint(&mut out, self.added.len() as u64);
        out.extend_from_slice(&self.added);
        put_varint(&mut out, self.heads.len() as u64);
        out.extend_from_slice(&self.heads);
        out.extend_from_slice(&self.streams);
        out
    }

    /// The block of this body, of so many readings, whose first time is 0.
    pub(crate) fn parts(&self, readings: u64) -> Parts {
        Parts { hard: self.hard.clone(), ..Parts::new(self.columns.len() as u64, readings, self.soft()) }
    }

    /// Why the block is refused, compressed or not.
    pub(crate) fn refusal(&self, readings: u64) -> String {
        let parts = self.parts(readings);
        let [stored, packed] = [parts.join(), parts.join_packed()].map(|bytes| block::decode(&bytes).map(|_| ()));
        assert_eq!(stored.as_ref().err(), packed.as_ref().err());
        stored.unwrap_err().to_string()
    }
}

/// Numbers as varints end to end.
pub(crate) fn varints(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        put_varint(&mut out, *number);
    }
    out
}
