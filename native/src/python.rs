//! The Python face of the core (`agent/_native.pyi` is its manual): the module and its errors. Only this file and those in
//! `python/` import `pyo3`.

use pyo3::exceptions::{PyException, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

mod block;
mod buffer;
mod identifier;
mod opcua;
mod readings;
mod value;

use crate::error::Error;

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

#[pyfunction]
fn crc32c(data: &[u8]) -> u32 {
    ::crc32c::crc32c(data)
}

/// The module `agent._native`.
#[pymodule(gil_used = false)]
mod _native {
    use super::{Bound, PyException, PyModule, PyModuleMethods, PyResult, PyValueError, exception};

    #[pymodule_export]
    use super::block::{Block, correction, gap};
    #[pymodule_export]
    use super::buffer::Buffer;
    #[pymodule_export]
    use super::crc32c;
    #[pymodule_export]
    use super::identifier::Identifier;
    #[pymodule_export]
    use super::opcua::{History, PublishHeader, Published, publish_header};
    #[pymodule_export]
    use super::readings::{Column, Header, Readings, decode, header, to_json};

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
