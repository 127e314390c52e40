//! A block as JSON, for people and tools (docs/json-form.md). Numbers are written so that they read back exactly.

use std::fmt::Write as _;

use crate::base64;
use crate::block::{self, DecodedColumn, Header};
use crate::codec::{Codec, broken};
use crate::column::{Column, Note, NoteKind, Values};
use crate::error::Result;
use crate::tag::{Value, ValueType};

/// The most bytes of text in one JSON document, escapes included: a hostile block has six for each of its own.
pub const MAX_TEXT: usize = 2 * block::MAX_BODY;

/// The most letters of a float64: -2.2250738585072014e-308.
const LONGEST_NUMBER: usize = 24;

/// Verifies and decodes a block, and writes it as one JSON object without a line break.
pub fn to_json(bytes: &[u8]) -> Result<String> {
    let (header, columns) = block::decode(bytes)?;
    write(&header, &columns, bytes.len())
}

/// Writes a decoded block of `size` bytes as JSON. Fails only where its texts and arrays would be longer than
/// `MAX_TEXT`.
pub fn write(header: &Header, columns: &[DecodedColumn], size: usize) -> Result<String> {
    let readable = || columns.iter().filter_map(|each| each.column.as_ref().ok());
    let text = readable().map(|column| text_bytes(&column.values)).sum::<usize>();
    if text > MAX_TEXT {
        return Err(broken(format!("{text} bytes of text as JSON; at most {MAX_TEXT}")));
    }
    // About what a reading takes: time 19, value 6, quality 1, punctuation 6. One buffer, that grows seldom.
    let readings: usize = readable().map(Column::len).sum();
    let mut out = String::with_capacity(512 + columns.len() * 96 + readings * 32 + text);
    put_header(&mut out, header, size);
    out.push_str(",\"columns\":[");
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        put_column(&mut out, column);
    }
    out.push_str("]}");
    Ok(out)
}

/// Bytes of a column's texts with their quotes and escapes, and of its arrays' elements.
fn text_bytes(values: &Values) -> usize {
    match values {
        Values::Text(texts) => {
            let special = |text: &str| text.chars().filter(|letter| is_special(*letter)).count();
            texts.iter().map(|text| text.len() + 2 + 5 * special(text)).sum()
        }
        Values::Bytes(blobs) => blobs.iter().map(|bytes| bytes.len().div_ceil(3) * 4 + 2).sum(),
        Values::Array(arrays) => {
            let elements = arrays.elements();
            // The longest number is that of a float64, or its name in quotes; then a comma.
            let number = if matches!(elements, Values::Text(_) | Values::Bytes(_)) { 1 } else { LONGEST_NUMBER + 1 };
            text_bytes(elements) + elements.len() * number
        }
        _ => 0,
    }
}

/// All that RFC 8259 wants escaped, and DEL, which a terminal would obey.
fn is_special(letter: char) -> bool {
    letter < ' ' || matches!(letter, '"' | '\\' | '\x7f')
}

/// `{` and the fields of the header.
fn put_header(out: &mut String, header: &Header, size: usize) {
    let (meta, kind) = (&header.meta, header.kind());
    put(
        out,
        format_args!("{{\"kind\":\"{kind}\",\"version\":\"{}.{}\",\"stream\":\"", header.version.0, header.version.1),
    );
    put_uuid(out, &meta.stream);
    put(out, format_args!("\",\"sequence\":{},\"epoch\":\"{:016x}\"", meta.sequence, meta.epoch));
    put(out, format_args!(",\"first_ns\":{},\"last_ns\":{}", header.first_ns, header.last_ns));
    put(out, format_args!(",\"sealed_ns\":{},\"synchronized\":{}", meta.sealed_ns, meta.synchronized));
    put(out, format_args!(",\"readings\":{},\"bytes\":{size}", header.readings));
    if let Some(reason) = &header.gap {
        // `places` counts from 1, and the decoder has seen that their sum is below 2^64.
        put(out, format_args!(",\"last_sequence\":{},\"reason\":", meta.sequence.wrapping_add(header.places - 1)));
        put_text(out, reason);
    }
    if let Some(it) = &header.correction {
        out.push_str(",\"corrects\":{\"stream\":\"");
        put_uuid(out, &it.stream);
        put(out, format_args!("\",\"first\":{},\"last\":{},\"offset_ns\":{}}}", it.first, it.last, it.offset_ns));
    }
}

fn put_uuid(out: &mut String, uuid: &[u8; 16]) {
    for (at, byte) in uuid.iter().enumerate() {
        put(out, format_args!("{}{byte:02x}", if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" }));
    }
}

fn put_column(out: &mut String, decoded: &DecodedColumn) {
    put(out, format_args!("{{\"tag\":{},\"type\":\"", decoded.tag));
    match ValueType::from_id(decoded.type_id) {
        Some(kind) => out.push_str(kind.name()),
        None => put(out, format_args!("{}", decoded.type_id)),
    }
    out.push_str("\",\"time_codec\":\"");
    put_codec(out, decoded.time_codec);
    out.push_str("\",\"value_codec\":\"");
    put_codec(out, decoded.value_codec);
    put(out, format_args!("\",\"count\":{}", decoded.readings));
    match &decoded.column {
        Ok(column) => {
            if let Some(note) = &column.note {
                put_note(out, note);
            }
            out.push_str(",\"readings\":[");
            put_readings(out, column);
        }
        Err(problem) => {
            out.push_str(",\"problem\":");
            put_text(out, problem);
            out.push_str(",\"readings\":[");
        }
    }
    out.push_str("]}");
}

fn put_codec(out: &mut String, id: u8) {
    match Codec::from_id(id) {
        Some(codec) => out.push_str(codec.name()),
        None => put(out, format_args!("{id}")),
    }
}

fn put_note(out: &mut String, note: &Note) {
    let (kind, between) = match note.kind {
        NoteKind::OnChange => ("on_change", "hold"),
        NoteKind::Deadband => ("deadband", "hold"),
        NoteKind::SwingingDoor => ("swinging_door", "interpolate"),
        NoteKind::Grid => ("grid", "none"),
    };
    put(out, format_args!(",\"filter\":{{\"kind\":\"{kind}\",\"between\":\"{between}\",\"bound\":"));
    put_value(out, Value::Real64(note.bound));
    out.push('}');
}

fn put_readings(out: &mut String, column: &Column) {
    for (at, (time_ns, value, quality)) in column.iter().enumerate() {
        put(out, format_args!("{}{time_ns},", if at > 0 { ",[" } else { "[" }));
        put_value(out, value);
        put(out, format_args!(",{quality}]"));
    }
}

fn put_value(out: &mut String, value: Value<'_>) {
    // Rust writes the shortest decimal that reads back to the same float of that width: `{:?}` with a fraction or an
    // exponent always, so that -0.0 keeps its sign in readers that take `-0` for an integer, and 1e300 stays short.
    match value {
        Value::Absent => out.push_str("null"),
        Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Value::Integer(value) => put(out, format_args!("{value}")),
        Value::Unsigned(value) => put(out, format_args!("{value}")),
        Value::Real32(value) if value.is_finite() => put(out, format_args!("{value:?}")),
        Value::Real64(value) if value.is_finite() => put(out, format_args!("{value:?}")),
        Value::Real32(value) => out.push_str(not_finite(f64::from(value))),
        Value::Real64(value) => out.push_str(not_finite(value)),
        Value::Text(text) => put_text(out, text),
        Value::Bytes(bytes) => {
            out.push('"');
            base64::put(out, bytes);
            out.push('"');
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                put_value(out, item);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
    }
}

/// What JSON has no number for (OPC 10000-6, 5.4.2.4).
fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "\"NaN\""
    } else if value > 0.0 {
        "\"Infinity\""
    } else {
        "\"-Infinity\""
    }
}

/// A JSON string.
fn put_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(is_special) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut letters = special.chars();
        match letters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => put(out, format_args!("\\u{:04x}", other as u32)),
            None => {}
        }
        rest = letters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Meta;

    const META: Meta = Meta { stream: [0xab; 16], sequence: 7, epoch: 0xe, sealed_ns: 30, synchronized: true };

    fn text(value: &str) -> String {
        let mut out = String::new();
        put_text(&mut out, value);
        out
    }

    fn value(value: Value<'_>) -> String {
        let mut out = String::new();
        put_value(&mut out, value);
        out
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(text("plain °C 停止 🏭"), "\"plain °C 停止 🏭\"");
        assert_eq!(text("\"\\\n\r\t\0\u{1f}\u{7f}/"), r#""\"\\\n\r\t\u0000\u001f\u007f/""#);
        assert_eq!(text("a\"b"), r#""a\"b""#);
    }

    #[test]
    fn numbers_read_back_exactly() {
        assert_eq!(value(Value::Real32(71.3)), "71.3");
        assert_eq!(value(Value::Real64(f64::from(71.3_f32))), "71.30000305175781");
        assert_eq!(value(Value::Real64(-0.0)), "-0.0");
        assert_eq!(value(Value::Real64(1.0)), "1.0");
        assert_eq!(value(Value::Real64(f64::MAX)), "1.7976931348623157e308");
        assert_eq!(value(Value::Real32(f32::from_bits(1))), "1e-45");
        assert_eq!(value(Value::Real32(f32::NAN)), "\"NaN\"");
        assert_eq!(value(Value::Real32(f32::NEG_INFINITY)), "\"-Infinity\"");
        assert_eq!(value(Value::Real64(f64::INFINITY)), "\"Infinity\"");
        assert_eq!(value(Value::Integer(i64::MIN)), "-9223372036854775808");
        assert_eq!(value(Value::Unsigned(u64::MAX)), "18446744073709551615");
        assert_eq!(value(Value::Absent), "null");
    }

    #[test]
    fn a_block_a_gap_and_a_correction() {
        let mut column = Column::new(ValueType::Bool);
        column.push(10, Value::Bool(true), 0);
        column.push(20, Value::Absent, 0x8000_0000);
        let block = block::encode(&[(3, column)], &META);
        let shown = to_json(&block).unwrap();
        let (start, end) = shown.split_once(&format!(",\"bytes\":{}", block.len())).unwrap();
        assert_eq!(
            start,
            "{\"kind\":\"readings\",\"version\":\"1.0\",\"stream\":\"abababab-abab-abab-abab-abababababab\",\
             \"sequence\":7,\"epoch\":\"000000000000000e\",\"first_ns\":10,\"last_ns\":20,\"sealed_ns\":30,\
             \"synchronized\":true,\"readings\":2"
        );
        assert!(end.starts_with(",\"columns\":[{\"tag\":3,\"type\":\"bool\",\"time_codec\":\""), "{end}");
        assert!(end.ends_with("\"count\":2,\"readings\":[[10,true,0],[20,null,2147483648]]}]}"), "{end}");
        let gap = to_json(&block::gap(&META, 3, (5, 6), 0, "full\"")).unwrap();
        assert!(gap.starts_with("{\"kind\":\"gap\","), "{gap}");
        assert!(gap.ends_with(",\"last_sequence\":9,\"reason\":\"full\\\"\",\"columns\":[]}"), "{gap}");
        let it = block::Correction { stream: [0xcd; 16], first: 2, last: 6, offset_ns: -5 };
        let correction = to_json(&block::correction(&META, it)).unwrap();
        assert!(correction.starts_with("{\"kind\":\"correction\","), "{correction}");
        let corrects = "{\"stream\":\"cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd\",\"first\":2,\"last\":6,\"offset_ns\":-5}";
        assert!(correction.ends_with(&format!(",\"corrects\":{corrects},\"columns\":[]}}")), "{correction}");
    }

    #[test]
    fn filters_and_problems_are_named() {
        let mut column = Column::new(ValueType::Int8);
        column.push(1, Value::Integer(-1), 0);
        column.note = Some(Note { kind: NoteKind::Deadband, bound: 0.5 });
        let decoded =
            |column| DecodedColumn { tag: 0, type_id: 99, readings: 1, time_codec: 98, value_codec: 0, column };
        let header = block::header(&block::gap(&META, 1, (0, 0), 0, "")).unwrap();
        let shown = write(&header, &[decoded(Ok(column)), decoded(Err("no \"codec\"".to_owned()))], 0).unwrap();
        let (_, columns) = shown.split_once("\"columns\":").unwrap();
        let head = "{\"tag\":0,\"type\":\"99\",\"time_codec\":\"98\",\"value_codec\":\"constant\",\"count\":1,";
        let filter = "\"filter\":{\"kind\":\"deadband\",\"between\":\"hold\",\"bound\":0.5},\"readings\":[[1,-1,0]]}";
        let problem = "\"problem\":\"no \\\"codec\\\"\",\"readings\":[]}";
        assert_eq!(columns, format!("[{head}{filter},{head}{problem}]}}"));
    }
}
