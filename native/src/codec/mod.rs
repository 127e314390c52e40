//! Column codecs. Each turns a column into a stream of bytes that its codec id, and the column's length and type,
//! suffice to read back exactly. All little-endian; varints are LEB128, signed ones zigzag.

pub mod integer;
pub mod real;
pub mod run;
pub mod text;

use crate::error::{Error, Result};

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
}

impl Codec {
    /// The codec of an id, if this version knows it.
    pub fn from_id(id: u8) -> Option<Self> {
        [Self::Constant, Self::Raw, Self::Decimal, Self::Step, Self::Delta, Self::Run, Self::Bitmap, Self::Dictionary]
            .into_iter()
            .find(|known| *known as u8 == id)
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
        }
    }
}

/// An encoded column.
pub type Encoded = (Codec, Vec<u8>);

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
    pub fn varint(&mut self) -> Result<u64> {
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

/// The shortest of the encodings tried.
pub(crate) fn shortest(first: Encoded, others: impl IntoIterator<Item = Option<Encoded>>) -> Encoded {
    others.into_iter().flatten().fold(first, |best, next| if next.1.len() < best.1.len() { next } else { best })
}
