//! Modbus response bytes to values (MODBUS Application Protocol V1.1b3, 6.1 to 6.4).
//!
//! A value wider than a register lies in consecutive ones; devices disagree on how. With A the most significant byte,
//! the four orders in use are named by how a four-byte value lies on the wire.

use super::form::Form;
use crate::error::{Error, Result};
use crate::tag::{BAD_DECODING_ERROR, BAD_SENSOR_FAILURE, Value, ValueType};

/// How the bytes of a value lie in its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Most significant byte first.
    Abcd,
    /// Least significant byte first.
    Dcba,
    /// Registers in order, the bytes of each swapped.
    Badc,
    /// Registers reversed, the bytes of each in order.
    Cdab,
}

impl Order {
    /// The order of a name such as `CDAB`.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "ABCD" => Ok(Self::Abcd),
            "DCBA" => Ok(Self::Dcba),
            "BADC" => Ok(Self::Badc),
            "CDAB" => Ok(Self::Cdab),
            _ => Err(Error::Spec(format!("no byte order {name:?}; there are ABCD, DCBA, BADC, CDAB"))),
        }
    }

    fn swaps_bytes(self) -> bool {
        matches!(self, Self::Dcba | Self::Badc)
    }

    /// The number that `bytes` (2, 4, 6 or 8, as they came) spell in this order.
    fn number<const N: usize>(self, bytes: &[u8; N]) -> u64 {
        let came = bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        let swapped = if self.swaps_bytes() {
            (came & 0x00ff_00ff_00ff_00ff) << 8 | came >> 8 & 0x00ff_00ff_00ff_00ff
        } else {
            came
        };
        match self {
            Self::Abcd | Self::Badc => swapped,
            Self::Dcba | Self::Cdab => {
                let pairs = swapped.rotate_left(32);
                ((pairs & 0x0000_ffff_0000_ffff) << 16 | pairs >> 16 & 0x0000_ffff_0000_ffff) >> (64 - 8 * N)
            }
        }
    }
}

/// Where one tag lies in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The tag's index.
    pub tag: u32,
    /// Registers (or bits) from the start of the response.
    pub at: usize,
    /// What its readings are, before scaling.
    pub kind: ValueType,
    /// How the device encodes it.
    pub form: Form,
    /// How it lies there.
    pub order: Order,
    /// Which bit of the register a bool is; `None`: whether the register is not 0.
    pub bit: Option<u8>,
    /// Whether an 8-bit value is the register's high byte (the first on the wire).
    pub high: bool,
    /// Bytes of a string.
    pub length: usize,
    /// Bit patterns by which the device says that it has no value.
    pub invalid: Vec<u64>,
    /// Whether every NaN says so, too.
    pub nan: bool,
}

impl Field {
    /// A field of a plain type without any option.
    pub fn plain(tag: u32, at: usize, kind: ValueType, order: Order) -> Self {
        let (form, bit, high, length, invalid, nan) = (Form::Plain, None, false, 0, Vec::new(), false);
        Self { tag, at, kind, form, order, bit, high, length, invalid, nan }
    }

    /// Registers that it takes; 0 for a string without a length.
    fn words(&self) -> usize {
        match self.kind {
            ValueType::Text => self.length.div_ceil(2),
            kind => self.form.width(kind) / 2,
        }
    }

    /// Whether the bytes of its registers are its value, and nothing more is to be asked.
    fn runs(&self) -> bool {
        self.form == Form::Plain
            && self.invalid.is_empty()
            && !self.nan
            && matches!(
                self.kind,
                ValueType::Int16
                    | ValueType::UInt16
                    | ValueType::Int32
                    | ValueType::UInt32
                    | ValueType::Float32
                    | ValueType::Float64
            )
    }

    /// The field's value at the start of `bytes`, or the StatusCode of what is none.
    fn value<'a>(&self, bytes: &[u8], text: &'a mut Vec<u8>) -> Decoded<'a> {
        match self.kind {
            ValueType::Bool => {
                let word = bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)).ok_or(BAD_DECODING_ERROR)?;
                return Ok(Value::Bool(self.bit.map_or(word != 0, |bit| word >> bit & 1 == 1)));
            }
            ValueType::Text => return self.text(bytes, text).ok_or(BAD_DECODING_ERROR),
            _ if matches!(self.form, Form::Fields | Form::FieldsMs) => {
                let swap = |word: u16| if self.order.swaps_bytes() { word.swap_bytes() } else { word };
                let mut words = [0; 7];
                let (pairs, _) = bytes.as_chunks::<2>();
                for (word, pair) in words.iter_mut().zip(pairs) {
                    *word = swap(u16::from_be_bytes(*pair));
                }
                return Form::fields(words.get(..self.words()).unwrap_or_default());
            }
            _ => {}
        }
        let raw = self.number(bytes).ok_or(BAD_DECODING_ERROR)?;
        if self.invalid.contains(&raw) {
            return Err(BAD_SENSOR_FAILURE);
        }
        let value = self.form.value(self.kind, raw)?;
        if self.nan && value.as_f64().is_some_and(f64::is_nan) {
            return Err(BAD_SENSOR_FAILURE);
        }
        Ok(value)
    }

    /// The bytes of its registers as one number, in its order.
    fn number(&self, bytes: &[u8]) -> Option<u64> {
        Some(match self.kind {
            // Which half of the register it is does not depend on an order.
            ValueType::Int8 | ValueType::UInt8 => u64::from(*bytes.get(usize::from(!self.high))?),
            kind => match self.form.width(kind) {
                2 => self.order.number::<2>(bytes.first_chunk()?),
                4 => self.order.number::<4>(bytes.first_chunk()?),
                6 => self.order.number::<6>(bytes.first_chunk()?),
                _ => self.order.number::<8>(bytes.first_chunk()?),
            },
        })
    }

    /// A string up to its first NUL; `None` where it is not UTF-8.
    fn text<'a>(&self, bytes: &[u8], text: &'a mut Vec<u8>) -> Option<Value<'a>> {
        text.clear();
        let swap = usize::from(self.order.swaps_bytes());
        for i in 0..self.length {
            match bytes.get(i ^ swap)? {
                0 => break,
                byte => text.push(*byte),
            }
        }
        Some(Value::Text(std::str::from_utf8(text).ok()?))
    }
}

/// One stretch of a response.
#[derive(Debug, Clone)]
enum Step {
    /// Touching values of one type and one order: a loop without a question.
    Run { at: usize, kind: ValueType, order: Order, tags: Vec<u32> },
    /// Any other field.
    One(Field),
    /// A coil or a discrete input.
    Bit { at: usize, tag: u32 },
}

/// A value, or the StatusCode of what is none.
pub type Decoded<'a> = std::result::Result<Value<'a>, u32>;

/// Who gets the values of a response. (A trait, for a closure can't be told to be inlined.)
pub trait Take {
    /// Takes the next tag's.
    fn take(&mut self, tag: u32, value: Decoded<'_>);
}

struct Each<F>(F);

impl<F: FnMut(u32, Decoded<'_>)> Take for Each<F> {
    fn take(&mut self, tag: u32, value: Decoded<'_>) {
        self.0(tag, value);
    }
}

/// All fields of one request, checked once so that decoding a response can't fail on any of them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The fields in the order of the request.
    steps: Vec<Step>,
    expected: usize,
}

/// The most registers of one request (V1.1b3, 6.3).
const MAX_REGISTERS: usize = 125;
/// The most bits of one request (V1.1b3, 6.1).
const MAX_BITS: usize = 2000;

impl Plan {
    /// A plan for responses that hold `fields`, of registers or of bits.
    pub fn new(fields: Vec<Field>, bits: bool) -> Result<Self> {
        let most = if bits { MAX_BITS } else { MAX_REGISTERS };
        let mut count = 0;
        let mut steps = Vec::new();
        let mut end = usize::MAX;
        for field in fields {
            let words = if bits { 1 } else { field.words() };
            if bits && field.kind != ValueType::Bool {
                return Err(Error::Spec(format!(
                    "tag {}: a coil or discrete input is a bool, not {}",
                    field.tag,
                    field.kind.name()
                )));
            }
            if field.kind.is_opaque() && field.kind != ValueType::Text {
                return Err(Error::Spec(format!("tag {}: registers can't hold {}", field.tag, field.kind.name())));
            }
            if words == 0 {
                return Err(Error::Spec(format!("tag {}: a string needs a length; write string[20]", field.tag)));
            }
            if field.bit.is_some_and(|bit| bit > 15) {
                return Err(Error::Spec(format!("tag {}: a register has bits 0 to 15", field.tag)));
            }
            let start = std::mem::replace(&mut end, field.at.saturating_add(words));
            count = count.max(end);
            match steps.last_mut() {
                Some(Step::Run { kind, order, tags, .. })
                    if start == field.at && field.runs() && *kind == field.kind && *order == field.order =>
                {
                    tags.push(field.tag);
                }
                _ if bits => steps.push(Step::Bit { at: field.at, tag: field.tag }),
                _ if field.runs() => {
                    let Field { at, kind, order, tag, .. } = field;
                    steps.push(Step::Run { at, kind, order, tags: vec![tag] });
                }
                _ => steps.push(Step::One(field)),
            }
        }
        if count == 0 || count > most {
            return Err(Error::Spec(format!("a request of {count}; at least 1 and at most {most}")));
        }
        // A device answers whole bytes of bits, and whole registers.
        Ok(Self { steps, expected: if bits { count.div_ceil(8) } else { count * 2 } })
    }

    /// The bytes that a response must have.
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// Decodes one response, giving `take` every field's value, or the StatusCode of one that is none. Nothing is given
    /// where the length is wrong.
    pub fn decode(&self, payload: &[u8], take: impl FnMut(u32, Decoded<'_>)) -> Result<()> {
        self.decode_to(payload, &mut Each(take))
    }

    /// The same, for who takes more than a few.
    pub fn decode_to(&self, payload: &[u8], take: &mut impl Take) -> Result<()> {
        if payload.len() != self.expected {
            return Err(Error::Length { expected: self.expected, found: payload.len() });
        }
        let mut text = Vec::new();
        let from = |at: usize| payload.get(at * 2..).unwrap_or_default();
        for step in &self.steps {
            match step {
                Step::Run { at, kind, order, tags } => run(from(*at), *kind, *order, tags, take),
                Step::One(field) => take.take(field.tag, field.value(from(field.at), &mut text)),
                Step::Bit { at, tag } => {
                    let on = payload.get(at / 8).map(|byte| Value::Bool(byte >> (at % 8) & 1 == 1));
                    take.take(*tag, on.ok_or(BAD_DECODING_ERROR));
                }
            }
        }
        Ok(())
    }
}

fn run(bytes: &[u8], kind: ValueType, order: Order, tags: &[u32], take: &mut impl Take) {
    match kind {
        ValueType::Int16 => each::<2>(bytes, order, tags, take, |raw| Value::Integer(i64::from(raw as i16))),
        ValueType::UInt16 => each::<2>(bytes, order, tags, take, Value::Unsigned),
        ValueType::Int32 => each::<4>(bytes, order, tags, take, |raw| Value::Integer(i64::from(raw as i32))),
        ValueType::UInt32 => each::<4>(bytes, order, tags, take, Value::Unsigned),
        ValueType::Float32 => each::<4>(bytes, order, tags, take, |raw| Value::Real32(f32::from_bits(raw as u32))),
        _ => each::<8>(bytes, order, tags, take, |raw| Value::Real64(f64::from_bits(raw))),
    }
}

fn each<const N: usize>(
    bytes: &[u8],
    order: Order,
    tags: &[u32],
    take: &mut impl Take,
    value: impl Fn(u64) -> Value<'static>,
) {
    let (values, _) = bytes.as_chunks::<N>();
    for (tag, bytes) in tags.iter().zip(values) {
        take.take(*tag, Ok(value(order.number(bytes))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: ValueType, order: Order, payload: &[u8]) -> String {
        let length = if kind == ValueType::Text { payload.len() } else { 0 };
        let plan = Plan::new(vec![Field { length, ..Field::plain(0, 0, kind, order) }], false).unwrap();
        let mut found = String::new();
        plan.decode(payload, |_, value| found = format!("{value:?}")).unwrap();
        found
    }

    #[test]
    fn four_bytes_in_four_orders() {
        // 0x42F6E979 is 123.456 as float32 (IEEE 754).
        for (order, bytes) in [
            (Order::Abcd, [0x42, 0xF6, 0xE9, 0x79]),
            (Order::Dcba, [0x79, 0xE9, 0xF6, 0x42]),
            (Order::Badc, [0xF6, 0x42, 0x79, 0xE9]),
            (Order::Cdab, [0xE9, 0x79, 0x42, 0xF6]),
        ] {
            assert_eq!(one(ValueType::Float32, order, &bytes), "Ok(Real32(123.456))");
            assert_eq!(one(ValueType::UInt32, order, &bytes), format!("Ok(Unsigned({}))", 0x42F6_E979));
        }
    }

    #[test]
    fn eight_bytes_in_four_orders() {
        for (order, bytes) in [
            (Order::Abcd, [1, 2, 3, 4, 5, 6, 7, 8]),
            (Order::Dcba, [8, 7, 6, 5, 4, 3, 2, 1]),
            (Order::Badc, [2, 1, 4, 3, 6, 5, 8, 7]),
            (Order::Cdab, [7, 8, 5, 6, 3, 4, 1, 2]),
        ] {
            assert_eq!(one(ValueType::UInt64, order, &bytes), format!("Ok(Unsigned({}))", 0x0102_0304_0506_0708_u64));
        }
    }

    #[test]
    fn narrow_types_and_text() {
        assert_eq!(one(ValueType::Int8, Order::Abcd, &[0xff, 0x80]), "Ok(Integer(-128))");
        assert_eq!(one(ValueType::Int16, Order::Badc, &[0xfe, 0xff]), "Ok(Integer(-2))");
        assert_eq!(one(ValueType::Text, Order::Abcd, b"ab\0d"), "Ok(Text(\"ab\"))");
        assert_eq!(one(ValueType::Text, Order::Badc, b"ba\0c"), "Ok(Text(\"abc\"))");
        assert_eq!(one(ValueType::Text, Order::Abcd, &[0xff, 0xfe]), format!("Err({BAD_DECODING_ERROR})"));
    }

    #[test]
    fn bits_of_registers_and_coils() {
        let field = |at, bit| Field { bit, ..Field::plain(0, at, ValueType::Bool, Order::Abcd) };
        let mut seen = Vec::new();
        let registers = Plan::new(vec![field(0, Some(3)), field(0, Some(4)), field(1, None)], false).unwrap();
        registers.decode(&[0, 8, 1, 0], |_, value| seen.push(value == Ok(Value::Bool(true)))).unwrap();
        let coils = Plan::new(vec![field(0, None), field(9, None)], true).unwrap();
        coils.decode(&[0, 2], |_, value| seen.push(value == Ok(Value::Bool(true)))).unwrap();
        assert_eq!(seen, [true, false, true, false, true]);
        assert_eq!(
            coils.decode(&[0], |_, _| panic!("nothing may be taken")),
            Err(Error::Length { expected: 2, found: 1 })
        );
    }
}
