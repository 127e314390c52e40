//! Handles: `prefix/suffix`, split at the first slash (RFC 3651, 2). In China `88.<second level>.<enterprise>/suffix`.

use super::{FORMS, Identifier, Read, Scheme, Wrong};

pub(super) fn read(raw: &str) -> Read<Identifier> {
    let Some(slash) = raw.find('/') else {
        return Err(Wrong::new(raw.len(), format!("no slash and no known scheme; {FORMS}")));
    };
    let (prefix, suffix) = raw.split_at(slash);
    let mut at = 0;
    for label in prefix.split('.') {
        if label.is_empty() {
            return Err(Wrong::new(at, "an empty label in the prefix; write it like 88.118.8"));
        }
        if let Some(blank) = label.find(char::is_whitespace) {
            return Err(Wrong::new(at + blank, "a blank in the prefix; write it like 88.118.8"));
        }
        at += label.len() + 1;
    }
    if suffix.len() == 1 {
        return Err(Wrong::new(raw.len(), "nothing after the slash; write a suffix such as press1.temp"));
    }
    // Servers tell suffixes of different case apart or do not; prefixes are one whatever their case. Labels are text:
    // 0042 is not 42. Handles of the system itself (prefix 0.*) have no case at all.
    let key = if prefix.starts_with("0.") {
        raw.to_ascii_uppercase()
    } else {
        format!("{}{suffix}", prefix.to_ascii_uppercase())
    };
    // A prefix of another scheme's letters would be read as that scheme when the text comes back.
    let text = if super::other(raw).is_none() { raw.to_owned() } else { format!("hdl:{raw}") };
    Ok(Identifier::new(Scheme::Handle, text, key))
}
