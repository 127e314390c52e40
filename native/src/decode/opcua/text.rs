//! What a Guid, a NodeId or a QualifiedName reads as (OPC 10000-6, 5.1.3, 5.1.12 and 5.2.2).

use std::fmt::Write as _;

use super::node_id::{Key, NodeId};
use crate::base64;

/// `72962b91-fa75-4ae6-8d28-b404dc7daf63`: three little-endian numbers, then bytes.
pub(super) fn put_guid(out: &mut String, guid: &[u8; 16]) {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    for (at, byte) in ORDER.iter().filter_map(|place| guid.get(*place)).enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        put(out, format_args!("{dash}{byte:02x}"));
    }
}

/// `2:name`, or `name` in OPC UA's own namespace; `None` where the name is not UTF-8.
pub(super) fn put_name(out: &mut String, namespace: u16, name: &[u8]) -> Option<()> {
    let name = std::str::from_utf8(name).ok()?;
    if namespace != 0 {
        put(out, format_args!("{namespace}:"));
    }
    out.push_str(name);
    Some(())
}

/// `svr=1;nsu=urn:x;s=name`, `ns=2;i=5`, `i=85`; `None` where a text in it is not UTF-8.
pub(super) fn put_node_id(out: &mut String, node: &NodeId<'_>) -> Option<()> {
    if node.server != 0 {
        put(out, format_args!("svr={};", node.server));
    }
    if let Some(uri) = node.uri {
        out.push_str("nsu=");
        for letter in std::str::from_utf8(uri).ok()?.chars() {
            match letter {
                ';' => out.push_str("%3B"),
                '%' => out.push_str("%25"),
                letter => out.push(letter),
            }
        }
        out.push(';');
    } else if node.namespace != 0 {
        put(out, format_args!("ns={};", node.namespace));
    }
    match node.key {
        Key::Numeric(number) => put(out, format_args!("i={number}")),
        Key::Text(text) => {
            out.push_str("s=");
            out.push_str(std::str::from_utf8(text).ok()?);
        }
        Key::Guid(guid) => {
            out.push_str("g=");
            put_guid(out, &guid);
        }
        Key::Opaque(bytes) => {
            out.push_str("b=");
            base64::put(out, bytes);
        }
    }
    Some(())
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text); // a String takes everything
}
