//! Strings: recipe names, batch numbers, state texts. Few distinct ones as a rule.

use std::collections::HashMap;

use super::{Codec, Reader, Sink, Source, broken, integer, put_varint};
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

/// Appends the shortest encoding of `texts`, and says which it is.
pub fn encode(texts: &Texts, out: &mut Sink) -> Codec {
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
    match distinct.as_slice() {
        [] => return Codec::Constant,
        [only] => {
            put(&mut out.soft, only);
            return Codec::Constant;
        }
        _ => {}
    }
    let start = out.mark();
    put_varint(&mut out.soft, distinct.len() as u64);
    for text in &distinct {
        put(&mut out.soft, text);
    }
    integer::put_nested(out, &indexes);
    if out.since(start) <= texts.bytes.len() + texts.len() {
        return Codec::Dictionary;
    }
    out.rewind(start);
    texts.iter().for_each(|text| put(&mut out.soft, text));
    Codec::Raw
}

/// Reads `count` strings back. `most` bounds the bytes of them all, dictionary entries counted as often as used.
pub fn decode(codec: Codec, source: &mut Source<'_>, count: usize, most: usize) -> Result<Texts> {
    let mut texts = Texts::default();
    let mut push = |text: &str| {
        if texts.bytes.len() + text.len() > most {
            return Err(broken(format!("strings of more than {most} bytes")));
        }
        texts.push(text);
        Ok(())
    };
    match codec {
        _ if count == 0 => {}
        Codec::Constant => {
            let text = read(&mut source.soft)?;
            (0..count).try_for_each(|_| push(text))?;
        }
        Codec::Raw => (0..count).try_for_each(|_| push(read(&mut source.soft)?))?,
        Codec::Dictionary => {
            let distinct = source.soft.count(count, "distinct strings")?;
            let known: Vec<&str> = (0..distinct).map(|_| read(&mut source.soft)).collect::<Result<_>>()?;
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
