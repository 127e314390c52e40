//! What is in a block, as Python objects.

use arrow_array::RecordBatchIterator;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule};

use super::value::{Row, to_python};
use crate::block;
use crate::tag::ValueType;

/// A block's header.
#[pyclass(frozen, module = "agent._native")]
#[derive(Clone)]
pub(super) struct Header {
    inner: block::Header,
}

#[pymethods]
impl Header {
    #[getter]
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    #[getter]
    fn version(&self) -> (u8, u8) {
        self.inner.version
    }

    #[getter]
    fn stream<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.meta.stream)
    }

    #[getter]
    fn sequence(&self) -> u64 {
        self.inner.meta.sequence
    }

    #[getter]
    fn last_sequence(&self) -> u64 {
        self.inner.meta.sequence + (self.inner.places - 1)
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.inner.meta.epoch
    }

    #[getter]
    fn first_ns(&self) -> i64 {
        self.inner.first_ns
    }

    #[getter]
    fn last_ns(&self) -> i64 {
        self.inner.last_ns
    }

    #[getter]
    fn sealed_ns(&self) -> i64 {
        self.inner.meta.sealed_ns
    }

    #[getter]
    fn synchronized(&self) -> bool {
        self.inner.meta.synchronized
    }

    #[getter]
    fn readings(&self) -> u64 {
        self.inner.readings
    }

    #[getter]
    fn columns(&self) -> usize {
        self.inner.columns
    }

    #[getter]
    fn reason(&self) -> &str {
        self.inner.gap.as_deref().unwrap_or_default()
    }

    #[getter]
    fn corrects<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, u64, u64, i64)> {
        self.inner.correction.map(|it| (PyBytes::new(py, &it.stream), it.first, it.last, it.offset_ns))
    }
}

/// One tag of a block.
#[pyclass(frozen, get_all, module = "agent._native")]
pub(super) struct Column {
    tag: u32,
    r#type: String,
    readings: usize,
    time_codec: String,
    value_codec: String,
    problem: String,
}

/// A decoded block.
#[pyclass(frozen, module = "agent._native")]
pub(super) struct Readings {
    header: block::Header,
    columns: Vec<block::DecodedColumn>,
}

fn codec_name(id: u8) -> String {
    crate::codec::Codec::from_id(id).map_or_else(|| id.to_string(), |codec| codec.name().to_owned())
}

#[pymethods]
impl Readings {
    #[getter]
    fn header(&self) -> Header {
        Header { inner: self.header.clone() }
    }

    #[getter]
    fn columns(&self) -> Vec<Column> {
        let columns = self.columns.iter().map(|column| Column {
            tag: column.tag,
            r#type: ValueType::from_id(column.type_id)
                .map_or_else(|| column.type_id.to_string(), |kind| kind.name().to_owned()),
            readings: column.readings,
            time_codec: codec_name(column.time_codec),
            value_codec: codec_name(column.value_codec),
            problem: column.column.as_ref().err().cloned().unwrap_or_default(),
        });
        columns.collect()
    }

    fn __len__(&self) -> usize {
        self.columns.iter().filter(|column| column.column.is_ok()).map(|column| column.readings).sum()
    }

    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Vec<Row<'py>>> {
        let readable = self.columns.iter().filter_map(|each| Some((each.tag, each.column.as_ref().ok()?)));
        readable
            .flat_map(|(tag, column)| {
                column.iter().map(move |(time_ns, value, quality)| (tag, time_ns, value, quality))
            })
            .map(|(tag, time_ns, value, quality)| Ok((tag, time_ns, to_python(py, value)?, quality)))
            .collect()
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The PyCapsule interface allows a producer to leave a wish for another schema unmet.
        drop(requested_schema);
        let batch = py.detach(|| crate::arrow::batch(&self.columns))?;
        let reader = RecordBatchIterator::new(std::iter::once(Ok(batch)), crate::arrow::schema());
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), c"arrow_array_stream")
    }
}

#[pyfunction]
pub(super) fn header(py: Python<'_>, data: &[u8]) -> PyResult<Header> {
    let inner = py.detach(|| block::header(data))?;
    Ok(Header { inner })
}

#[pyfunction]
pub(super) fn decode(py: Python<'_>, data: &[u8]) -> PyResult<Readings> {
    let (header, columns) = py.detach(|| block::decode(data))?;
    Ok(Readings { header, columns })
}

#[pyfunction]
pub(super) fn to_json<'py>(py: Python<'py>, block: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let json = py.detach(|| crate::json::to_json(block))?;
    Ok(PyBytes::new(py, json.as_bytes()))
}
