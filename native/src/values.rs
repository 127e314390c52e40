//! Many values of one type, end to end: a column's, or an array's.

use std::ops::Range;

use crate::joined::{Blobs, Joined, Texts, Whole};
use crate::tag::{Family, Value, ValueType};

/// The most elements of one array: what is longer does not fit its type.
pub const MAX_LENGTH: usize = 1 << 20;

/// Values in the form their type asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// bool
    Bool(Vec<bool>),
    /// int8 to int64
    Integer(Vec<i64>),
    /// uint8 to uint64, bit for bit in an i64, as the integer codecs take them
    Unsigned(Vec<i64>),
    /// float32
    Real32(Vec<f32>),
    /// float64
    Real64(Vec<f64>),
    /// string
    Text(Texts),
    /// bytes
    Bytes(Blobs),
    /// arrays of any of these
    Array(Arrays),
}

impl Values {
    /// No values of a type yet.
    pub fn new(kind: ValueType) -> Self {
        let flat = match kind.family() {
            Family::Bool => Self::Bool(Vec::new()),
            Family::Integer => Self::Integer(Vec::new()),
            Family::Unsigned => Self::Unsigned(Vec::new()),
            Family::Real32 => Self::Real32(Vec::new()),
            Family::Real64 => Self::Real64(Vec::new()),
            Family::Text => Self::Text(Texts::default()),
            Family::Bytes => Self::Bytes(Blobs::default()),
        };
        if kind.element().is_some() { Self::Array(Arrays { ends: Vec::new(), elements: Box::new(flat) }) } else { flat }
    }

    /// Appends a value, or says no where it is of another form or too long.
    pub fn push(&mut self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Bool(values), Value::Bool(value)) => values.push(value),
            (Self::Integer(values), Value::Integer(value)) => values.push(value),
            (Self::Unsigned(values), Value::Unsigned(value)) => values.push(value as i64),
            (Self::Real32(values), Value::Real32(value)) => values.push(value),
            (Self::Real64(values), Value::Real64(value)) => values.push(value),
            (Self::Text(values), Value::Text(value)) => values.push(value),
            (Self::Bytes(values), Value::Bytes(value)) => values.push(value),
            (Self::Array(arrays), Value::Array(items)) => return arrays.push(items),
            _ => return false,
        }
        true
    }

    /// Appends the elements of an array of this form, or says no and appends nothing.
    pub(crate) fn extend(&mut self, items: Items<'_>) -> bool {
        let range = items.range();
        match (self, items.values) {
            (Self::Bool(values), Self::Bool(more)) => values.extend_from_slice(slice(more, range)),
            (Self::Integer(values), Self::Integer(more)) | (Self::Unsigned(values), Self::Unsigned(more)) => {
                values.extend_from_slice(slice(more, range));
            }
            (Self::Real32(values), Self::Real32(more)) => values.extend_from_slice(slice(more, range)),
            (Self::Real64(values), Self::Real64(more)) => values.extend_from_slice(slice(more, range)),
            (Self::Text(values), Self::Text(more)) => {
                range.for_each(|at| values.push(more.get(at).unwrap_or_default()));
            }
            (Self::Bytes(values), Self::Bytes(more)) => {
                range.for_each(|at| values.push(more.get(at).unwrap_or_default()));
            }
            _ => return false,
        }
        true
    }

    /// No values, of the same form.
    fn none(&self) -> Self {
        match self {
            Self::Bool(_) => Self::Bool(Vec::new()),
            Self::Integer(_) => Self::Integer(Vec::new()),
            Self::Unsigned(_) => Self::Unsigned(Vec::new()),
            Self::Real32(_) => Self::Real32(Vec::new()),
            Self::Real64(_) => Self::Real64(Vec::new()),
            Self::Text(_) => Self::Text(Texts::default()),
            Self::Bytes(_) => Self::Bytes(Blobs::default()),
            Self::Array(arrays) => Self::Array(Arrays { ends: Vec::new(), elements: Box::new(arrays.elements.none()) }),
        }
    }

    /// Forgets every value, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Bool(values) => values.clear(),
            Self::Integer(values) | Self::Unsigned(values) => values.clear(),
            Self::Real32(values) => values.clear(),
            Self::Real64(values) => values.clear(),
            Self::Text(values) => values.clear(),
            Self::Bytes(values) => values.clear(),
            Self::Array(arrays) => {
                arrays.ends.clear();
                arrays.elements.clear();
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(values) => values.len(),
            Self::Integer(values) | Self::Unsigned(values) => values.len(),
            Self::Real32(values) => values.len(),
            Self::Real64(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Bytes(values) => values.len(),
            Self::Array(arrays) => arrays.ends.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a place.
    pub fn get(&self, at: usize) -> Option<Value<'_>> {
        Some(match self {
            Self::Bool(values) => Value::Bool(*values.get(at)?),
            Self::Integer(values) => Value::Integer(*values.get(at)?),
            Self::Unsigned(values) => Value::Unsigned(*values.get(at)? as u64),
            Self::Real32(values) => Value::Real32(*values.get(at)?),
            Self::Real64(values) => Value::Real64(*values.get(at)?),
            Self::Text(values) => Value::Text(values.get(at)?),
            Self::Bytes(values) => Value::Bytes(values.get(at)?),
            Self::Array(arrays) => Value::Array(arrays.get(at)?),
        })
    }

    /// The values one by one.
    pub fn each(&self) -> Box<dyn Iterator<Item = Value<'_>> + '_> {
        match self {
            Self::Bool(values) => Box::new(values.iter().map(|value| Value::Bool(*value))),
            Self::Integer(values) => Box::new(values.iter().map(|value| Value::Integer(*value))),
            Self::Unsigned(values) => Box::new(values.iter().map(|value| Value::Unsigned(*value as u64))),
            Self::Real32(values) => Box::new(values.iter().map(|value| Value::Real32(*value))),
            Self::Real64(values) => Box::new(values.iter().map(|value| Value::Real64(*value))),
            Self::Text(values) => Box::new(values.iter().map(Value::Text)),
            Self::Bytes(values) => Box::new(values.iter().map(Value::Bytes)),
            Self::Array(arrays) => Box::new(arrays.iter().map(Value::Array)),
        }
    }

    /// Whether others are the very same, to the last bit.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(a), Self::Array(b)) => a.ends == b.ends && a.elements.same(&b.elements),
            _ => Items::of(self) == Items::of(other),
        }
    }

    /// Bytes of all strings and bytes, those in arrays too.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Text(values) => values.total(),
            Self::Bytes(values) => values.total(),
            Self::Array(arrays) => arrays.elements.text_len(),
            _ => 0,
        }
    }

    /// Elements of all arrays; 0 where these are none.
    pub fn elements(&self) -> usize {
        if let Self::Array(arrays) = self { arrays.elements.len() } else { 0 }
    }
}

fn slice<T>(values: &[T], range: Range<usize>) -> &[T] {
    values.get(range).unwrap_or_default()
}

/// Arrays end to end. Their elements are one column of the elements' type.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrays {
    ends: Vec<usize>,
    elements: Box<Values>,
}

impl Arrays {
    /// Arrays of these lengths, whose elements have been decoded; `None` where there are more or fewer.
    pub(crate) fn of(lengths: impl IntoIterator<Item = usize>, elements: Values) -> Option<Self> {
        let mut end = 0;
        let ends: Vec<usize> = lengths
            .into_iter()
            .map(|length| {
                end += length;
                end
            })
            .collect();
        (end == elements.len()).then(|| Self { ends, elements: Box::new(elements) })
    }

    fn push(&mut self, items: Items<'_>) -> bool {
        let fits = items.len() <= MAX_LENGTH && self.elements.extend(items);
        if fits {
            self.ends.push(self.elements.len());
        }
        fits
    }

    fn get(&self, at: usize) -> Option<Items<'_>> {
        let from = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        Some(Items { values: &self.elements, from, to: *self.ends.get(at)? })
    }

    /// The arrays in order.
    pub fn iter(&self) -> impl Iterator<Item = Items<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| Items { values: &self.elements, from, to: *to })
    }

    /// The length of each.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.iter().map(|items| items.len())
    }

    /// The elements of them all.
    pub fn elements(&self) -> &Values {
        &self.elements
    }
}

/// One array: a window on values, which are never arrays themselves.
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    values: &'a Values,
    from: usize,
    to: usize,
}

/// Arrays are equal where every bit is.
impl PartialEq for Items<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.range(), other.range());
        match (self.values, other.values) {
            (Values::Bool(left), Values::Bool(right)) => slice(left, a) == slice(right, b),
            (Values::Integer(left), Values::Integer(right)) | (Values::Unsigned(left), Values::Unsigned(right)) => {
                slice(left, a) == slice(right, b)
            }
            (Values::Real32(left), Values::Real32(right)) => {
                let (left, right) = (slice(left, a), slice(right, b));
                let differs = |found: u32, (a, b): (&f32, &f32)| found | (a.to_bits() ^ b.to_bits());
                left.len() == right.len() && left.iter().zip(right).fold(0, differs) == 0
            }
            (Values::Real64(left), Values::Real64(right)) => {
                let (left, right) = (slice(left, a), slice(right, b));
                let differs = |found: u64, (a, b): (&f64, &f64)| found | (a.to_bits() ^ b.to_bits());
                left.len() == right.len() && left.iter().zip(right).fold(0, differs) == 0
            }
            (Values::Text(left), Values::Text(right)) => same(left, a, right, b),
            (Values::Bytes(left), Values::Bytes(right)) => same(left, a, right, b),
            _ => false,
        }
    }
}

fn same<W: Whole>(left: &Joined<W>, a: Range<usize>, right: &Joined<W>, b: Range<usize>) -> bool {
    a.len() == b.len() && a.zip(b).all(|(a, b)| left.get(a) == right.get(b))
}

impl<'a> Items<'a> {
    /// All of these values as one array. A decoder makes one by pushing each element to a `Values` of the element's
    /// type (`ValueType::element`), in range of that type, as everywhere.
    pub fn of(values: &'a Values) -> Self {
        Self { values, from: 0, to: values.len() }
    }

    fn range(&self) -> Range<usize> {
        self.from..self.to
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.range().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range().is_empty()
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let values = self.values;
        self.range().filter_map(|at| values.get(at))
    }

    /// The elements by themselves.
    pub fn to_values(self) -> Values {
        let mut own = self.values.none();
        own.extend(self);
        own
    }

    /// Bytes of memory, about: 8 for each element, whatever its type, so that a bound on bytes is one on elements.
    pub fn size(&self) -> usize {
        let text = match self.values {
            Values::Text(texts) => texts.span(self.range()),
            Values::Bytes(blobs) => blobs.span(self.range()),
            _ => 0,
        };
        8 * self.len() + text
    }
}
