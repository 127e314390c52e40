//! The Python face of the core (`agent/_native.pyi` is its manual). The only file that imports `pyo3`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow_array::RecordBatchIterator;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use pyo3::exceptions::{PyException, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyTuple, PyType};

mod identifier;
mod opcua;
mod value;

use crate::block::{self, Meta};
use crate::buffer;
use crate::decode::opcua::Structure;
use crate::error::Error;
use crate::tag::ValueType;
use identifier::Identifier;

use opcua::{History, PublishHeader, Published, StructureType, publish_header};
use value::{Owned, PlanField, Tag, to_python};

const DEFAULT_MAX_BYTES: usize = 64 << 20;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Block(_) => Python::attach(|py| {
                py.import("agent._native")
                    .and_then(|module| module.getattr("BlockError"))
                    .and_then(|kind| kind.call1((text,)))
                    .map_or_else(|broken| broken, PyErr::from_value)
            }),
            Error::Spec(_)
            | Error::Length { .. }
            | Error::Response { .. }
            | Error::Service(_)
            | Error::Identifier { .. } => PyValueError::new_err(text),
            Error::Unknown { .. } => PyIndexError::new_err(text),
        }
    }
}

/// A new exception type of this module. (`create_exception!` allows only one base.)
fn exception<'py>(py: Python<'py>, name: &str, bases: Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let body = PyDict::new(py);
    body.set_item("__module__", "agent._native")?;
    py.get_type::<PyType>().call1((name, PyTuple::new(py, bases)?, body))
}

type Row<'py> = (u32, i64, Bound<'py, PyAny>, u32);

/// A sealed block.
#[pyclass(frozen, module = "agent._native")]
struct Block {
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

/// The open columns of one epoch.
#[pyclass(frozen, module = "agent._native")]
struct Buffer {
    // Held for a push, or for the `mem::take` of a seal: microseconds, and never while Python code runs.
    open: Mutex<buffer::Buffer>,
    // What `cut` took and no `seal` has had yet.
    aside: Mutex<Option<buffer::Taken>>,
}

impl Buffer {
    fn open(&self) -> MutexGuard<'_, buffer::Buffer> {
        // A panic under the lock leaves columns that are whole up to the last push: better than none.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aside(&self) -> MutexGuard<'_, Option<buffer::Taken>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// What the next block is made of. Of a group only what was set aside counts, so that the blocks of all groups are
    /// of the same moment.
    fn taken(&self, group: Option<u8>) -> Option<buffer::Taken> {
        let mut aside = self.aside();
        let Some(group) = group else {
            let cut = aside.take().filter(|cut| !cut.is_empty());
            return cut.or_else(|| self.open().take());
        };
        if aside.is_none() {
            *aside = self.open().take();
        }
        aside.as_mut().and_then(|cut| self.open().part(cut, group))
    }
}

#[pymethods]
impl Buffer {
    #[new]
    #[pyo3(signature = (tags, max_bytes = DEFAULT_MAX_BYTES))]
    fn new(tags: Vec<Tag>, max_bytes: usize) -> PyResult<Self> {
        let tags = tags.into_iter().map(Tag::spec).collect::<PyResult<_>>()?;
        Ok(Self { open: Mutex::new(buffer::Buffer::new(tags, max_bytes)?), aside: Mutex::new(None) })
    }

    fn set_range(&self, tag: u32, low: f64, high: f64) -> PyResult<()> {
        Ok(self.open().set_range(tag, low, high)?)
    }

    #[pyo3(signature = (tags, *, theirs))]
    #[allow(clippy::needless_pass_by_value)]
    fn set_filtering(&self, tags: Vec<u32>, theirs: bool) -> PyResult<()> {
        Ok(self.open().set_filtering(&tags, theirs)?)
    }

    #[pyo3(signature = (fields, *, bits = false))]
    fn modbus_plan(&self, fields: Vec<PlanField>, bits: bool) -> PyResult<usize> {
        let fields = fields.into_iter().map(PlanField::field).collect::<Result<_, Error>>()?;
        Ok(self.open().modbus_plan(fields, bits)?)
    }

    fn push_registers(&self, plan: usize, payload: &[u8], time_ns: i64) -> PyResult<usize> {
        Ok(self.open().push_registers(plan, payload, time_ns)?)
    }

    #[allow(clippy::needless_pass_by_value)] // extracted from Python objects: there is nothing to borrow from
    fn opcua_subscription(&self, handles: Vec<(u32, u32)>) -> PyResult<usize> {
        Ok(self.open().opcua_subscription(&handles)?)
    }

    #[pyo3(signature = (subscription, known_ns, *, spans = false))]
    fn opcua_renewed(&self, subscription: usize, known_ns: i64, spans: bool) -> PyResult<()> {
        Ok(self.open().opcua_renewed(subscription, known_ns, spans)?)
    }

    fn opcua_resumed(&self, subscription: usize) -> PyResult<()> {
        Ok(self.open().opcua_resumed(subscription)?)
    }

    #[pyo3(signature = (tag, *, types, encoding, fields))]
    fn opcua_structure(
        &self,
        tag: u32,
        types: Vec<StructureType>,
        encoding: Vec<u8>,
        fields: Vec<(u32, Vec<usize>)>,
    ) -> PyResult<()> {
        let types = types.into_iter().map(StructureType::of).collect::<PyResult<_>>()?;
        let structure = Structure::new(types, encoding, fields)?;
        Ok(self.open().opcua_structure(tag, structure)?)
    }

    fn opcua_known(&self, after_ns: i64) -> Vec<(u32, i64)> {
        self.open().opcua_known(after_ns).collect()
    }

    #[allow(clippy::needless_pass_by_value)]
    fn opcua_know(&self, known: Vec<(u32, i64)>) {
        self.open().opcua_know(&known);
    }

    fn push_publish(&self, subscription: usize, body: &[u8], received_ns: i64) -> PyResult<Published> {
        Ok(self.open().push_publish(subscription, body, received_ns)?.into())
    }

    #[allow(clippy::needless_pass_by_value)]
    fn push_read(&self, tags: Vec<u32>, body: &[u8], received_ns: i64) -> PyResult<Published> {
        Ok(self.open().push_read(&tags, body, received_ns)?.into())
    }

    #[allow(clippy::needless_pass_by_value)]
    fn push_history(&self, spans: Vec<(u32, i64, i64)>, body: &[u8]) -> PyResult<Vec<History>> {
        let spans: Vec<_> =
            spans.into_iter().map(|(tag, from_ns, to_ns)| buffer::Span { tag, from_ns, to_ns }).collect();
        Ok(self.open().push_history(&spans, body)?.into_iter().map(History::from).collect())
    }

    #[allow(clippy::needless_pass_by_value)]
    fn push(&self, rows: Vec<Row<'_>>) -> PyResult<usize> {
        let kinds = {
            let open = self.open();
            rows.iter().map(|(tag, ..)| open.spec(*tag).map(|spec| spec.raw)).collect::<Result<Vec<_>, Error>>()?
        };
        // Values leave their Python objects before the lock is taken: that may run Python code.
        let values: Vec<Owned> =
            rows.iter().zip(&kinds).map(|((_, _, object, _), kind)| Owned::of(object, *kind)).collect();
        let mut open = self.open();
        let mut kept = 0;
        for ((tag, time_ns, _, quality), value) in rows.iter().zip(&values) {
            let mistyped = matches!(value, Owned::Mistyped);
            if mistyped {
                open.count_mistyped();
            }
            let quality = if mistyped { buffer::MISTYPED } else { *quality };
            kept += usize::from(open.push(*tag, *time_ns, value.value(), quality)?);
        }
        Ok(kept)
    }

    fn regroup(&self, groups: &[u8]) -> PyResult<()> {
        Ok(self.open().regroup(groups)?)
    }

    fn cut(&self) -> bool {
        let mut aside = self.aside();
        if aside.as_ref().is_none_or(buffer::Taken::is_empty) {
            *aside = self.open().take();
        }
        aside.is_some()
    }

    #[pyo3(signature = (*, stream = [0; 16], sequence = 0, epoch = 0, sealed_ns = 0, synchronized = true, group = None))]
    #[allow(clippy::too_many_arguments)] // Python gives them by name
    fn seal(
        &self,
        py: Python<'_>,
        stream: [u8; 16],
        sequence: u64,
        epoch: u64,
        sealed_ns: i64,
        synchronized: bool,
        group: Option<u8>,
    ) -> Option<Block> {
        let taken = self.taken(group)?;
        let meta = Meta { stream, sequence, epoch, sealed_ns, synchronized };
        let data = py.detach(|| taken.encode(&meta));
        let (first_ns, last_ns) = taken.bounds();
        Some(Block {
            data: PyBytes::new(py, &data).unbind(),
            sequence,
            readings: taken.readings() as u64,
            first_ns,
            last_ns,
        })
    }

    #[getter]
    fn pending_bytes(&self) -> u64 {
        self.open().stats().pending_bytes
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.open().stats();
        let found = PyDict::new(py);
        found.set_item("accepted", stats.accepted)?;
        found.set_item("filtered", stats.filtered)?;
        found.set_item("refused", stats.refused)?;
        found.set_item("mistyped", stats.mistyped)?;
        found.set_item("pending_readings", stats.pending_readings)?;
        found.set_item("pending_bytes", stats.pending_bytes)?;
        found.set_item("sealed_readings", stats.sealed_readings)?;
        found.set_item("sealed_blocks", stats.sealed_blocks)?;
        Ok(found)
    }

    fn latest<'py>(&self, py: Python<'py>) -> PyResult<Vec<Row<'py>>> {
        let open = self.open();
        open.latest().map(|(tag, time_ns, value, quality)| Ok((tag, time_ns, to_python(py, value)?, quality))).collect()
    }
}

/// A block's header.
#[pyclass(frozen, module = "agent._native")]
#[derive(Clone)]
struct Header {
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
struct Column {
    tag: u32,
    r#type: String,
    readings: usize,
    time_codec: String,
    value_codec: String,
    problem: String,
}

/// A decoded block.
#[pyclass(frozen, module = "agent._native")]
struct Readings {
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
fn header(py: Python<'_>, data: &[u8]) -> PyResult<Header> {
    let inner = py.detach(|| block::header(data))?;
    Ok(Header { inner })
}

#[pyfunction]
fn decode(py: Python<'_>, data: &[u8]) -> PyResult<Readings> {
    let (header, columns) = py.detach(|| block::decode(data))?;
    Ok(Readings { header, columns })
}

#[pyfunction]
fn to_json<'py>(py: Python<'py>, block: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let json = py.detach(|| crate::json::to_json(block))?;
    Ok(PyBytes::new(py, json.as_bytes()))
}

#[pyfunction]
#[pyo3(signature = (*, stream, first, last, epoch, from_ns, to_ns, readings, reason, sealed_ns, synchronized = true))]
#[allow(clippy::too_many_arguments)] // keyword arguments, each a fact of the gap
fn gap(
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
    Ok(Block {
        data: PyBytes::new(py, &data).unbind(),
        sequence: first,
        readings,
        first_ns: from_ns,
        last_ns: to_ns.max(from_ns),
    })
}

#[pyfunction]
#[pyo3(signature = (*, stream, sequence, epoch, corrected, first, last, offset_ns, sealed_ns))]
#[allow(clippy::too_many_arguments)] // keyword arguments, each a fact of the correction
fn correction(
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
    let data = PyBytes::new(py, &data).unbind();
    Ok(Block { data, sequence, readings: 0, first_ns: sealed_ns, last_ns: sealed_ns })
}

#[pyfunction]
fn crc32c(data: &[u8]) -> u32 {
    ::crc32c::crc32c(data)
}

/// The module `agent._native`.
#[pymodule(gil_used = false)]
mod _native {
    use super::{Bound, PyException, PyModule, PyModuleMethods, PyResult, PyValueError, exception};

    #[pymodule_export]
    use super::{Block, Buffer, Column, Header, History, Identifier, PublishHeader, Published, Readings};

    #[pymodule_export]
    use super::{correction, crc32c, decode, gap, header, publish_header, to_json};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let root = exception(py, "HeadraceError", vec![py.get_type::<PyException>().into_any()])?;
        let block = exception(py, "BlockError", vec![root.clone(), py.get_type::<PyValueError>().into_any()])?;
        module.add("HeadraceError", root)?;
        module.add("BlockError", block)
    }
}
