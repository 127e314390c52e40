//! A server's value as the type that its tag has.
//!
//! A number fits where the tag's type holds it exactly, whatever its own type; a Boolean is no number. DateTime is an
//! int64 (ns since 1970). What has a text form fits a string. An array fits where each of its elements does.

use super::node_id::NodeId;
use super::scalar::Scalar;
use super::text;
use super::variant::{Array, Content};
use crate::tag::{Family, Value, ValueType};
use crate::values::{Items, MAX_LENGTH, Values};

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fitted<'a> {
    /// It fits. `Absent` for a null one.
    Value(Value<'a>),
    /// It is of another type, or more than the tag's type holds.
    Mistyped,
    /// It has text that is not UTF-8.
    NotText,
}

/// Where values are made that don't lie in the body as they are: one for many values.
#[derive(Debug, Default)]
pub struct Scratch {
    text: String,
    elements: Option<(ValueType, Values)>,
}

/// `content` for a tag of type `kind`.
#[inline]
pub fn fit<'s>(content: Content<'s>, kind: ValueType, scratch: &'s mut Scratch) -> Fitted<'s> {
    match (content, kind.element()) {
        (Content::Scalar(scalar), None) => one(scalar, kind, &mut scratch.text),
        (Content::Null, _) => Fitted::Value(Value::Absent),
        (Content::Array(array), Some(element)) => many(&array, element, scratch),
        _ => Fitted::Mistyped,
    }
}

fn many<'s>(array: &Array<'s>, element: ValueType, scratch: &'s mut Scratch) -> Fitted<'s> {
    if array.len() > MAX_LENGTH {
        return Fitted::Mistyped;
    }
    let Scratch { text, elements } = scratch;
    if elements.as_ref().is_none_or(|(kind, _)| *kind != element) {
        *elements = None;
    }
    let (_, values) = elements.get_or_insert_with(|| (element, Values::new(element)));
    values.clear();
    for scalar in array.iter() {
        let value = match one(scalar, element, text) {
            // An array has no place for a null String or ByteString: it is an empty one.
            Fitted::Value(Value::Absent) if element.family() == Family::Text => Value::Text(""),
            Fitted::Value(Value::Absent) => Value::Bytes(&[]),
            Fitted::Value(value) => value,
            Fitted::NotText => return Fitted::NotText,
            Fitted::Mistyped => return Fitted::Mistyped,
        };
        if !values.push(value) {
            return Fitted::Mistyped;
        }
    }
    Fitted::Value(Value::Array(Items::of(values)))
}

/// One value for a tag, or an array, of type `kind`.
#[inline]
fn one<'s>(scalar: Scalar<'s>, kind: ValueType, text: &'s mut String) -> Fitted<'s> {
    let found = match (kind.family(), scalar) {
        (Family::Real64, Scalar::Real64(value)) => Some(Value::Real64(value)),
        (Family::Real32, Scalar::Real32(value)) => Some(Value::Real32(value)),
        (Family::Bool, Scalar::Bool(value)) => Some(Value::Bool(value)),
        (Family::Text, scalar) => return text_of(scalar, text),
        (Family::Bytes, Scalar::Bytes(bytes)) => Some(bytes.map_or(Value::Absent, Value::Bytes)),
        (Family::Real64, scalar) => real(scalar).map(Value::Real64),
        (Family::Real32, scalar) => real(scalar)
            .filter(|value| f64::from(*value as f32).to_bits() == value.to_bits() || value.is_nan())
            .map(|value| Value::Real32(value as f32)),
        (Family::Integer, Scalar::Time(ns)) => (kind == ValueType::Int64).then_some(Value::Integer(ns)),
        (Family::Integer, scalar) => ranged(scalar, kind).map(|value| Value::Integer(value as i64)),
        (Family::Unsigned, scalar) => ranged(scalar, kind).map(|value| Value::Unsigned(value as u64)),
        (Family::Bool | Family::Bytes, _) => None,
    };
    found.map_or(Fitted::Mistyped, Fitted::Value)
}

fn ranged(scalar: Scalar<'_>, kind: ValueType) -> Option<i128> {
    let (low, high) = kind.range()?;
    whole(scalar).filter(|value| low <= *value && *value <= high)
}

fn whole(scalar: Scalar<'_>) -> Option<i128> {
    match scalar {
        Scalar::Integer(value) => Some(i128::from(value)),
        Scalar::Unsigned(value) => Some(i128::from(value)),
        _ => None,
    }
}

/// As float64, if that changes nothing.
fn real(scalar: Scalar<'_>) -> Option<f64> {
    match scalar {
        Scalar::Real32(value) => Some(f64::from(value)),
        Scalar::Real64(value) => Some(value),
        scalar => whole(scalar).map(|value| (value, value as f64)).filter(|(a, b)| *b as i128 == *a).map(|(_, b)| b),
    }
}

fn text_of<'s>(scalar: Scalar<'s>, scratch: &'s mut String) -> Fitted<'s> {
    scratch.clear();
    let made = match scalar {
        Scalar::Text(None) | Scalar::Name(_, None) => return Fitted::Value(Value::Absent),
        Scalar::Text(Some(text)) => {
            return std::str::from_utf8(text).map_or(Fitted::NotText, |text| Fitted::Value(Value::Text(text)));
        }
        Scalar::Guid(guid) => {
            text::put_guid(scratch, guid);
            Some(())
        }
        Scalar::NodeId(node) => NodeId::of(node).and_then(|node| text::put_node_id(scratch, &node)),
        Scalar::Name(namespace, Some(name)) => text::put_name(scratch, namespace, name),
        _ => return Fitted::Mistyped,
    };
    made.map_or(Fitted::NotText, |()| Fitted::Value(Value::Text(scratch)))
}
