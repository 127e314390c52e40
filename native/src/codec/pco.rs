//! pcodec (crate `pco`, format 4, wrapped form) for long columns of long decimals, where nothing of ours comes near it.
//! Below `LEAST` values its tables cost more than they save; below `DENSE` bits a value it has nothing left to find.

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, PagingSpec};

use super::{Reader, broken};
use crate::error::Result;

/// The fewest values for which it is tried.
pub(super) const LEAST: usize = 128;
/// The fewest bits a value that another codec must leave for it to be tried.
pub(super) const DENSE: usize = 14;

/// One chunk of one page. `None` where pcodec refuses.
pub(super) fn encode<T: Number>(values: &[T]) -> Option<Vec<u8>> {
    let config = ChunkConfig::default()
        .with_delta_spec(DeltaSpec::TryConsecutive(1))
        .with_paging_spec(PagingSpec::Exact(vec![values.len()]));
    let file = FileCompressor::default();
    let mut out = Vec::new();
    file.write_header(&mut out).ok()?;
    let mut chunk = file.chunk_compressor(values, &config).ok()?;
    chunk.write_meta(&mut out).ok()?;
    chunk.write_page(0, &mut out).ok()?;
    Some(out)
}

/// Reads `count` values back; they must be all that there is.
pub(super) fn decode<T: Number>(reader: &mut Reader<'_>, count: usize) -> Result<Vec<T>> {
    let why = |why: pco::errors::PcoError| broken(format!("pcodec: {why}"));
    let bytes = reader.take(reader.rest().len())?;
    let (file, rest) = FileDecompressor::new(bytes).map_err(why)?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(why)?;
    let mut values = vec![T::default(); count];
    let mut page = chunk.page_decompressor(rest, count).map_err(why)?;
    let progress = page.read(&mut values).map_err(why)?;
    if progress.n_processed != count || !progress.finished || !page.into_src().is_empty() {
        return Err(broken("pcodec: another number of values"));
    }
    Ok(values)
}
