//! Strings: recipe names, batch numbers, state texts. Few distinct ones as a rule. And byte strings, in the same codecs.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Range;

use super::{Codec, Reader, Sink, Source, broken, integer, put_varint};
use crate::error::Result;

/// Strings, or byte strings, end to end in one.
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
        std::str::from_utf8(bytes).map_err(|_| broken("a string that is not UTF-8"))
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

fn put(out: &mut Vec<u8>, piece: &(impl AsRef<[u8]> + ?Sized)) {
    put_varint(out, piece.as_ref().len() as u64);
    out.extend_from_slice(piece.as_ref());
}

fn read<'a, W: Whole>(reader: &mut Reader<'a>) -> Result<&'a W::Piece> {
    let length = reader.count(reader.rest().len(), "bytes of a string")?;
    W::parse(reader.take(length)?)
}

/// Appends the shortest encoding of `texts`, and says which it is.
pub fn encode<W: Whole>(texts: &Joined<W>, out: &mut Sink) -> Codec {
    let mut places: HashMap<&W::Piece, i64> = HashMap::new();
    let mut distinct = Vec::new();
    let indexes: Vec<i64> = texts
        .iter()
        .map(|text| {
            *places.entry(text).or_insert_with(|| {
                distinct.push(text);
                distinct.len() as i64 - 1
            })
        })
        .collect();
    match distinct.as_slice() {
        [] => return Codec::Constant,
        [only] => {
            put(&mut out.soft, *only);
            return Codec::Constant;
        }
        _ => {}
    }
    let start = out.mark();
    put_varint(&mut out.soft, distinct.len() as u64);
    for text in &distinct {
        put(&mut out.soft, *text);
    }
    integer::put_nested(out, &indexes);
    if out.since(start) <= texts.total() + texts.len() {
        return Codec::Dictionary;
    }
    out.rewind(start);
    texts.iter().for_each(|text| put(&mut out.soft, text));
    Codec::Raw
}

/// Reads `count` strings back. `most` bounds the bytes of them all, dictionary entries counted as often as used.
pub fn decode<W: Whole>(codec: Codec, source: &mut Source<'_>, count: usize, most: usize) -> Result<Joined<W>> {
    let mut texts = Joined::default();
    let mut push = |text: &W::Piece| {
        if texts.total() + text.as_ref().len() > most {
            return Err(broken(format!("strings of more than {most} bytes")));
        }
        texts.push(text);
        Ok(())
    };
    match codec {
        _ if count == 0 => {}
        Codec::Constant => {
            let text = read::<W>(&mut source.soft)?;
            (0..count).try_for_each(|_| push(text))?;
        }
        Codec::Raw => (0..count).try_for_each(|_| push(read::<W>(&mut source.soft)?))?,
        Codec::Dictionary => {
            let distinct = source.soft.count(count, "distinct strings")?;
            let known: Vec<&W::Piece> = (0..distinct).map(|_| read::<W>(&mut source.soft)).collect::<Result<_>>()?;
            for index in integer::read_nested(source, count)? {
                push(
                    usize::try_from(index)
                        .ok()
                        .and_then(|index| known.get(index))
                        .ok_or_else(|| broken("no such string"))?,
                )?;
            }
        }
        other => return Err(broken(format!("codec {} on strings", other.name()))),
    }
    Ok(texts)
}
