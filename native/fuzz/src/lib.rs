//! What the fuzz targets share.

use _native::arrow;
use _native::block;
use _native::tag::ValueType;

/// Every type of the format.
pub const KINDS: [ValueType; 12] = [
    ValueType::Bool,
    ValueType::Int8,
    ValueType::Int16,
    ValueType::Int32,
    ValueType::Int64,
    ValueType::UInt8,
    ValueType::UInt16,
    ValueType::UInt32,
    ValueType::UInt64,
    ValueType::Float32,
    ValueType::Float64,
    ValueType::Text,
];

/// Gives bytes the magic and the checksum of a block, so that what lies between is read.
pub fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() >= 10 {
        bytes[..4].copy_from_slice(&block::MAGIC);
        bytes[4] = block::MAJOR;
        let end = bytes.len() - 4;
        let checksum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// Decodes a block and reads all of it; what can be read must have as many readings as it says.
pub fn survive(bytes: &[u8]) {
    let header = block::header(bytes);
    let Ok((again, columns)) = block::decode(bytes) else { return };
    assert_eq!(header.as_ref(), Ok(&again));
    let readable: Vec<_> =
        columns.iter().filter_map(|each| Some((each.readings, each.column.as_ref().ok()?))).collect();
    let rows: usize = readable.iter().map(|(readings, _)| readings).sum();
    assert_eq!(arrow::batch(&columns).map(|batch| batch.num_rows()), Ok(rows));
    for (readings, column) in readable {
        assert_eq!((column.len(), column.iter().count()), (readings, readings));
    }
    assert!(again.gap.is_some() || rows as u64 <= again.readings);
}
