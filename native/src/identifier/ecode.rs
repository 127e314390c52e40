//! Ecode (GB/T 31866): version, numbering system identification and main code, written without separators.

use super::{Identifier, Read, Scheme, Wrong};

const LONGEST: usize = 128;

pub(super) fn read(raw: &str) -> Read<Identifier> {
    if !raw.starts_with(|version: char| matches!(version, '1'..='9')) {
        return Err(Wrong::new(0, "no version; an Ecode begins with a digit from 1 to 9"));
    }
    if let Some(at) = raw.find(|c: char| !c.is_ascii_alphanumeric()) {
        return Err(Wrong::new(at, "not a letter or digit of ASCII"));
    }
    if raw.len() < 6 || raw.len() > LONGEST {
        return Err(Wrong::new(raw.len(), format!("{} characters; an Ecode has 6 to {LONGEST}", raw.len())));
    }
    let code = raw.to_ascii_uppercase();
    Ok(Identifier::new(Scheme::Ecode, format!("ecode:{code}"), code))
}
