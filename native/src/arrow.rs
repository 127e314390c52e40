//! Decoded columns as an Arrow record batch: one row a reading, the value in the column of its family. The schema is the
//! same for every block, so that the batches of any blocks go together.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, UInt32Array,
    UInt64Array, new_empty_array, new_null_array,
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::block::DecodedColumn;
use crate::column::{Column, Values};
use crate::error::{Error, Result};
use crate::tag::Family;

/// The columns of values, and of arrays of them, for each family; float32 goes with float64.
const PLACES: [(Family, DataType, &str, &str); 6] = [
    (Family::Bool, DataType::Boolean, "boolean", "boolean_array"),
    (Family::Integer, DataType::Int64, "integer", "integer_array"),
    (Family::Unsigned, DataType::UInt64, "unsigned", "unsigned_array"),
    (Family::Real64, DataType::Float64, "real", "real_array"),
    (Family::Text, DataType::Utf8, "text", "text_array"),
    (Family::Bytes, DataType::Binary, "bytes", "bytes_array"),
];

/// The columns of every batch.
pub fn schema() -> SchemaRef {
    let always = [("tag", DataType::UInt32), ("time", DataType::Int64), ("quality", DataType::UInt32)];
    let mut fields: Vec<Field> = always.into_iter().map(|(name, kind)| Field::new(name, kind, false)).collect();
    fields.extend(PLACES.iter().map(|(_, kind, name, _)| Field::new(*name, kind.clone(), true)));
    fields.extend(PLACES.iter().map(|(_, kind, _, name)| Field::new_list(*name, element(kind), true)));
    Arc::new(Schema::new(fields))
}

/// No element is null, but readers expect that they may be.
fn element(kind: &DataType) -> Field {
    Field::new_list_field(kind.clone(), true)
}

/// Where a column's values go: the family, and whether as arrays.
fn place(column: &Column) -> (Family, bool) {
    let family = if column.kind.family() == Family::Real32 { Family::Real64 } else { column.kind.family() };
    (family, column.kind.element().is_some())
}

/// One batch of all readings, by tag and then in the order they were pushed. Unreadable columns are left out.
pub fn batch(columns: &[DecodedColumn]) -> Result<RecordBatch> {
    let readable: Vec<(u32, &Column)> =
        columns.iter().filter_map(|column| Some((column.tag, column.column.as_ref().ok()?))).collect();
    let rows = readable.iter().map(|(_, column)| column.len()).sum();
    let mut tags = Vec::with_capacity(rows);
    let mut times = Vec::with_capacity(rows);
    let mut quality = Vec::with_capacity(rows);
    for (tag, column) in &readable {
        tags.resize(tags.len() + column.len(), *tag);
        times.extend_from_slice(&column.times);
        quality.extend(column.quality.iter());
    }
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(tags)),
        Arc::new(Int64Array::from(times)),
        Arc::new(UInt32Array::from(quality)),
    ];
    let used = |wanted: (Family, bool)| readable.iter().any(|(_, column)| place(column) == wanted);
    for (family, kind, ..) in &PLACES {
        arrays.push(if used((*family, false)) { single(&readable, rows, *family) } else { new_null_array(kind, rows) });
    }
    // Most blocks have no array: their columns share one buffer of zeros.
    let (zeros, nulls) = (OffsetBuffer::<i32>::new_zeroed(rows), NullBuffer::new_null(rows));
    for (family, kind, ..) in &PLACES {
        arrays.push(if used((*family, true)) {
            Arc::new(lists(&readable, rows, *family, kind).map_err(refused)?)
        } else {
            let (none, field) = (new_empty_array(kind), Arc::new(element(kind)));
            Arc::new(ListArray::try_new(field, zeros.clone(), none, Some(nulls.clone())).map_err(refused)?)
        });
    }
    RecordBatch::try_new(schema(), arrays).map_err(refused)
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` gives it
fn refused(why: ArrowError) -> Error {
    Error::Block(why.to_string())
}

/// The values of one family at their rows, null elsewhere.
fn single(columns: &[(u32, &Column)], rows: usize, family: Family) -> ArrayRef {
    let numbers = |fill: &dyn Fn(&Values, &mut Vec<u64>)| spread(columns, rows, family, fill);
    match family {
        Family::Bool => {
            let (values, valid) = numbers(&|values, out| {
                if let Values::Bool(values) = values {
                    out.extend(values.iter().map(|value| u64::from(*value)));
                }
            });
            let bits = values.iter().map(|value| *value != 0).collect::<BooleanBuffer>();
            Arc::new(BooleanArray::new(bits, Some(valid)))
        }
        Family::Integer | Family::Unsigned => {
            let (values, valid) = numbers(&|values, out| {
                if let Values::Integer(values) | Values::Unsigned(values) = values {
                    out.extend(values.iter().map(|value| *value as u64));
                }
            });
            if family == Family::Unsigned {
                return Arc::new(UInt64Array::new(ScalarBuffer::from(values), Some(valid)));
            }
            Arc::new(Int64Array::new(values.into_iter().map(|value| value as i64).collect(), Some(valid)))
        }
        Family::Real32 | Family::Real64 => {
            let (values, valid) = numbers(&|values, out| match values {
                Values::Real32(values) => out.extend(values.iter().map(|value| f64::from(*value).to_bits())),
                Values::Real64(values) => out.extend(values.iter().map(|value| value.to_bits())),
                _ => {}
            });
            Arc::new(Float64Array::new(values.into_iter().map(f64::from_bits).collect(), Some(valid)))
        }
        Family::Text => {
            let mut out = StringBuilder::new();
            for (_, column) in columns {
                match &column.values {
                    Values::Text(texts) => {
                        let mut next = texts.iter();
                        let present = column.present.iter();
                        present.for_each(|present| out.append_option(if present == 0 { None } else { next.next() }));
                    }
                    _ => out.append_nulls(column.len()),
                }
            }
            Arc::new(out.finish())
        }
        Family::Bytes => {
            let mut out = BinaryBuilder::new();
            for (_, column) in columns {
                match &column.values {
                    Values::Bytes(blobs) => {
                        let mut next = blobs.iter();
                        let present = column.present.iter();
                        present.for_each(|present| out.append_option(if present == 0 { None } else { next.next() }));
                    }
                    _ => out.append_nulls(column.len()),
                }
            }
            Arc::new(out.finish())
        }
    }
}

/// The numbers of one family at their rows, 0 and not valid elsewhere.
fn spread(
    columns: &[(u32, &Column)],
    rows: usize,
    family: Family,
    fill: &dyn Fn(&Values, &mut Vec<u64>),
) -> (Vec<u64>, NullBuffer) {
    let mut values = Vec::with_capacity(rows);
    let mut valid = BooleanBufferBuilder::new(rows);
    for (_, column) in columns {
        let end = values.len() + column.len();
        if place(column) != (family, false) {
            valid.append_n(column.len(), false);
        } else if column.present.all(1) {
            fill(&column.values, &mut values);
            valid.append_n(column.len(), true);
        } else {
            let mut present = Vec::new();
            fill(&column.values, &mut present);
            let mut next = present.into_iter();
            for has_value in column.present.iter().map(|each| each != 0) {
                valid.append(has_value);
                values.push(if has_value { next.next().unwrap_or(0) } else { 0 });
            }
        }
        values.resize(end, 0);
    }
    (values, NullBuffer::new(valid.finish()))
}

/// The arrays of one family at their rows, null elsewhere. An empty array is no null.
fn lists(
    columns: &[(u32, &Column)],
    rows: usize,
    family: Family,
    kind: &DataType,
) -> std::result::Result<ListArray, ArrowError> {
    let (mut lengths, mut valid, mut parts) = (Vec::with_capacity(rows), BooleanBufferBuilder::new(rows), Vec::new());
    for (_, column) in columns {
        match &column.values {
            Values::Array(arrays) if place(column) == (family, true) => {
                let mut next = arrays.lengths();
                for has_value in column.present.iter().map(|each| each != 0) {
                    valid.append(has_value);
                    lengths.push(if has_value { next.next().unwrap_or(0) } else { 0 });
                }
                parts.push(arrays.elements());
            }
            _ => {
                valid.append_n(column.len(), false);
                lengths.resize(lengths.len() + column.len(), 0);
            }
        }
    }
    let offsets = OffsetBuffer::from_lengths(lengths);
    ListArray::try_new(Arc::new(element(kind)), offsets, flat(&parts, family), Some(NullBuffer::new(valid.finish())))
}

/// Elements end to end.
fn flat(parts: &[&Values], family: Family) -> ArrayRef {
    let parts = parts.iter().copied();
    match family {
        Family::Bool => Arc::new(BooleanArray::from(
            parts
                .flat_map(|part| if let Values::Bool(values) = part { &values[..] } else { &[] })
                .copied()
                .collect::<Vec<_>>(),
        )),
        Family::Integer => Arc::new(Int64Array::from_iter_values(parts.flat_map(whole).copied())),
        Family::Unsigned => Arc::new(UInt64Array::from_iter_values(parts.flat_map(whole).map(|value| *value as u64))),
        Family::Real32 | Family::Real64 => {
            let mut out = Vec::new();
            for part in parts {
                match part {
                    Values::Real32(values) => out.extend(values.iter().map(|value| f64::from(*value))),
                    Values::Real64(values) => out.extend_from_slice(values),
                    _ => {}
                }
            }
            Arc::new(Float64Array::from(out))
        }
        Family::Text => Arc::new(StringArray::from_iter_values(parts.flat_map(|part| {
            let texts = if let Values::Text(texts) = part { Some(texts.iter()) } else { None };
            texts.into_iter().flatten()
        }))),
        Family::Bytes => Arc::new(BinaryArray::from_iter_values(parts.flat_map(|part| {
            let blobs = if let Values::Bytes(blobs) = part { Some(blobs.iter()) } else { None };
            blobs.into_iter().flatten()
        }))),
    }
}

fn whole(part: &Values) -> &[i64] {
    if let Values::Integer(values) | Values::Unsigned(values) = part { values } else { &[] }
}
