//! A server's value as the type that its tag has.
//!
//! A number fits where the tag's type holds it exactly, whatever its own type; a Boolean is no number. DateTime is an
//! int64 (ns since 1970). What has a text form fits a string.

use super::text;
use super::variant::Scalar;
use crate::tag::{Value, ValueType};

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fitted<'a> {
    /// It fits. `Absent` for a null String or ByteString.
    Value(Value<'a>),
    /// It is of another type, or more than the tag's type holds.
    Mistyped,
    /// It is text that is not UTF-8.
    NotText,
}

/// `scalar` for a tag of type `kind`; `scratch` is for text that has to be made.
#[inline]
pub fn fit<'a>(scalar: Scalar<'a>, kind: ValueType, scratch: &'a mut String) -> Fitted<'a> {
    let found = match (kind, scalar) {
        (ValueType::Float64, Scalar::Real64(value)) => Some(Value::Real64(value)),
        (ValueType::Float32, Scalar::Real32(value)) => Some(Value::Real32(value)),
        (ValueType::Bool, Scalar::Bool(value)) => Some(Value::Bool(value)),
        (ValueType::Text, scalar) => return text_of(scalar, scratch),
        (ValueType::Float64, scalar) => real(scalar).map(Value::Real64),
        (ValueType::Float32, scalar) => real(scalar)
            .filter(|value| f64::from(*value as f32).to_bits() == value.to_bits() || value.is_nan())
            .map(|value| Value::Real32(value as f32)),
        (ValueType::Int64, Scalar::Time(ns)) => Some(Value::Integer(ns)),
        (kind, scalar) => whole(scalar).zip(kind.range()).and_then(|(value, (low, high))| {
            let value = (low <= value && value <= high).then_some(value)?;
            Some(if low < 0 { Value::Integer(value as i64) } else { Value::Unsigned(value as u64) })
        }),
    };
    found.map_or(Fitted::Mistyped, Fitted::Value)
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

fn text_of<'a>(scalar: Scalar<'a>, scratch: &'a mut String) -> Fitted<'a> {
    scratch.clear();
    let made = match scalar {
        Scalar::Text(None) | Scalar::Name(_, None) => return Fitted::Value(Value::Absent),
        Scalar::Text(Some(text)) => {
            return std::str::from_utf8(text).map_or(Fitted::NotText, |text| Fitted::Value(Value::Text(text)));
        }
        Scalar::Guid(guid) => {
            text::put_guid(scratch, &guid);
            Some(())
        }
        Scalar::NodeId(node) => text::put_node_id(scratch, &node),
        Scalar::Name(namespace, Some(name)) => text::put_name(scratch, namespace, name),
        _ => return Fitted::Mistyped,
    };
    made.map_or(Fitted::NotText, |()| Fitted::Value(Value::Text(scratch)))
}
