//! Decentralized identifiers (W3C DID Core 1.0, 3.1 and 3.2): `did:method:id`, with a path where the method has one.

use super::{Identifier, Read, Scheme, Wrong};

const HEAD: usize = 4;

pub(super) fn read(raw: &str) -> Read<Identifier> {
    let body = raw.get(HEAD..).unwrap_or_default();
    let Some((method, id)) = body.split_once(':') else {
        return Err(Wrong::new(raw.len(), "no method; write did:<method>:<id>"));
    };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(Wrong::new(HEAD, "a method has small letters and digits only"));
    }
    let start = HEAD + method.len() + 1;
    let name = id.split(['/', '?', '#']).next().unwrap_or_default();
    if name.is_empty() || name.ends_with(':') {
        return Err(Wrong::new(start + name.len(), "nothing after the colon; write did:<method>:<id>"));
    }
    let wrong = |c: char| !(c.is_ascii_alphanumeric() || ".-_:%/?#=&+~@!$'()*,;".contains(c));
    if let Some(at) = id.find(wrong) {
        return Err(Wrong::new(start + at, "a character that no DID has; percent-encode it"));
    }
    if let Some(at) = broken_escape(id) {
        return Err(Wrong::new(start + at, "% without two hexadecimal digits after it"));
    }
    if method == "cn" {
        let (level, hash) = name.split_once(':').unwrap_or((name, ""));
        if level.len() > 63 || hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Wrong::new(start, "write did:cn:<name of at most 63>:<64 hexadecimal digits>"));
        }
    }
    let text = format!("did:{body}");
    Ok(Identifier::new(Scheme::Did, text.clone(), text))
}

/// The first `%` that no two hexadecimal digits follow.
pub(super) fn broken_escape(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    text.match_indices('%').map(|(at, _)| at).find(|at| {
        let digits = bytes.get(at + 1..at + 3);
        !digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    })
}
