//! Column codecs. Each turns a column into a stream of bytes that its codec id, and the column's length and type,
//! suffice to read back exactly, and to find its end. All little-endian; varints are LEB128, signed ones zigzag.

mod decimal;
mod hint;
pub mod integer;
mod nudged;
mod pco;
mod predict;
pub mod real;
mod rice;
pub mod run;
pub mod text;

use crate::error::{Error, Result};

pub use hint::Hint;

/// Codec ids of the block format (docs/block-format.md). An id never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// One value, that all are.
    Constant = 0,
    /// Values at their width.
    Raw = 1,
    /// Floats that are short decimals: `d / 10^e`, the `d` as integers, and exceptions.
    Decimal = 2,
    /// First value and a constant step.
    Step = 3,
    /// Differences, in units of their greatest common divisor, less their base.
    Delta = 4,
    /// Runs of equal values.
    Run = 5,
    /// One bit a value.
    Bitmap = 6,
    /// Distinct strings and the index of each value.
    Dictionary = 7,
    /// As `Delta`, the rest in Rice codes.
    Rice = 8,
    /// One bit for each value after the first, whether it differs from the one before; and those that do.
    Hold = 9,
    /// pcodec, wrapped form: long columns of long decimals. Carries its length.
    Pco = 16,
    /// As `Decimal`, and by how many steps of its type each value is off: what is left by a factor such as 0.1. Carries
    /// its length.
    Nudged = 17,
}

impl Codec {
    /// The codec of an id, if this version knows it.
    pub fn from_id(id: u8) -> Option<Self> {
        const KNOWN: [Codec; 12] = [
            Codec::Constant,
            Codec::Raw,
            Codec::Decimal,
            Codec::Step,
            Codec::Delta,
            Codec::Run,
            Codec::Bitmap,
            Codec::Dictionary,
            Codec::Rice,
            Codec::Hold,
            Codec::Pco,
            Codec::Nudged,
        ];
        KNOWN.into_iter().find(|known| *known as u8 == id)
    }

    /// The name that tools print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Raw => "raw",
            Self::Decimal => "decimal",
            Self::Step => "step",
            Self::Delta => "delta",
            Self::Run => "run",
            Self::Bitmap => "bitmap",
            Self::Dictionary => "dictionary",
            Self::Rice => "rice",
            Self::Hold => "hold",
            Self::Pco => "pco",
            Self::Nudged => "nudged",
        }
    }
}

/// Where codecs write. Bytes that may still hold a pattern go to the soft part, which is compressed as a whole; bits
/// that are dense already go to the hard part, where they do not spoil the statistics of the others.
#[derive(Debug, Default)]
pub struct Sink {
    /// The few bytes that say how a column is coded: alike in most columns, so they are kept together.
    pub heads: Vec<u8>,
    /// Parameters, varints, texts, runs.
    pub soft: Vec<u8>,
    /// Rice codes, pcodec pages.
    pub hard: Vec<u8>,
    /// Whether values are to be written as they are, at their width.
    pub plain: bool,
    /// Whether the soft part will not be compressed after all, because it becomes a part of a hard one.
    pub framed: bool,
    /// What is known of the column being written, and then what was learnt.
    pub hint: Hint,
}

impl Sink {
    /// How long its parts are.
    pub fn mark(&self) -> [usize; 3] {
        [self.heads.len(), self.soft.len(), self.hard.len()]
    }

    /// Takes back what was written since a mark.
    pub fn rewind(&mut self, [heads, soft, hard]: [usize; 3]) {
        self.heads.truncate(heads);
        self.soft.truncate(soft);
        self.hard.truncate(hard);
    }

    /// Appends what another sink took.
    pub fn append(&mut self, mut other: Self) {
        self.heads.append(&mut other.heads);
        self.soft.append(&mut other.soft);
        self.hard.append(&mut other.hard);
    }

    /// Bytes written since a mark.
    pub fn since(&self, mark: [usize; 3]) -> usize {
        self.mark().iter().sum::<usize>() - mark.iter().sum::<usize>()
    }
}

/// What a `Sink` became, being read.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// How the columns are coded.
    pub heads: Reader<'a>,
    /// The rest of the soft part.
    pub soft: Reader<'a>,
    /// The hard part.
    pub hard: Reader<'a>,
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed varint.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Small magnitudes become small numbers, whatever their sign.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Reads what the `put_` functions wrote; every length is checked against what is there.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(|| broken("cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| broken("cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A varint of up to 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        // Most have one byte.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(broken("varint past 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken("varint past 64 bits"))
    }

    /// A signed varint.
    pub fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A varint that counts something of which there can be at most `most`.
    pub fn count(&mut self, most: usize, what: &str) -> Result<usize> {
        let value = self.varint()?;
        usize::try_from(value)
            .ok()
            .filter(|count| *count <= most)
            .ok_or_else(|| broken(format!("{value} {what}; at most {most}")))
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left over.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(broken(format!("{} bytes too many", self.rest.len()))) }
    }
}

/// An error of a block that can't be read.
pub fn broken(why: impl Into<String>) -> Error {
    Error::Block(why.into())
}
