//! What the core says of OPC UA responses, as Python objects.

use pyo3::prelude::*;

use crate::buffer;
use crate::decode::opcua::{Publish, sent_ns};

/// What a response brought.
#[pyclass(frozen, get_all, module = "agent._native")]
pub(super) struct Published {
    sequence: u32,
    more: bool,
    readings: usize,
    grew: usize,
    refused: usize,
    overflows: Vec<u32>,
    status: Option<u32>,
    undecoded: Vec<(u32, i64, u32, Vec<u8>)>,
    others: Vec<Vec<u8>>,
    repeated: usize,
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
            status: found.status,
            undecoded: undecoded.map(|(tag, time_ns, status, bytes)| (tag, time_ns, status, bytes.to_vec())).collect(),
            others: found.others.into_iter().map(<[u8]>::to_vec).collect(),
            repeated: found.repeated,
            unknown_handles: found.unknown_handles,
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
