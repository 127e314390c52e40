//! GS1 keys (GS1 General Specifications; GS1 Digital Link: URI syntax 1.x): as element string `(01)09521234543213(21)12345`
//! or as a link under any domain. Both are the same identifier: the link under GS1's own domain.

use super::{Identifier, Read, Scheme, Wrong, percent};

/// What each primary key is: its application identifier, digits (0: up to 30 characters), and the qualifiers that may
/// follow, in this order.
const KEYS: [(&str, usize, &[&str]); 9] = [
    ("01", 14, &["22", "10", "21"]),
    ("00", 18, &[]),
    ("414", 13, &["254", "7040"]),
    ("417", 13, &["7040"]),
    ("253", 0, &[]),
    ("401", 0, &[]),
    ("8003", 0, &[]),
    ("8004", 0, &["7040"]),
    ("8006", 18, &["22", "10", "21"]),
];
const DOMAIN: &str = "https://id.gs1.org";
const FORM: &str = "write (01)<GTIN>(21)<serial>, or a GS1 Digital Link";
/// The most characters of a value without a fixed length.
const LONGEST: usize = 30;

type Key = &'static (&'static str, usize, &'static [&'static str]);

pub(super) fn read(raw: &str) -> Read<Identifier> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
        let close = rest.find(')').filter(|_| rest.starts_with('(')).ok_or_else(|| Wrong::new(at, FORM))?;
        let value = rest.get(close + 1..).unwrap_or_default();
        let end = next(value).unwrap_or(value.len());
        let (name, value) = (rest.get(1..close).unwrap_or_default(), value.get(..end).unwrap_or_default());
        parts.push((name.to_owned(), value.to_owned(), at + close + 1));
        at += close + 1 + end;
    }
    make(&parts)
}

/// Where the next application identifier begins: a value may have parentheses of its own.
fn next(value: &str) -> Option<usize> {
    value.match_indices('(').map(|(at, _)| at).find(|at| {
        let name = value.get(at + 1..).and_then(|rest| rest.split_once(')')).map_or("", |(name, _)| name);
        (2..=4).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A Digital Link; `None` where the URL has no GS1 key in its path: then it is some other link.
pub(super) fn read_link(raw: &str) -> Option<Read<Identifier>> {
    let start = raw.find("//")? + 2;
    let end = raw.find(['?', '#']).unwrap_or(raw.len());
    let mut at = start + raw.get(start..end)?.find('/')?;
    let mut words = Vec::new();
    for word in raw.get(at + 1..end)?.split('/') {
        words.push((word, at + 1));
        at += word.len() + 1;
    }
    // The primary key is the last pair of the path that can be one; what stands before it is the domain's own.
    let first = (0..words.len().saturating_sub(1)).rev().find(|i| {
        let pair = (words.get(*i), words.get(i + 1), (words.len() - i) % 2);
        matches!(pair, (Some((name, _)), Some((value, _)), 0)
            if key(name).is_some_and(|(_, digits, _)| *digits == 0 || fits(name, *digits, value)))
    })?;
    let mut parts = Vec::new();
    for pair in words.get(first..)?.chunks_exact(2) {
        let [(name, _), (value, place)] = pair else { return None };
        match unescape(value) {
            Some(value) => parts.push(((*name).to_owned(), value, *place)),
            None => return Some(Err(Wrong::new(*place, "% without two hexadecimal digits of UTF-8 after it"))),
        }
    }
    Some(make(&parts))
}

fn fits(name: &str, digits: usize, value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit())
        && (value.len() == digits || name == "01" && matches!(value.len(), 8 | 12 | 13))
}

fn key(name: &str) -> Option<Key> {
    KEYS.iter().find(|(known, ..)| *known == name)
}

fn make(parts: &[(String, String, usize)]) -> Read<Identifier> {
    let Some(((name, value, at), qualifiers)) = parts.split_first() else {
        return Err(Wrong::new(0, FORM));
    };
    let Some((name, digits, allowed)) = key(name) else {
        return Err(Wrong::new(at.saturating_sub(name.len() + 1), format!("({name}) is no key of GS1; {FORM}")));
    };
    let value = primary(name, *digits, value, *at)?;
    let pair = |name: &str, value: &str| format!("/{name}/{}", percent(value).replace('/', "%2F"));
    let mut text = format!("{DOMAIN}{}", pair(name, &value));
    let mut left = allowed.iter();
    for (name, value, at) in qualifiers {
        if !left.any(|known| known == name) {
            let message = format!("({name}) does not belong here; after it come {}, in this order", allowed.join(", "));
            return Err(Wrong::new(at.saturating_sub(name.len() + 1), message));
        }
        characters(value, *at)?;
        text += &pair(name, value);
    }
    Ok(Identifier::new(Scheme::Gs1, text.clone(), text))
}

/// The value of a primary key in its full length, with its check digit verified.
fn primary(name: &str, digits: usize, value: &str, at: usize) -> Read<String> {
    if digits == 0 {
        return characters(value, at).map(|()| value.to_owned());
    }
    if let Some(bad) = value.find(|c: char| !c.is_ascii_digit()) {
        return Err(Wrong::new(at + bad, format!("not a digit; ({name}) has {digits}")));
    }
    // GTIN-8, -12 and -13 are GTIN-14 with leading zeros.
    if !fits(name, digits, value) {
        return Err(Wrong::new(at, format!("{} digits; ({name}) has {digits}", value.len())));
    }
    // (8006) is a GTIN and the number of a piece of it: only the GTIN has a check digit.
    let checked = if name == "8006" { value.get(..14).unwrap_or_default() } else { value };
    let sum: u32 =
        checked.bytes().rev().zip([1, 3].iter().cycle()).map(|(byte, weight)| u32::from(byte - b'0') * weight).sum();
    if !sum.is_multiple_of(10) {
        let last = u32::from(checked.bytes().last().unwrap_or(b'0') - b'0');
        let right = (last + 10 - sum % 10) % 10;
        return Err(Wrong::new(at + checked.len() - 1, format!("a wrong check digit; it would be {right}")));
    }
    Ok(format!("{value:0>digits$}"))
}

/// The 82 characters of GS1 values (General Specifications, figure 7.11-1).
fn characters(value: &str, at: usize) -> Read<()> {
    if value.is_empty() || value.len() > LONGEST {
        return Err(Wrong::new(at, format!("{} characters; a value has 1 to {LONGEST}", value.len())));
    }
    match value.find(|c: char| !(c.is_ascii_alphanumeric() || "!\"%&'()*+,-./:;<=>?_".contains(c))) {
        Some(bad) => Err(Wrong::new(at + bad, "a character that no value of GS1 has")),
        None => Ok(()),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16));
            out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
