//! What the core says of OPC UA responses, as Python objects.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer;
use crate::decode::opcua::{Field, Form, Kind, NodeHistory, Publish, Type, sent_ns};

/// What a response brought.
#[pyclass(frozen, get_all, module = "agent._native")]
pub(super) struct Published {
    sequence: u32,
    more: bool,
    readings: usize,
    grew: usize,
    refused: usize,
    overflows: Vec<u32>,
    missed: Vec<(u32, i64, i64)>,
    begun: Vec<(u32, i64, i64)>,
    status: Option<u32>,
    undecoded: Vec<(u32, i64, u32, Vec<u8>)>,
    dropped: usize,
    others: Vec<Vec<u8>>,
    repeated: usize,
    newest_ns: Option<i64>,
    unknown_handles: usize,
}

impl From<buffer::Published<'_>> for Published {
    fn from(found: buffer::Published<'_>) -> Self {
        let undecoded = found.undecoded.into_iter();
        Self {
            sequence: found.sequence,
            more: found.more,
            readings: found.readings,
            grew: found.grew,
            refused: found.refused,
            overflows: found.overflows,
            missed: found.missed,
            begun: found.begun,
            status: found.status,
            undecoded: undecoded.map(|(tag, time_ns, status, bytes)| (tag, time_ns, status, bytes.to_vec())).collect(),
            dropped: found.dropped,
            others: found.others.into_iter().map(<[u8]>::to_vec).collect(),
            repeated: found.repeated,
            newest_ns: found.newest_ns,
            unknown_handles: found.unknown_handles,
        }
    }
}

/// A type of structure: `plain`, `optional` or `union`, and (built-in type or place of a structure's type below 0, whether
/// it is an array, whether it may be left out) of each field. The place is -1 for the first of the types.
#[derive(FromPyObject)]
pub(super) struct StructureType(String, Vec<(i32, bool, bool)>);

impl StructureType {
    /// The type as the core knows it.
    pub(super) fn of(self) -> PyResult<Type> {
        let form = match self.0.as_str() {
            "plain" => Form::Plain,
            "optional" => Form::Optional,
            "union" => Form::Union,
            other => return Err(PyValueError::new_err(format!("no form of a structure: {other:?}"))),
        };
        let kind = |number: i32| match u8::try_from(number) {
            Ok(kind) => Kind::Builtin(kind),
            Err(_) => Kind::Structure(number.checked_neg().map_or(usize::MAX, |place| place as usize - 1)),
        };
        let fields = self.1.into_iter().map(|(number, array, optional)| Field { kind: kind(number), array, optional });
        Ok(Type { form, fields: fields.collect() })
    }
}

/// What a history had of one span.
#[pyclass(frozen, get_all, module = "agent._native")]
pub(super) struct History {
    status: u32,
    point: Vec<u8>,
    kept: usize,
    refused: usize,
    reaches_back: bool,
    reaches_on: bool,
    first_ns: i64,
    last_ns: i64,
}

impl From<(NodeHistory<'_>, buffer::Found)> for History {
    fn from((node, found): (NodeHistory<'_>, buffer::Found)) -> Self {
        Self {
            status: node.status,
            point: node.point.to_vec(),
            kept: found.kept,
            refused: found.refused,
            reaches_back: found.from,
            reaches_on: found.to,
            first_ns: found.first_ns,
            last_ns: found.last_ns,
        }
    }
}

/// What a response says around its values.
#[pyclass(frozen, get_all, module = "agent._native")]
pub(super) struct PublishHeader {
    service_result: u32,
    subscription_id: u32,
    available: Vec<u32>,
    more: bool,
    sequence: u32,
    publish_time_ns: i64,
    sent_ns: i64,
    keep_alive: bool,
    results: Vec<u32>,
    status: Option<u32>,
}

#[pyfunction]
pub(super) fn publish_header(body: &[u8]) -> PyResult<PublishHeader> {
    let publish = Publish::read(body)?;
    Ok(PublishHeader {
        service_result: publish.result,
        subscription_id: publish.subscription,
        available: publish.available().collect(),
        more: publish.more,
        sequence: publish.sequence,
        publish_time_ns: publish.published_ns,
        sent_ns: sent_ns(body)?,
        keep_alive: publish.keep_alive(),
        results: publish.results().collect(),
        status: publish.status()?,
    })
}
