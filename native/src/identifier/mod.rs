//! Industrial identifiers (标识): names that a resolver somewhere can turn into a record.
//!
//! One value object for every scheme in use: parsed once, compared by its key, shown in its canonical text. Nothing here
//! resolves; nothing guesses. `Identifier::parse(id.text())` gives an equal identifier, always.

mod did;
mod ecode;
mod gs1;
mod handle;
mod irdi;
mod link;
mod ma;
mod node;
mod oid;

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::error::{Error, Result};

/// The most bytes of an identifier: the limit of the Handle System's own client.
pub const MAX_BYTES: usize = 2048;

/// Who issues identifiers of this form, and so how they compare and resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Handle System, RFC 3650 to 3652: `88.118.8/press1.temp`.
    Handle,
    /// Object identifier, ITU-T X.660 and RFC 3061: `urn:oid:1.2.156.1`.
    Oid,
    /// Ecode, GB/T 31866: `ecode:` and version, numbering system and main code.
    Ecode,
    /// GS1 keys as element string or Digital Link URI.
    Gs1,
    /// International registration data identifier, ISO/IEC 11179-6: `0173-1#02-AAB325#008` (ECLASS, IEC CDD).
    Irdi,
    /// Decentralized identifier, W3C DID 1.0.
    Did,
    /// MA (`IDcode`), ISO/IEC 15459 issuing agency MA.
    Ma,
    /// Identification link, IEC 61406: a URL for one physical object.
    Link,
    /// A node of an OPC UA server by its namespace URI, OPC 10000-6, 5.3.1.10.
    OpcUa,
}

impl Scheme {
    /// Its name in catalogs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handle => "handle",
            Self::Oid => "oid",
            Self::Ecode => "ecode",
            Self::Gs1 => "gs1",
            Self::Irdi => "irdi",
            Self::Did => "did",
            Self::Ma => "ma",
            Self::Link => "link",
            Self::OpcUa => "opcua",
        }
    }
}

/// An identifier: equal to another where both name the same thing by the rules of their scheme.
#[derive(Debug, Clone)]
pub struct Identifier {
    scheme: Scheme,
    text: String,
    key: String,
    /// Bytes of `key` that say what it means and not in which version (IRDI).
    concept: usize,
}

impl Identifier {
    /// Reads any scheme. The error says what is wrong, at which character, and what to write.
    pub fn parse(raw: &str) -> Result<Self> {
        read(raw).map_err(|wrong| wrong.of(raw))
    }

    fn new(scheme: Scheme, text: String, key: String) -> Self {
        Self { scheme, concept: key.len(), text, key }
    }

    /// Its scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The canonical form: what people see, and what `parse` takes back.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is compared: two identifiers of one scheme are equal where their keys are.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key without its version: what two versions of one IRDI share. The key itself for every other scheme.
    pub fn concept(&self) -> &str {
        self.key.get(..self.concept).unwrap_or(&self.key)
    }

    /// The text as a path of a resolver's URL: percent-encoded UTF-8 (RFC 3986), with `/` left as it is.
    pub fn path(&self) -> String {
        // Servers of the Handle System do not know the prefix that only names the scheme.
        percent(self.text.strip_prefix("hdl:").unwrap_or(&self.text))
    }
}

impl PartialEq for Identifier {
    fn eq(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.key == other.key
    }
}

impl Eq for Identifier {}

impl Hash for Identifier {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scheme.hash(state);
        self.key.hash(state);
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong, and the byte of the text where it shows.
#[derive(Debug)]
struct Wrong {
    at: usize,
    what: String,
}

impl Wrong {
    fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }

    /// The same for a part that begins at byte `start` of the whole.
    fn after(self, start: usize) -> Self {
        Self { at: self.at + start, ..self }
    }

    fn of(self, raw: &str) -> Error {
        let at = raw.char_indices().take_while(|(byte, _)| *byte < self.at).count() + 1;
        Error::Identifier { at, what: self.what }
    }
}

type Read<T> = std::result::Result<T, Wrong>;

const FORMS: &str =
    "write a Handle such as 88.118.8/press1.temp, or urn:oid:, ecode:, gs1:, irdi:, ma:, did:, https:// or nsu=";

fn read(raw: &str) -> Read<Identifier> {
    if raw.len() > MAX_BYTES {
        return Err(Wrong::new(MAX_BYTES, format!("an identifier of {} bytes; at most {MAX_BYTES}", raw.len())));
    }
    if raw.is_empty() {
        return Err(Wrong::new(0, format!("an empty identifier; {FORMS}")));
    }
    if let Some((at, _)) = raw.char_indices().find(|(_, c)| c.is_control() || *c == '\u{feff}') {
        return Err(Wrong::new(at, "a control character; write printable characters only"));
    }
    if raw.starts_with(char::is_whitespace) || raw.ends_with(char::is_whitespace) {
        let at = if raw.starts_with(char::is_whitespace) { 0 } else { raw.trim_end().len() };
        return Err(Wrong::new(at, "a blank at its edge; take it away"));
    }
    let (start, parse) = other(raw).unwrap_or((0, handle::read));
    parse(raw.get(start..).unwrap_or_default()).map_err(|wrong| wrong.after(start))
}

type Parser = fn(&str) -> Read<Identifier>;

/// Who reads a text that does not look like a bare Handle, and the bytes in front that only name the scheme.
fn other(raw: &str) -> Option<(usize, Parser)> {
    // A scheme's prefix is taken off by exact match only: `hdl:` in front, never any of its letters.
    let named: [(&str, Parser); 7] = [
        ("hdl:", handle::read),
        ("urn:oid:", oid::read),
        ("oid:", oid::read),
        ("ecode:", ecode::read),
        ("gs1:", gs1::read),
        ("irdi:", irdi::read),
        ("ma:", ma::read),
    ];
    let whole: [(&str, Parser); 7] = [
        ("did:", did::read),
        ("https://", link::read),
        ("http://", link::read),
        ("nsu=", node::read),
        ("ns=", node::read),
        ("MA.", ma::read),
        ("(", gs1::read),
    ];
    let begins = |(prefix, _): &&(&str, Parser)| strip(raw, prefix).is_some();
    named
        .iter()
        .find(begins)
        .map(|(prefix, parse)| (prefix.len(), *parse))
        .or_else(|| whole.iter().find(begins).map(|(_, parse)| (0, *parse)))
        .or_else(|| irdi::looks_like(raw).then_some((0, irdi::read as Parser)))
        .or_else(|| oid::looks_like(raw).then_some((0, oid::read as Parser)))
}

/// What follows `prefix`, whose letters may be of either case.
fn strip<'a>(raw: &'a str, prefix: &str) -> Option<&'a str> {
    let head = raw.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| raw.get(prefix.len()..)).flatten()
}

/// Percent-encodes all but RFC 3986's unreserved characters and `/`.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte as char);
        } else {
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}
