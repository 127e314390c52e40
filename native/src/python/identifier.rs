//! The Python face of identifiers.

use std::hash::{Hash, Hasher};

use pyo3::prelude::*;

use crate::identifier;

/// One identifier, frozen and hashable: `agent/_native.pyi` is its manual.
#[pyclass(frozen, eq, hash, module = "agent._native")]
#[derive(PartialEq, Eq)]
pub(super) struct Identifier {
    found: identifier::Identifier,
}

impl Hash for Identifier {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.found.hash(state);
    }
}

#[pymethods]
impl Identifier {
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        Ok(Self { found: identifier::Identifier::parse(text)? })
    }

    #[getter]
    fn scheme(&self) -> &'static str {
        self.found.scheme().name()
    }

    #[getter]
    fn text(&self) -> &str {
        self.found.text()
    }

    #[getter]
    fn key(&self) -> &str {
        self.found.key()
    }

    #[getter]
    fn concept(&self) -> &str {
        self.found.concept()
    }

    #[getter]
    fn path(&self) -> String {
        self.found.path()
    }

    fn __str__(&self) -> &str {
        self.found.text()
    }

    fn __repr__(&self) -> String {
        format!("Identifier({:?})", self.found.text())
    }
}
