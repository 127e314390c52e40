//! Decoded columns as an Arrow record batch: one row a reading, the value in the column of its kind.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, UInt32Array, UInt64Array, new_null_array,
};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::block::DecodedColumn;
use crate::column::{Column, Values};
use crate::error::{Error, Result};

/// The columns of every batch.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("tag", DataType::UInt32, false),
        Field::new("time", DataType::Int64, false),
        Field::new("quality", DataType::UInt32, false),
        Field::new("boolean", DataType::Boolean, true),
        Field::new("integer", DataType::Int64, true),
        Field::new("unsigned", DataType::UInt64, true),
        Field::new("real", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

/// Which of the value columns a kind of values goes to.
#[derive(PartialEq)]
enum Place {
    Boolean,
    Integer,
    Unsigned,
    Real,
    Text,
}

fn place(column: &Column) -> Place {
    match column.values {
        Values::Bool(_) => Place::Boolean,
        Values::Integer(_) => Place::Integer,
        Values::Unsigned(_) => Place::Unsigned,
        Values::Real32(_) | Values::Real64(_) => Place::Real,
        Values::Text(_) => Place::Text,
    }
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
    let numbers = |wanted: Place, fill: &dyn Fn(&Values, &mut Vec<u64>)| spread(&readable, rows, &wanted, fill);
    let integers = numbers(Place::Integer, &|values, out| {
        if let Values::Integer(values) = values {
            out.extend(values.iter().map(|value| *value as u64));
        }
    });
    let unsigned = numbers(Place::Unsigned, &|values, out| {
        if let Values::Unsigned(values) = values {
            out.extend(values.iter().map(|value| *value as u64));
        }
    });
    let real = numbers(Place::Real, &|values, out| match values {
        Values::Real32(values) => out.extend(values.iter().map(|value| f64::from(*value).to_bits())),
        Values::Real64(values) => out.extend(values.iter().map(|value| value.to_bits())),
        _ => {}
    });
    let boolean = numbers(Place::Boolean, &|values, out| {
        if let Values::Bool(values) = values {
            out.extend(values.iter().map(|value| u64::from(*value)));
        }
    });
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(tags)),
        Arc::new(Int64Array::from(times)),
        Arc::new(UInt32Array::from(quality)),
        boolean.map_or_else(
            || new_null_array(&DataType::Boolean, rows),
            |(values, valid)| {
                Arc::new(BooleanArray::new(
                    values.iter().map(|value| *value != 0).collect::<BooleanBuffer>(),
                    Some(valid),
                ))
            },
        ),
        integers.map_or_else(
            || new_null_array(&DataType::Int64, rows),
            |(values, valid)| {
                Arc::new(Int64Array::new(values.into_iter().map(|value| value as i64).collect(), Some(valid)))
            },
        ),
        unsigned.map_or_else(
            || new_null_array(&DataType::UInt64, rows),
            |(values, valid)| Arc::new(UInt64Array::new(ScalarBuffer::from(values), Some(valid))),
        ),
        real.map_or_else(
            || new_null_array(&DataType::Float64, rows),
            |(values, valid)| {
                Arc::new(Float64Array::new(values.into_iter().map(f64::from_bits).collect(), Some(valid)))
            },
        ),
        texts(&readable, rows),
    ];
    RecordBatch::try_new(schema(), arrays).map_err(|why| Error::Block(why.to_string()))
}

/// The values of one place at their rows, 0 and not valid elsewhere; `None` where no column has that place.
fn spread(
    columns: &[(u32, &Column)],
    rows: usize,
    wanted: &Place,
    fill: &dyn Fn(&Values, &mut Vec<u64>),
) -> Option<(Vec<u64>, NullBuffer)> {
    if !columns.iter().any(|(_, column)| place(column) == *wanted) {
        return None;
    }
    let mut values = Vec::with_capacity(rows);
    let mut valid = BooleanBufferBuilder::new(rows);
    for (_, column) in columns {
        let end = values.len() + column.len();
        if place(column) != *wanted {
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
    Some((values, NullBuffer::new(valid.finish())))
}

fn texts(columns: &[(u32, &Column)], rows: usize) -> ArrayRef {
    if !columns.iter().any(|(_, column)| place(column) == Place::Text) {
        return new_null_array(&DataType::Utf8, rows);
    }
    let mut out = StringBuilder::new();
    for (_, column) in columns {
        match &column.values {
            Values::Text(texts) => {
                let mut next = texts.iter();
                column
                    .present
                    .iter()
                    .for_each(|present| out.append_option(if present == 0 { None } else { next.next() }));
            }
            _ => out.append_nulls(column.len()),
        }
    }
    Arc::new(out.finish())
}
