//! Structures by their definition (OPC 10000-3, 8.48; OPC 10000-6, 5.2.6 to 5.2.8): those of their fields that are tags.

use super::cursor::{Cursor, Result};
use super::node_id::NodeId;
use super::scalar::{Scalar, id};
use super::variant::{Array, Content, Variant, element, least};
use crate::error::Error;

/// The most types that one structure is made of, and fields that one of them has.
const MOST: usize = 256;
/// Structures within structures.
const MOST_LEVELS: usize = 16;
/// Fields that are walked for one value, and for each of its bytes: types of no bytes could nest to any number.
const MOST_STEPS: usize = 4096;
const STEPS_A_BYTE: usize = 4;

/// How a structure says which of its fields are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All are.
    Plain,
    /// A mask has a bit for each optional one.
    Optional,
    /// A number says which one is, 0 for none.
    Union,
}

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A built-in type; an enumeration is an Int32.
    Builtin(u8),
    /// A structure: its place among the types, before that of the type which has the field.
    Structure(usize),
}

/// A field of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: Kind,
    /// Whether it is an array of that.
    pub array: bool,
    /// Whether it may be left out.
    pub optional: bool,
}

/// A type of structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// How it says what is there.
    pub form: Form,
    /// In their order on the wire.
    pub fields: Vec<Field>,
}

/// A node's structure, the last of its types, and the fields that are tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    types: Vec<Type>,
    /// The encoded NodeId of its binary encoding.
    encoding: Vec<u8>,
    wanted: Vec<(u32, Vec<usize>)>,
}

impl Structure {
    /// Refuses what can't be a structure, or has no bound: a type that has itself as a field.
    pub fn new(
        types: Vec<Type>,
        encoding: Vec<u8>,
        wanted: Vec<(u32, Vec<usize>)>,
    ) -> std::result::Result<Self, Error> {
        let refuse = |what: &str| Err(Error::Spec(format!("no structure: {what}")));
        if types.is_empty() || types.len() > MOST || types.iter().any(|each| each.fields.len() > MOST) {
            return refuse("no types, or too many, or with too many fields");
        }
        let mut levels: Vec<usize> = Vec::with_capacity(types.len());
        for kind in &types {
            let mut most = 0;
            for field in &kind.fields {
                match field.kind {
                    Kind::Builtin(1..=25) => {}
                    Kind::Builtin(_) => return refuse("a field of no built-in type"),
                    Kind::Structure(at) => match levels.get(at) {
                        Some(below) => most = most.max(*below),
                        None => return refuse("a field of a type that is not before its own"),
                    },
                }
            }
            if most >= MOST_LEVELS {
                return refuse("structures nested too deep");
            }
            levels.push(most + 1);
        }
        if NodeId::of(&encoding).is_none() {
            return refuse("its encoding has no NodeId");
        }
        let found = Self { types, encoding, wanted };
        if found.wanted.iter().any(|(_, path)| !found.has(path)) {
            return refuse("a path that leads to no field");
        }
        Ok(found)
    }

    /// The tags of its fields.
    pub fn tags(&self) -> impl Iterator<Item = u32> {
        self.wanted.iter().map(|(tag, _)| *tag)
    }

    fn has(&self, path: &[usize]) -> bool {
        let mut at = self.types.len().checked_sub(1);
        for (step, place) in path.iter().enumerate() {
            let field = at.and_then(|at| self.types.get(at)).and_then(|kind| kind.fields.get(*place));
            let Some(field) = field else { return false };
            at = match field.kind {
                Kind::Structure(at) if !field.array => Some(at),
                _ if step + 1 < path.len() => return false,
                _ => None,
            };
        }
        at.is_none() && !path.is_empty()
    }

    /// What the fields of an encoded Variant are, in the order of the tags; `None` where it is another structure, or
    /// can't be read. A field that is not there is null.
    pub fn read<'a>(&self, variant: &'a [u8]) -> Option<Vec<Content<'a>>> {
        let (kind, bytes) = variant.split_first()?;
        if *kind != id::EXTENSION_OBJECT {
            return None;
        }
        let mut from = Cursor::new(bytes);
        let encoding = NodeId::read(&mut from).ok()?;
        if Some(encoding) != NodeId::of(&self.encoding) || from.u8().ok()? != 1 {
            return None;
        }
        let length = from.count(1).ok()??;
        let mut body = from.part(length).ok()?;
        let mut found = vec![Content::Null; self.wanted.len()];
        let mut steps = MOST_STEPS + STEPS_A_BYTE * length;
        self.walk(self.types.len() - 1, &mut body, &mut Vec::new(), &mut found, &mut steps).ok()?;
        Some(found)
    }

    fn walk<'a>(
        &self,
        at: usize,
        from: &mut Cursor<'a>,
        path: &mut Vec<usize>,
        found: &mut [Content<'a>],
        steps: &mut usize,
    ) -> Result<()> {
        let Some(kind) = self.types.get(at) else { return Ok(()) };
        let switch = if kind.form == Form::Plain { 0 } else { from.u32()? };
        let mut optional = 0;
        for (place, field) in kind.fields.iter().enumerate() {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                return from.refuse("more fields than a structure may have");
            }
            let there = match kind.form {
                Form::Union => switch as usize == place + 1,
                Form::Optional if field.optional => {
                    optional += 1;
                    switch.checked_shr(optional - 1).is_some_and(|bits| bits & 1 == 1)
                }
                Form::Plain | Form::Optional => true,
            };
            if there {
                path.push(place);
                self.field(field, from, path, found, steps)?;
                path.pop();
            }
        }
        Ok(())
    }

    fn field<'a>(
        &self,
        field: &Field,
        from: &mut Cursor<'a>,
        path: &mut Vec<usize>,
        found: &mut [Content<'a>],
        steps: &mut usize,
    ) -> Result<()> {
        let content = match (field.kind, field.array) {
            (Kind::Structure(at), false) => return self.walk(at, from, path, found, steps),
            (Kind::Structure(at), true) => {
                let before = *from;
                let count = from.count(1)?.unwrap_or(0);
                for _ in 0..count {
                    let left = from.left();
                    self.walk(at, from, &mut Vec::new(), &mut [], steps)?;
                    if from.left() == left {
                        return before.refuse("an array of empty structures");
                    }
                }
                Content::Other(&[])
            }
            (Kind::Builtin(kind), true) => {
                let count = from.count(least(kind).max(1))?;
                let elements = *from;
                (0..count.unwrap_or(0)).try_for_each(|_| element(kind, from, 1))?;
                match count {
                    None => Content::Null,
                    Some(_) if kind > id::LOCALIZED_TEXT => Content::Other(&[]),
                    Some(count) => Content::Array(Array::of(kind, count, elements)),
                }
            }
            (Kind::Builtin(id::VARIANT), false) => Variant::read(from, 1)?.content(),
            (Kind::Builtin(kind), false) => {
                let before = *from;
                element(kind, from, 1)?;
                Scalar::of(kind, from.since(&before)).map_or(Content::Other(&[]), Content::Scalar)
            }
        };
        for ((_, wanted), found) in self.wanted.iter().zip(found) {
            if wanted == path {
                *found = content;
            }
        }
        Ok(())
    }
}
