//! Any bytes as an OPC UA response, or as the values in one: kept whole, or refused and nothing kept.
#![no_main]

use libfuzzer_sys::fuzz_target;

use _native::block::{self, Meta};
use _native::buffer::Buffer;
use _native::decode::opcua::Publish;
use _native::error::Error;
use _native::tag::{TagSpec, ValueType};

const META: Meta = Meta { stream: [7; 16], sequence: 1, epoch: 2, sealed_ns: 3, synchronized: true };
const RECEIVED_NS: i64 = 1_767_400_000_123_456_789;

/// A type id and a response header.
fn opening(type_id: u16) -> Vec<u8> {
    let mut body = vec![1, 0];
    body.extend(type_id.to_le_bytes());
    body.extend([0; 8 + 4 + 4]);
    body.extend([0; 1 + 4 + 3]);
    body
}

fn length(bytes: usize) -> [u8; 4] {
    (bytes as i32).to_le_bytes()
}

/// A PublishResponse with one DataChangeNotification of these bytes, which say themselves how many values they are.
fn publish(values: &[u8]) -> Vec<u8> {
    let mut body = opening(829);
    body.extend([0; 4 + 4 + 1 + 4 + 8]);
    body.extend(length(1));
    body.extend([1, 0, 43, 3, 1]);
    body.extend(length(values.len() + 4));
    body.extend(values);
    body.extend([0; 4]);
    body.extend([0; 4 + 4]);
    body
}

/// A ReadResponse of one value.
fn read(value: &[u8]) -> Vec<u8> {
    [opening(634), length(1).to_vec(), value.to_vec(), vec![0; 4]].concat()
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let body = match mode % 3 {
        0 => rest.to_vec(),
        1 => publish(rest),
        _ => read(rest),
    };
    let tags: Vec<TagSpec> =
        ValueType::ALL.map(|raw| TagSpec { raw, scale: None, filter: String::new(), range: None }).to_vec();
    let count = tags.len() as u32;
    let mut buffer = Buffer::new(tags, 1 << 20).unwrap();
    let subscription = buffer.opcua_subscription(&(0..count).map(|tag| (tag, tag)).collect::<Vec<_>>()).unwrap();
    let header = Publish::read(&body);
    if let Ok(header) = &header {
        let _ = (header.status(), header.available().count(), header.results().count());
    }
    let found = match mode % 3 {
        2 => buffer.push_read(&[u32::from(*mode) / 3 % count], &body, RECEIVED_NS),
        _ => buffer.push_publish(subscription, &body, RECEIVED_NS),
    };
    let found = match found {
        Ok(found) => found,
        Err(wrong) => {
            assert!(matches!(wrong, Error::Response { .. } | Error::Service(_)), "{wrong}");
            assert_eq!(buffer.stats(), Default::default());
            assert!(buffer.take().is_none(), "kept something of a response that was refused");
            return;
        }
    };
    assert!(mode % 3 == 2 || header.is_ok());
    assert_eq!(found.readings, found.grew + found.refused);
    assert!(found.readings + found.undecoded.len() + found.unknown_handles <= body.len() / 5 + 1);
    assert_eq!(buffer.stats().pending_readings, found.grew as u64);
    if let Some(taken) = buffer.take() {
        let (header, _) = block::decode(&taken.encode(&META)).unwrap();
        assert_eq!(header.readings, found.grew as u64);
    }
});
