//! Object identifiers: decimal arcs under 0, 1 or 2 (ITU-T X.660, 7.6); as URN `urn:oid:` (RFC 3061).

use super::{Identifier, Read, Scheme, Wrong};

/// Whether a text without a scheme in front is one: at least three arcs, so that `88.118` is no OID by accident.
pub(super) fn looks_like(raw: &str) -> bool {
    raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && raw.bytes().filter(|byte| *byte == b'.').count() > 1
}

pub(super) fn read(raw: &str) -> Read<Identifier> {
    let mut at = 0;
    let mut first = "";
    let mut arcs = 0;
    for arc in raw.split('.') {
        if arc.is_empty() {
            return Err(Wrong::new(at, "an empty arc; write numbers with single dots, such as 1.2.156.1"));
        }
        if let Some(bad) = arc.find(|c: char| !c.is_ascii_digit()) {
            return Err(Wrong::new(at + bad, "not a digit; write numbers with single dots, such as 1.2.156.1"));
        }
        if arc.len() > 1 && arc.starts_with('0') {
            return Err(Wrong::new(at, format!("an arc with a leading zero; write {}", arc.trim_start_matches('0'))));
        }
        match arcs {
            0 if !matches!(arc, "0" | "1" | "2") => {
                return Err(Wrong::new(at, "the first arc is 0, 1 or 2, such as 1.2.156.1"));
            }
            0 => first = arc,
            1 if first != "2" && (arc.len() > 2 || arc > "39" && arc.len() == 2) => {
                return Err(Wrong::new(at, "the second arc is at most 39 under 0 and 1"));
            }
            _ => {}
        }
        arcs += 1;
        at += arc.len() + 1;
    }
    if arcs < 2 {
        return Err(Wrong::new(raw.len(), "one arc alone; write at least two, such as 1.2"));
    }
    Ok(Identifier::new(Scheme::Oid, format!("urn:oid:{raw}"), raw.to_owned()))
}
