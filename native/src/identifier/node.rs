//! OPC UA nodes by namespace URI: `nsu=<uri>;s=<key>` (OPC 10000-6, 5.3.1.10). An index names nothing outside its server.

use super::{Identifier, Read, Scheme, Wrong};

pub(super) fn read(raw: &str) -> Read<Identifier> {
    let Some(body) = super::strip(raw, "nsu=") else {
        return Err(Wrong::new(0, "a namespace index changes with its server; write nsu=<namespace uri>;s=…"));
    };
    let Some((uri, id)) = body.split_once(';') else {
        return Err(Wrong::new(raw.len(), "no node; write nsu=<namespace uri>;s=…"));
    };
    if uri.is_empty() {
        return Err(Wrong::new(4, "an empty namespace URI; write nsu=<namespace uri>;s=…"));
    }
    let start = 4 + uri.len() + 1;
    let key = id.get(2..).filter(|key| !key.is_empty());
    match (id.get(..2), key) {
        (Some("i="), Some(key)) if key.len() < 11 && key.parse::<u32>().is_ok_and(|n| n.to_string() == key) => {}
        (Some("s=" | "g=" | "b="), Some(_)) => {}
        _ => return Err(Wrong::new(start, "not a node; write i=<number>, s=<text>, g=<guid> or b=<base64>")),
    }
    // Namespace URIs are compared letter by letter (OPC 10000-3, 4.2).
    let text = format!("nsu={body}");
    Ok(Identifier::new(Scheme::OpcUa, text.clone(), text))
}
