//! Between Python's objects and the core's values.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::decode::form::Form;
use crate::decode::modbus::{Field, Order};
use crate::error::Error;
use crate::tag::{Family, Scale, TagSpec, Value, ValueType};
use crate::values::{Items, MAX_LENGTH, Values};

/// A reading: tag, time in ns UTC, value, quality.
pub(super) type Row<'py> = (u32, i64, Bound<'py, PyAny>, u32);

/// What is read of a tag.
#[derive(FromPyObject)]
pub(super) struct Tag {
    r#type: String,
    scale: Option<f64>,
    offset: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    filter: String,
}

impl Tag {
    /// The tag as the buffer knows it.
    pub(super) fn spec(self) -> PyResult<TagSpec> {
        let scale = match (self.scale, self.offset) {
            (None, None) => None,
            (factor, offset) => Some(Scale { factor: factor.unwrap_or(1.0), offset: offset.unwrap_or(0.0) }),
        };
        let raw = ValueType::parse(&self.r#type)?;
        if scale.is_some() && raw.is_opaque() {
            return Err(PyValueError::new_err(format!("a tag of type {} can't be scaled", raw.name())));
        }
        Ok(TagSpec { raw, scale, filter: self.filter, range: self.low.zip(self.high) })
    }
}

/// Where a tag lies in a Modbus response, as a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct PlanField {
    tag: u32,
    at: usize,
    r#type: String,
    order: String,
    bit: Option<u8>,
    length: usize,
    #[pyo3(default)]
    form: String,
    #[pyo3(default)]
    high: bool,
    #[pyo3(default)]
    invalid: Vec<u64>,
    #[pyo3(default)]
    nan: bool,
}

impl PlanField {
    /// The field as the core knows it.
    pub(super) fn field(self) -> Result<Field, Error> {
        let Self { tag, at, r#type, order, bit, length, form, high, invalid, nan } = self;
        let (kind, order) = (ValueType::parse(&r#type)?, Order::parse(&order)?);
        let form = Form::parse(&form, kind)
            .ok_or_else(|| Error::Spec(format!("tag {tag}: {form:?} is no form of {}", kind.name())))?;
        Ok(Field { tag, at, kind, form, order, bit, high, length, invalid, nan })
    }
}

/// A value taken out of its Python object.
pub(super) enum Owned {
    Absent,
    Mistyped,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Real32(f32),
    Real64(f64),
    Text(String),
    Bytes(Vec<u8>),
    Array(Values),
}

impl Owned {
    /// The object as a value of `kind`. Python's bool is no number here, and no integer is cut to fit. An array is a list
    /// or a tuple, each element of which is a value of the element's type, and none is None.
    pub(super) fn of(object: &Bound<'_, PyAny>, kind: ValueType) -> Self {
        if object.is_none() {
            return Self::Absent;
        }
        let found = match kind.element() {
            Some(element) => Self::array(object, element).map(Self::Array),
            None => Self::one(object, kind),
        };
        found.unwrap_or(Self::Mistyped)
    }

    fn array(object: &Bound<'_, PyAny>, element: ValueType) -> Option<Values> {
        let mut values = Values::new(element);
        let mut push =
            |item: Bound<'_, PyAny>| Self::one(&item, element).filter(|item| values.push(item.value())).map(|_| ());
        if let Ok(list) = object.cast::<PyList>() {
            list.iter().take(MAX_LENGTH + 1).try_for_each(&mut push)?;
        } else {
            object.cast::<PyTuple>().ok()?.iter().take(MAX_LENGTH + 1).try_for_each(&mut push)?;
        }
        (values.len() <= MAX_LENGTH).then_some(values)
    }

    fn one(object: &Bound<'_, PyAny>, kind: ValueType) -> Option<Self> {
        let number = !object.is_instance_of::<PyBool>();
        let integer = || object.cast::<PyInt>().ok().filter(|_| number).and_then(|value| value.extract::<i128>().ok());
        match kind.family() {
            Family::Bool => object.cast::<PyBool>().ok().map(|value| Self::Bool(value.is_true())),
            Family::Text => object.cast::<PyString>().ok().and_then(|value| value.extract().ok()).map(Self::Text),
            Family::Bytes => object.cast::<PyBytes>().map_or_else(
                |_| object.cast::<PyByteArray>().ok().map(|value| Self::Bytes(value.to_vec())),
                |value| Some(Self::Bytes(value.as_bytes().to_owned())),
            ),
            Family::Real32 => Self::real(object, number)
                .filter(|value| f64::from(*value as f32).to_bits() == value.to_bits() || value.is_nan())
                .map(|value| Self::Real32(value as f32)),
            Family::Real64 => Self::real(object, number).map(Self::Real64),
            Family::Integer | Family::Unsigned => {
                integer().zip(kind.range()).filter(|(value, (low, high))| low <= value && value <= high).map(
                    |(value, (low, _))| {
                        if low < 0 { Self::Integer(value as i64) } else { Self::Unsigned(value as u64) }
                    },
                )
            }
        }
    }

    /// A Python number as float64, if that changes nothing about it.
    fn real(object: &Bound<'_, PyAny>, number: bool) -> Option<f64> {
        if object.is_instance_of::<PyFloat>() {
            return object.extract().ok();
        }
        let whole: i128 = object.cast::<PyInt>().ok().filter(|_| number)?.extract().ok()?;
        // The cast back saturates: the largest i128 would seem exact.
        Some(whole as f64).filter(|value| *value as i128 == whole && whole < i128::MAX)
    }

    /// The value, for as long as this lives.
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Absent | Self::Mistyped => Value::Absent,
            Self::Bool(value) => Value::Bool(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Unsigned(value) => Value::Unsigned(*value),
            Self::Real32(value) => Value::Real32(*value),
            Self::Real64(value) => Value::Real64(*value),
            Self::Text(value) => Value::Text(value),
            Self::Bytes(value) => Value::Bytes(value),
            Self::Array(values) => Value::Array(Items::of(values)),
        }
    }
}

/// The value as a Python object.
pub(super) fn to_python<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Absent => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
        Value::Integer(value) => value.into_pyobject(py)?.into_any(),
        Value::Unsigned(value) => value.into_pyobject(py)?.into_any(),
        Value::Real32(value) => f64::from(value).into_pyobject(py)?.into_any(),
        Value::Real64(value) => value.into_pyobject(py)?.into_any(),
        Value::Text(value) => value.into_pyobject(py)?.into_any(),
        Value::Bytes(value) => PyBytes::new(py, value).into_any(),
        Value::Array(items) => {
            let values = items.iter().map(|item| to_python(py, item)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, values)?.into_any()
        }
    })
}
