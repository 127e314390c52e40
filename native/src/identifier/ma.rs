//! MA identification codes (`IDcode`; ISO/IEC 15459 issuing agency MA): `MA.156.1003.1629/60.10000000.2/`. A slash at
//! the end belongs to the code.

use super::{Identifier, Read, Scheme, Wrong};

const FORM: &str = "write MA.<country>.<organisation>…, such as MA.156.1003.1629/60.10000000.2/";

pub(super) fn read(raw: &str) -> Read<Identifier> {
    let Some(body) = super::strip(raw, "MA.") else {
        return Err(Wrong::new(0, FORM));
    };
    let node = body.split('/').next().unwrap_or_default();
    let mut labels = 0;
    let mut at = 3;
    for label in node.split('.') {
        if label.is_empty() || !label.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Wrong::new(at, format!("an empty label, or one with more than letters and digits; {FORM}")));
        }
        labels += 1;
        at += label.len() + 1;
    }
    if labels < 2 {
        return Err(Wrong::new(3 + node.len(), format!("no organisation; {FORM}")));
    }
    if let Some(bad) = body.find(char::is_whitespace) {
        return Err(Wrong::new(3 + bad, format!("a blank; {FORM}")));
    }
    let text = format!("MA.{body}");
    Ok(Identifier::new(Scheme::Ma, text.clone(), text))
}
