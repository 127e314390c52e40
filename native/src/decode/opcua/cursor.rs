//! A place in a body.

use crate::error::Error;

/// What can't be, and where. Small, unlike the core's error, for it is in the result of every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    offset: usize,
    what: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Response { offset: refusal.offset, what: refusal.what }
    }
}

pub(super) type Result<T> = std::result::Result<T, Refusal>;

/// What is left of a body, or of a part of it. Copying one is a look ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// Where `rest` ends, in bytes from the body's start.
    end: usize,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        #[inline]
        pub(super) fn $name(&mut self) -> Result<$type> {
            self.array().map(<$type>::from_le_bytes)
        }
    };
}

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, end: body.len() }
    }

    /// Bytes from the body's start to here.
    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    /// Bytes left.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// That what begins here can't be.
    #[cold]
    pub(super) fn refuse<T>(&self, what: &'static str) -> Result<T> {
        Err(Refusal { offset: self.offset(), what })
    }

    /// That there is nothing left.
    pub(super) fn finish(&self, what: &'static str) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { self.refuse(what) }
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((found, rest)) => {
                self.rest = rest;
                Ok(*found)
            }
            None => self.refuse("it ends within a value"),
        }
    }

    number!(u8, u8);
    number!(u16, u16);
    number!(u32, u32);
    number!(i32, i32);
    number!(i64, i64);

    /// Exactly so many bytes.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(length) {
            Some((found, rest)) => {
                self.rest = rest;
                Ok(found)
            }
            None => self.refuse("a length past the end"),
        }
    }

    /// What was read since `before`, a copy of this one.
    pub(super) fn since(&self, before: &Self) -> &'a [u8] {
        before.rest.get(..before.rest.len() - self.rest.len()).unwrap_or_default()
    }

    /// A String, ByteString or XmlElement; `None` for a null one.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let before = *self;
        match usize::try_from(self.i32()?) {
            Ok(length) => match self.take(length) {
                Ok(found) => Ok(Some(found)),
                Err(_) => before.refuse("a length past the end"),
            },
            Err(_) => before.null(),
        }
    }

    /// The length of an array of elements that take at least `least` bytes each (not 0); `None` for a null one.
    #[inline]
    pub(super) fn count(&mut self, least: usize) -> Result<Option<usize>> {
        let before = *self;
        match usize::try_from(self.i32()?) {
            Ok(count) if count <= self.left() / least => Ok(Some(count)),
            Ok(_) => before.refuse("an array past the end"),
            Err(_) => before.null(),
        }
    }

    /// A negative length here: -1 is null, and no other means anything (OPC 10000-6, 5.2.2.4 and 5.2.5).
    fn null<T>(mut self) -> Result<Option<T>> {
        let before = self;
        if self.i32()? == -1 { Ok(None) } else { before.refuse("a negative length") }
    }

    /// A part of so many bytes, with offsets from the body's start.
    pub(super) fn part(&mut self, length: usize) -> Result<Self> {
        let rest = self.take(length)?;
        Ok(Self { rest, end: self.offset() })
    }

    /// An array of 4-byte elements, undecoded; empty for a null one.
    pub(super) fn words(&mut self) -> Result<&'a [u8]> {
        let count = self.count(4)?.unwrap_or(0);
        self.take(count * 4)
    }
}

/// The numbers of an array of 4-byte elements.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}
