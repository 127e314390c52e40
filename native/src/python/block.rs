//! A sealed block, and the two kinds of block that need no buffer, as Python objects.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::block::{self, Meta};

/// A sealed block.
#[pyclass(frozen, module = "agent._native")]
pub(super) struct Block {
    data: Py<PyBytes>,
    #[pyo3(get)]
    sequence: u64,
    #[pyo3(get)]
    readings: u64,
    #[pyo3(get)]
    first_ns: i64,
    #[pyo3(get)]
    last_ns: i64,
}

impl Block {
    /// Of these bytes, `bounds` being the earliest and the latest time in ns UTC.
    pub(super) fn new(py: Python<'_>, data: &[u8], sequence: u64, readings: u64, bounds: (i64, i64)) -> Self {
        let (first_ns, last_ns) = bounds;
        Self { data: PyBytes::new(py, data).unbind(), sequence, readings, first_ns, last_ns }
    }
}

#[pymethods]
impl Block {
    #[getter]
    fn data(&self, py: Python<'_>) -> Py<PyBytes> {
        self.data.clone_ref(py)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.data.bind(py).len()
    }
}

#[pyfunction]
#[pyo3(signature = (*, stream, first, last, epoch, from_ns, to_ns, readings, reason, sealed_ns, synchronized = true))]
#[allow(clippy::too_many_arguments)] // keyword arguments, each a fact of the gap
pub(super) fn gap(
    py: Python<'_>,
    stream: [u8; 16],
    first: u64,
    last: u64,
    epoch: u64,
    from_ns: i64,
    to_ns: i64,
    readings: u64,
    reason: &str,
    sealed_ns: i64,
    synchronized: bool,
) -> PyResult<Block> {
    let places = last
        .checked_sub(first)
        .and_then(|span| span.checked_add(1))
        .ok_or_else(|| PyValueError::new_err("last is before first"))?;
    let meta = Meta { stream, sequence: first, epoch, sealed_ns, synchronized };
    let data = block::gap(&meta, places, (from_ns, to_ns), readings, reason);
    Ok(Block::new(py, &data, first, readings, (from_ns, to_ns.max(from_ns))))
}

#[pyfunction]
#[pyo3(signature = (*, stream, sequence, epoch, corrected, first, last, offset_ns, sealed_ns))]
#[allow(clippy::too_many_arguments)] // keyword arguments, each a fact of the correction
pub(super) fn correction(
    py: Python<'_>,
    stream: [u8; 16],
    sequence: u64,
    epoch: u64,
    corrected: [u8; 16],
    first: u64,
    last: u64,
    offset_ns: i64,
    sealed_ns: i64,
) -> PyResult<Block> {
    if last < first {
        return Err(PyValueError::new_err("last is before first"));
    }
    let meta = Meta { stream, sequence, epoch, sealed_ns, synchronized: true };
    let data = block::correction(&meta, block::Correction { stream: corrected, first, last, offset_ns });
    Ok(Block::new(py, &data, sequence, 0, (sealed_ns, sealed_ns)))
}
