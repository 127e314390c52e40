//! The open columns of one epoch, as a Python object.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PySequence};

use super::block::Block;
use super::opcua::{History, Published, StructureType};
use super::value::{Owned, PlanField, Row, Tag, to_python};
use crate::block::Meta;
use crate::buffer;
use crate::decode::opcua::Structure;
use crate::error::Error;

const DEFAULT_MAX_BYTES: usize = 64 << 20;

/// The open columns of one epoch.
#[pyclass(frozen, module = "agent._native")]
pub(super) struct Buffer {
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
    fn new(tags: &Bound<'_, PySequence>, max_bytes: usize) -> PyResult<Self> {
        let tags = tags.try_iter()?.map(|tag| tag?.extract::<Tag>()?.spec()).collect::<PyResult<_>>()?;
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
        // What was taken is let go of here, too: to free a hundred thousand columns takes milliseconds.
        let (data, readings, bounds) =
            py.detach(move || (taken.encode(&meta), taken.readings() as u64, taken.bounds()));
        Some(Block::new(py, &data, sequence, readings, bounds))
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
        // Copied first: an object that is made may set off the garbage collector, and that runs Python code.
        let lasts: Vec<_> = self.open().latest().map(|(tag, last)| (tag, last.clone())).collect();
        let readings = lasts.iter().filter_map(|(tag, last)| Some((*tag, last.reading()?)));
        readings.map(|(tag, (time_ns, value, quality))| Ok((tag, time_ns, to_python(py, value)?, quality))).collect()
    }
}
