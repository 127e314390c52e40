//! Strings, and byte strings, end to end in one piece of memory.

use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Range;

use crate::error::{Error, Result};

/// What many pieces are joined to: a string, or bytes.
pub trait Whole: AsRef<[u8]> + Clone + Debug + Default + PartialEq {
    /// One of them.
    type Piece: AsRef<[u8]> + Eq + Hash + ?Sized + 'static;
    /// The piece of these bytes, if they are one.
    fn parse(bytes: &[u8]) -> Result<&Self::Piece>;
    /// A part of the whole.
    fn part(&self, range: Range<usize>) -> Option<&Self::Piece>;
    /// Appends a piece.
    fn append(&mut self, piece: &Self::Piece);
    /// Forgets everything, and keeps the memory.
    fn forget(&mut self);
}

impl Whole for String {
    type Piece = str;
    fn parse(bytes: &[u8]) -> Result<&str> {
        std::str::from_utf8(bytes).map_err(|_| Error::Block("a string that is not UTF-8".to_owned()))
    }
    fn part(&self, range: Range<usize>) -> Option<&str> {
        self.get(range)
    }
    fn append(&mut self, piece: &str) {
        self.push_str(piece);
    }
    fn forget(&mut self) {
        self.clear();
    }
}

impl Whole for Vec<u8> {
    type Piece = [u8];
    fn parse(bytes: &[u8]) -> Result<&[u8]> {
        Ok(bytes)
    }
    fn part(&self, range: Range<usize>) -> Option<&[u8]> {
        self.get(range)
    }
    fn append(&mut self, piece: &[u8]) {
        self.extend_from_slice(piece);
    }
    fn forget(&mut self) {
        self.clear();
    }
}

/// Pieces end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined<W> {
    whole: W,
    ends: Vec<usize>,
}

/// Strings.
pub type Texts = Joined<String>;
/// Byte strings.
pub type Blobs = Joined<Vec<u8>>;

impl<W: Whole> Joined<W> {
    /// Appends one.
    pub fn push(&mut self, piece: &W::Piece) {
        self.whole.append(piece);
        self.ends.push(self.total());
    }

    /// Forgets them all, and keeps the memory.
    pub fn clear(&mut self) {
        self.whole.forget();
        self.ends.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of them all.
    pub fn total(&self) -> usize {
        self.whole.as_ref().len()
    }

    /// Where the one at a place begins.
    fn start(&self, at: usize) -> Option<usize> {
        at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())
    }

    /// Bytes of those at some places.
    pub fn span(&self, range: Range<usize>) -> usize {
        self.start(range.end).zip(self.start(range.start)).map_or(0, |(to, from)| to.saturating_sub(from))
    }

    /// The one at a place.
    pub fn get(&self, at: usize) -> Option<&W::Piece> {
        self.whole.part(self.start(at)?..*self.ends.get(at)?)
    }

    /// They in order.
    pub fn iter(&self) -> impl Iterator<Item = &W::Piece> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.whole.part(start..*end))
    }
}
