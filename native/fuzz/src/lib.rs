//! What the fuzz targets share.

use _native::arrow;
use _native::block;
use _native::tag::ValueType;

/// Every type of the format.
pub const KINDS: [ValueType; 26] = ValueType::ALL;
/// How many of them, from the first, registers can hold.
pub const OF_REGISTERS: usize = 12;

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
