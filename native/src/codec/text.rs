//! Strings: recipe names, batch numbers, state texts. Few distinct ones as a rule.

use std::collections::HashMap;

use super::{Codec, Encoded, Reader, broken, integer, put_varint, shortest};
use crate::error::Result;

/// Strings end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Appends one string.
    pub fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn read<'a>(reader: &mut Reader<'a>) -> Result<&'a str> {
    let length = reader.count(reader.rest().len(), "bytes of a string")?;
    std::str::from_utf8(reader.take(length)?).map_err(|_| broken("a string that is not UTF-8"))
}

/// The shortest encoding of `texts`.
pub fn encode(texts: &Texts) -> Encoded {
    let mut places: HashMap<&str, i64> = HashMap::new();
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
    if let [only] = distinct.as_slice() {
        return (Codec::Constant, only.as_bytes().to_vec());
    }
    let mut dictionary = Vec::new();
    put_varint(&mut dictionary, distinct.len() as u64);
    for text in &distinct {
        put(&mut dictionary, text);
    }
    integer::put_nested(&mut dictionary, &indexes);
    let mut raw = Vec::with_capacity(texts.bytes.len() + texts.len());
    texts.iter().for_each(|text| put(&mut raw, text));
    shortest((Codec::Dictionary, dictionary), [Some((Codec::Raw, raw))])
}

/// Reads `count` strings back. `most` bounds the bytes of them all, dictionary entries counted as often as used.
pub fn decode(codec: Codec, bytes: &[u8], count: usize, most: usize) -> Result<Texts> {
    let mut reader = Reader::new(bytes);
    let mut texts = Texts::default();
    let mut push = |text: &str| {
        if texts.bytes.len() + text.len() > most {
            return Err(broken(format!("strings of more than {most} bytes")));
        }
        texts.push(text);
        Ok(())
    };
    match codec {
        Codec::Constant => {
            let text =
                std::str::from_utf8(reader.take(bytes.len())?).map_err(|_| broken("a string that is not UTF-8"))?;
            (0..count).try_for_each(|_| push(text))?;
        }
        Codec::Raw => (0..count).try_for_each(|_| push(read(&mut reader)?))?,
        Codec::Dictionary => {
            let distinct = reader.count(count, "distinct strings")?;
            let known: Vec<&str> = (0..distinct).map(|_| read(&mut reader)).collect::<Result<_>>()?;
            for index in integer::read_nested(&mut reader, count)? {
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
    reader.end()?;
    Ok(texts)
}
