//! Any definition of a structure and any bytes as its value, and any bytes as the history of a node: kept whole, or refused
//! and nothing kept.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use _native::block::{self, Meta};
use _native::buffer::{Buffer, Span};
use _native::decode::opcua::{Field, Form, Kind, Structure, Type};
use _native::error::Error;
use _native::tag::{TagSpec, ValueType};

const META: Meta = Meta { stream: [7; 16], sequence: 1, epoch: 2, sealed_ns: 3, synchronized: true };
const RECEIVED_NS: i64 = 1_767_400_000_123_456_789;
const ENCODING: [u8; 2] = [0, 99];

#[derive(Debug, Arbitrary)]
struct Input {
    types: Vec<(u8, Vec<(u8, u8)>)>,
    paths: Vec<(u8, Vec<u8>)>,
    form: u8,
    body: Vec<u8>,
}

/// A type id and a response header.
fn opening(type_id: u16) -> Vec<u8> {
    [vec![1, 0], type_id.to_le_bytes().to_vec(), vec![0; 8 + 4 + 4], vec![0; 1 + 4 + 3]].concat()
}

fn length(bytes: usize) -> [u8; 4] {
    (bytes as i32).to_le_bytes()
}

/// A structure, as a value.
fn value(body: &[u8]) -> Vec<u8> {
    [&[1, 22][..], &ENCODING, &[1], &length(body.len()), body].concat()
}

/// A PublishResponse with one value of the first tag.
fn publish(value: &[u8]) -> Vec<u8> {
    let items = [&length(1)[..], &[0; 4], value, &[0; 4]].concat();
    let part = [&length(1)[..], &[1, 0, 43, 3, 1], &length(items.len()), &items].concat();
    [opening(829), vec![0; 4 + 4 + 1 + 4 + 8], part, vec![0; 4 + 4]].concat()
}

/// A ReadResponse of one value.
fn read(value: &[u8]) -> Vec<u8> {
    [opening(634), length(1).to_vec(), value.to_vec(), vec![0; 4]].concat()
}

/// A HistoryReadResponse of one node, whose HistoryData are these bytes.
fn history(body: &[u8]) -> Vec<u8> {
    let part = [&[1, 0, 146, 2, 1][..], &length(body.len()), body].concat();
    [opening(667), length(1).to_vec(), vec![0; 4], length(0).to_vec(), part, vec![0; 4]].concat()
}

fn field(kind: u8, how: u8) -> Field {
    let kind = if how & 4 == 0 { Kind::Builtin(kind) } else { Kind::Structure(kind.into()) };
    Field { kind, array: how & 1 == 1, optional: how & 2 == 2 }
}

fn structure(input: &Input, tags: u32) -> Result<Structure, Error> {
    let types = input.types.iter().map(|(form, fields)| Type {
        form: [Form::Plain, Form::Optional, Form::Union][usize::from(form % 3)],
        fields: fields.iter().map(|(kind, how)| field(*kind, *how)).collect(),
    });
    let paths =
        input.paths.iter().map(|(tag, path)| (u32::from(*tag) % tags, path.iter().map(|at| (*at).into()).collect()));
    Structure::new(types.collect(), ENCODING.to_vec(), paths.collect())
}

fuzz_target!(|input: Input| {
    let tags: Vec<TagSpec> =
        ValueType::ALL.map(|raw| TagSpec { raw, scale: None, filter: String::new(), range: None }).to_vec();
    let count = tags.len() as u32;
    let mut buffer = Buffer::new(tags, 1 << 20).unwrap();
    let subscription = buffer.opcua_subscription(&[(0, 0)]).unwrap();
    match structure(&input, count) {
        Ok(found) => buffer.opcua_structure(0, found).unwrap(),
        Err(wrong) => assert!(matches!(wrong, Error::Spec(_)), "{wrong}"),
    }
    let kept = match input.form % 4 {
        0 => buffer.push_publish(subscription, &publish(&value(&input.body)), RECEIVED_NS).map(|found| found.grew),
        1 => buffer.push_read(&[0], &read(&value(&input.body)), RECEIVED_NS).map(|found| found.grew),
        form => {
            let tag = u32::from(input.form / 4) % count;
            let spans = [Span { tag, from_ns: i64::MIN, to_ns: i64::MAX }];
            let body = if form == 2 { history(&input.body) } else { input.body };
            buffer.push_history(&spans, &body).map(|found| found.iter().map(|(_, each)| each.kept).sum())
        }
    };
    let kept = match kept {
        Ok(kept) => kept,
        Err(wrong) => {
            // A history asked for one node and answered for several is refused before anything is kept, as all else is.
            assert!(matches!(wrong, Error::Response { .. } | Error::Service(_)), "{wrong}");
            assert!(buffer.take().is_none(), "kept something of a response that was refused");
            return;
        }
    };
    assert_eq!(buffer.stats().pending_readings, kept as u64);
    if let Some(taken) = buffer.take() {
        let (header, _) = block::decode(&taken.encode(&META)).unwrap();
        assert_eq!(header.readings, kept as u64);
    }
});
