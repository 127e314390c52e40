//! Whatever decodes becomes JSON that another parser reads, with the same readings in it.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::value::RawValue;

use _native::tag::Value;
use _native::{block, json};

/// More readings than this take longer than an input may: what they are made of is the same.
const MOST: u64 = 1 << 17;

#[derive(Deserialize)]
struct Form<'a> {
    readings: u64,
    #[serde(borrow)]
    columns: Vec<FormColumn<'a>>,
}

#[derive(Deserialize)]
struct FormColumn<'a> {
    tag: u32,
    count: usize,
    problem: Option<String>,
    #[serde(borrow)]
    readings: Vec<(i64, &'a RawValue, u32)>,
}

fn float(text: &str) -> &str {
    match text {
        "\"NaN\"" => "NaN",
        "\"Infinity\"" => "inf",
        "\"-Infinity\"" => "-inf",
        number => number,
    }
}

fn same(value: Value<'_>, text: &str) -> bool {
    match value {
        Value::Absent => text == "null",
        Value::Bool(value) => text.parse() == Ok(value),
        Value::Integer(value) => text.parse() == Ok(value),
        Value::Unsigned(value) => text.parse() == Ok(value),
        Value::Real32(value) => {
            let read: f32 = float(text).parse().unwrap();
            read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan())
        }
        Value::Real64(value) => {
            let read: f64 = float(text).parse().unwrap();
            read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan())
        }
        Value::Text(value) => serde_json::from_str::<String>(text).unwrap() == value,
        Value::Bytes(value) => serde_json::from_str::<&str>(text).unwrap() == STANDARD.encode(value),
        Value::Array(items) => {
            let found: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            found.len() == items.len() && found.iter().zip(items.iter()).all(|(text, item)| same(item, text.get()))
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let bytes = fuzz::sealed(data);
    let Ok((header, columns)) = block::decode(&bytes) else { return };
    if header.gap.is_none() && header.readings > MOST {
        return;
    }
    let readable = columns.iter().filter_map(|each| each.column.as_ref().ok());
    let text: usize = readable.map(|each| each.values.text_len() + 8 * each.values.elements()).sum();
    if text > 1 << 22 {
        return;
    }
    let shown = json::write(&header, &columns, bytes.len()).unwrap();
    let form: Form = serde_json::from_str(&shown).unwrap();
    assert_eq!((form.readings, form.columns.len()), (header.readings, columns.len()));
    for (found, expected) in form.columns.iter().zip(&columns) {
        assert_eq!((found.tag, found.count), (expected.tag, expected.readings));
        match &expected.column {
            Ok(column) => {
                assert!(found.problem.is_none());
                assert_eq!(found.readings.len(), column.len());
                for ((time, text, quality), row) in found.readings.iter().zip(column.iter()) {
                    assert!((*time, *quality) == (row.0, row.2) && same(row.1, text.get()), "{text} for {row:?}");
                }
            }
            Err(problem) => assert_eq!((found.problem.as_ref(), found.readings.len()), (Some(problem), 0)),
        }
    }
});
