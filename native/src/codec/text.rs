//! Strings: recipe names, batch numbers, state texts. Few distinct ones as a rule. And byte strings, in the same codecs.

use std::collections::HashMap;

use super::{Codec, Reader, Sink, Source, broken, integer, put_varint};
use crate::error::Result;
use crate::joined::{Joined, Whole};

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
