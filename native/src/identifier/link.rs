//! Identification links (IEC 61406-1): an absolute URL that names one physical object. Compared exactly. A GS1 Digital
//! Link is read as its key.

use super::{Identifier, Read, Scheme, Wrong, did, gs1};

const LONGEST: usize = 255;

pub(super) fn read(raw: &str) -> Read<Identifier> {
    if let Some(key) = gs1::read_link(raw) {
        return key;
    }
    let start = raw.find("//").map_or(0, |at| at + 2);
    let rest = raw.get(start..).unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') || host.contains('@') {
        return Err(Wrong::new(start, "no host; write https://id.example.com/…"));
    }
    if let Some(at) = raw.find(|c: char| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(c)) {
        return Err(Wrong::new(at, "a character that no URL has (RFC 3986); percent-encode it"));
    }
    if let Some(at) = did::broken_escape(raw) {
        return Err(Wrong::new(at, "% without two hexadecimal digits after it"));
    }
    if raw.len() > LONGEST {
        return Err(Wrong::new(LONGEST, format!("a link of {} characters; at most {LONGEST}", raw.len())));
    }
    Ok(Identifier::new(Scheme::Link, raw.to_owned(), raw.to_owned()))
}
