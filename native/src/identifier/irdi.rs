//! International registration data identifiers (ISO/IEC 11179-6, ISO 29002-5): `registrant#item#version`, as ECLASS
//! (`0173-1#02-AAB325#008`) and the IEC Common Data Dictionary (`0112/2///61360_4#AAA001#001`) write them.

use super::{Identifier, Read, Scheme, Wrong};

const FORM: &str = "write registrant#item#version, such as 0173-1#02-AAB325#008";

/// Whether a text without `irdi:` in front is one: four digits, and two `#`.
pub(super) fn looks_like(raw: &str) -> bool {
    raw.len() > 4
        && raw.bytes().take(4).all(|byte| byte.is_ascii_digit())
        && raw.matches('#').count() == 2
        && matches!(raw.as_bytes().get(4), Some(b'-' | b'/'))
}

pub(super) fn read(raw: &str) -> Read<Identifier> {
    if let Some(at) = raw.find(|c: char| !(c.is_ascii_alphanumeric() || "-_/#".contains(c))) {
        return Err(Wrong::new(at, format!("a character that no IRDI has; {FORM}")));
    }
    let [registrant, item, version] = raw.split('#').collect::<Vec<_>>()[..] else {
        return Err(Wrong::new(raw.len(), format!("not three parts; {FORM}")));
    };
    if registrant.len() < 4 || !registrant.bytes().take(4).all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::new(0, "a registrant begins with four digits, such as 0173 (ECLASS) or 0112 (IEC)"));
    }
    if item.is_empty() {
        return Err(Wrong::new(registrant.len() + 1, format!("an empty item; {FORM}")));
    }
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::new(raw.len() - version.len(), format!("the version is a number; {FORM}")));
    }
    let text = raw.to_ascii_uppercase();
    let concept = registrant.len() + 1 + item.len();
    // Where it does not look like one by itself, the scheme stays in front of it.
    let shown = if looks_like(&text) { text.clone() } else { format!("irdi:{text}") };
    Ok(Identifier { concept, ..Identifier::new(Scheme::Irdi, shown, text) })
}
