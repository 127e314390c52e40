//! Any readings through any filters: every one is accounted for, and those of a tag without a filter come back bit for
//! bit.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use _native::block::{self, Meta};
use _native::buffer::Buffer;
use _native::column::{Column, Values};
use _native::tag::{BAD_TYPE_MISMATCH, Scale, TagSpec, Value};
use _native::values::Items;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Given<'a> {
    Absent,
    Bool(bool),
    Integer(i64),
    Small(i16),
    Unsigned(u64),
    Real32(u32),
    Real64(u64),
    Decimal(i32),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Of as many elements, each by itself.
    Array(u8, u64),
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Push {
        tag: u8,
        after: i32,
        value: Given<'a>,
        quality: Option<u32>,
    },
    /// Times from anywhere, backward included.
    Jump(i64),
    Seal,
}

#[derive(Arbitrary, Debug)]
struct Asked<'a> {
    kind: u8,
    scaled: bool,
    filter: u8,
    bound: f64,
    words: &'a str,
}

#[derive(Arbitrary, Debug)]
struct Run<'a> {
    tags: Vec<Asked<'a>>,
    small: bool,
    steps: Vec<Step<'a>>,
}

const META: Meta = Meta { stream: [7; 16], sequence: 1, epoch: 2, sealed_ns: 3, synchronized: true };

impl Given<'_> {
    /// As a value of the tag's type where that is possible: the rest is mistyped, and should be rare.
    fn value<'a>(&'a self, spec: &TagSpec, elements: &'a Values) -> Value<'a> {
        let width = spec.raw.width() as u32 * 8;
        match (*self, Column::new(spec.raw).values) {
            (Self::Small(value), Values::Integer(_)) if width > 8 => Value::Integer(value.into()),
            (Self::Integer(value), Values::Integer(_)) => Value::Integer(value >> (64 - width)),
            (Self::Unsigned(value), Values::Unsigned(_)) => Value::Unsigned(value >> (64 - width)),
            (Self::Small(value), Values::Unsigned(_)) => Value::Unsigned(value as u64 & 0xff),
            (Self::Decimal(value), Values::Real32(_)) => Value::Real32((f64::from(value) / 100.0) as f32),
            (Self::Small(value), Values::Real32(_)) => Value::Real32(value.into()),
            (Self::Decimal(value), Values::Real64(_)) => Value::Real64(f64::from(value) / 100.0),
            (Self::Small(value), Values::Real64(_)) => Value::Real64(value.into()),
            (Self::Real32(bits), _) => Value::Real32(f32::from_bits(bits)),
            (Self::Real64(bits), _) => Value::Real64(f64::from_bits(bits)),
            (Self::Bool(value), _) => Value::Bool(value),
            (Self::Text(text), _) => Value::Text(text),
            (Self::Bytes(bytes), _) => Value::Bytes(bytes),
            (Self::Array(..), _) => Value::Array(Items::of(elements)),
            _ => Value::Absent,
        }
    }
}

impl Given<'_> {
    /// The elements of an array, of the type that the tag's has; of the tag's own type, where it is none.
    fn elements(&self, spec: &TagSpec) -> Values {
        let element = spec.raw.element().unwrap_or(spec.raw);
        let mut values = Values::new(element);
        let Self::Array(length, random) = *self else { return values };
        let plain = TagSpec { raw: element, ..spec.clone() };
        for at in 0..u32::from(length % 40) {
            let bits = random.rotate_left(at);
            let text = ["", "RUN", "\u{1f3ed}"][bits as usize % 3];
            let given = match values {
                Values::Bool(_) => Given::Bool(bits & 1 == 1),
                Values::Integer(_) => Given::Integer(bits as i64),
                Values::Unsigned(_) => Given::Unsigned(bits),
                Values::Real32(_) => Given::Real32(bits as u32),
                Values::Real64(_) => Given::Real64(bits),
                Values::Text(_) => Given::Text(text),
                _ => Given::Bytes(text.as_bytes()),
            };
            assert!(values.push(given.value(&plain, &Values::new(element))));
        }
        values
    }
}

/// Bit for bit: NaN equals itself, 0.0 differs from -0.0.
fn shown(value: Value<'_>) -> String {
    match value {
        Value::Real32(value) => format!("f{:x}", value.to_bits()),
        Value::Real64(value) => format!("d{:x}", value.to_bits()),
        Value::Array(items) => format!("{:?}", items.iter().map(shown).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}

type Rows = Vec<(u32, i64, String, u32)>;

/// Seals, decodes, compares the readings of the tags without a filter; returns how many there are in all.
fn seal(buffer: &mut Buffer, plain: &mut Rows, specs: &[TagSpec]) -> u64 {
    let Some(taken) = buffer.take() else {
        assert!(plain.is_empty());
        return 0;
    };
    let (header, columns) = block::decode(&taken.encode(&META)).unwrap();
    assert_eq!(header.readings, taken.readings() as u64);
    let mut found = Rows::new();
    for each in &columns {
        let column = each.column.as_ref().unwrap();
        if specs[each.tag as usize].filter.trim().is_empty() {
            found.extend(column.iter().map(|(time, value, quality)| (each.tag, time, shown(value), quality)));
        }
    }
    plain.sort_by_key(|(tag, ..)| *tag);
    assert_eq!(found, std::mem::take(plain));
    header.readings
}

fuzz_target!(|run: Run| {
    let mut specs = Vec::new();
    for asked in run.tags.iter().take(16) {
        let filter = match asked.filter % 12 {
            0 | 1 => String::new(),
            2 => "on_change".to_owned(),
            3 => "deadband=0.5".to_owned(),
            4 | 5 => format!("deadband={}", asked.bound),
            6 => format!("{}={}", asked.words, asked.bound),
            7 => format!("swinging_door={}", asked.bound),
            8 => format!("grid={}", asked.bound),
            9 => "deadband=2%".to_owned(),
            10 => format!("swinging_door={}; heartbeat=1s", asked.bound),
            _ => asked.words.to_owned(),
        };
        let spec = TagSpec {
            raw: fuzz::KINDS[usize::from(asked.kind) % fuzz::KINDS.len()],
            scale: asked.scaled.then_some(Scale { factor: 0.1, offset: -40.0 }),
            filter,
            range: Some((0.0, 100.0)),
        };
        if Buffer::new(vec![spec.clone()], 0).is_ok() {
            specs.push(spec);
        }
    }
    if specs.is_empty() {
        return;
    }
    let mut buffer = Buffer::new(specs.clone(), if run.small { 300 } else { 1 << 20 }).unwrap();
    let (mut time_ns, mut pushed, mut sealed, mut plain) = (1_700_000_000_000_000_000_i64, 0, 0, Rows::new());
    for step in &run.steps {
        match step {
            Step::Jump(to) => time_ns = *to,
            Step::Seal => sealed += seal(&mut buffer, &mut plain, &specs),
            Step::Push { tag, after, value, quality } => {
                let tag = usize::from(*tag) % specs.len();
                let (spec, quality) = (&specs[tag], quality.unwrap_or(0));
                time_ns = time_ns.wrapping_add(i64::from(*after) * 1000);
                let elements = value.elements(spec);
                let raw = value.value(spec, &elements);
                let refused = buffer.stats().refused;
                let kept = buffer.push(tag as u32, time_ns, raw, quality).unwrap();
                pushed += 1;
                if spec.filter.trim().is_empty() {
                    assert_eq!(kept, buffer.stats().refused == refused);
                    let mut one = Column::new(spec.reading_type());
                    one.push(time_ns, spec.apply(raw), quality);
                    let (time, value, quality) = one.iter().next().unwrap();
                    assert!(value != Value::Absent || raw == Value::Absent || quality == BAD_TYPE_MISMATCH);
                    if kept {
                        plain.push((tag as u32, time, shown(value), quality));
                    }
                }
            }
        }
    }
    sealed += seal(&mut buffer, &mut plain, &specs);
    let stats = buffer.stats();
    assert_eq!(stats.accepted + stats.refused, pushed);
    assert_eq!(stats.sealed_readings, sealed);
    assert!(sealed + stats.pending_readings <= stats.accepted, "a filter made readings up");
});
