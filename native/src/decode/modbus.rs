//! Modbus response bytes to values (MODBUS Application Protocol V1.1b3, 6.1 to 6.4).
//!
//! A value wider than a register lies in consecutive ones; devices disagree on how. With A the most significant byte,
//! the four orders in use are named by how a four-byte value lies on the wire.

use crate::error::{Error, Result};
use crate::tag::{Value, ValueType};

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

    fn reverses_registers(self) -> bool {
        matches!(self, Self::Dcba | Self::Cdab)
    }

    /// Where byte `i` of the big-endian value of `width` bytes is found.
    fn place(self, i: usize, width: usize) -> usize {
        let register = if self.reverses_registers() { width / 2 - 1 - i / 2 } else { i / 2 };
        register * 2 + if self.swaps_bytes() { 1 - i % 2 } else { i % 2 }
    }
}

/// Where one tag lies in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The tag's index.
    pub tag: u32,
    /// Registers (or bits) from the start of the response.
    pub at: usize,
    /// What lies there.
    pub kind: ValueType,
    /// How it lies there.
    pub order: Order,
    /// Which bit of the register a bool is; `None`: whether the register is not 0.
    pub bit: Option<u8>,
    /// Bytes of a string.
    pub length: usize,
}

/// All fields of one request, checked once so that decoding a response can't fail on any of them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The fields in the order of the request.
    pub fields: Vec<Field>,
    bits: bool,
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
        for field in &fields {
            let words = match field.kind {
                _ if bits => 1,
                ValueType::Text => field.length.div_ceil(2),
                kind => kind.width().div_ceil(2),
            };
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
            count = count.max(field.at.saturating_add(words));
        }
        if count == 0 || count > most {
            return Err(Error::Spec(format!("a request of {count}; at least 1 and at most {most}")));
        }
        // A device answers whole bytes of bits, and whole registers.
        Ok(Self { fields, bits, expected: if bits { count.div_ceil(8) } else { count * 2 } })
    }

    /// The bytes that a response must have.
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// Decodes one response, giving every field's value to `take`. Nothing is given where the length is wrong.
    pub fn decode(&self, payload: &[u8], mut take: impl FnMut(u32, Option<Value<'_>>)) -> Result<()> {
        if payload.len() != self.expected {
            return Err(Error::Length { expected: self.expected, found: payload.len() });
        }
        let mut text = Vec::new();
        for field in &self.fields {
            let value = if self.bits {
                bit(payload, field.at)
            } else {
                register(payload.get(field.at * 2..).unwrap_or_default(), field, &mut text)
            };
            take(field.tag, value);
        }
        Ok(())
    }
}

fn bit(payload: &[u8], at: usize) -> Option<Value<'_>> {
    payload.get(at / 8).map(|byte| Value::Bool(byte >> (at % 8) & 1 == 1))
}

/// A value at the start of `bytes`; `None` where it can't be one (text that is not UTF-8).
fn register<'a>(bytes: &'a [u8], field: &Field, text: &'a mut Vec<u8>) -> Option<Value<'a>> {
    Some(match field.kind {
        ValueType::Bool => {
            let word = u16::from_be_bytes(*bytes.first_chunk()?);
            Value::Bool(field.bit.map_or(word != 0, |bit| word >> bit & 1 == 1))
        }
        ValueType::Text => {
            text.clear();
            let swap = usize::from(field.order.swaps_bytes());
            for i in 0..field.length {
                match bytes.get(i ^ swap)? {
                    0 => break,
                    byte => text.push(*byte),
                }
            }
            Value::Text(std::str::from_utf8(text).ok()?)
        }
        ValueType::Int8 => Value::Integer(i64::from(big_endian::<2>(bytes, Order::Abcd)? as i8)),
        ValueType::UInt8 => Value::Unsigned(big_endian::<2>(bytes, Order::Abcd)? & 0xff),
        ValueType::Int16 => Value::Integer(i64::from(big_endian::<2>(bytes, field.order)? as i16)),
        ValueType::UInt16 => Value::Unsigned(big_endian::<2>(bytes, field.order)?),
        ValueType::Int32 => Value::Integer(i64::from(big_endian::<4>(bytes, field.order)? as i32)),
        ValueType::UInt32 => Value::Unsigned(big_endian::<4>(bytes, field.order)?),
        ValueType::Float32 => Value::Real32(f32::from_bits(big_endian::<4>(bytes, field.order)? as u32)),
        ValueType::Int64 => Value::Integer(big_endian::<8>(bytes, field.order)? as i64),
        ValueType::UInt64 => Value::Unsigned(big_endian::<8>(bytes, field.order)?),
        ValueType::Float64 => Value::Real64(f64::from_bits(big_endian::<8>(bytes, field.order)?)),
        _ => return None,
    })
}

fn big_endian<const N: usize>(bytes: &[u8], order: Order) -> Option<u64> {
    let bytes: &[u8; N] = bytes.first_chunk()?;
    (0..N).try_fold(0, |value, i| Some(value << 8 | u64::from(*bytes.get(order.place(i, N))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: ValueType, order: Order, payload: &[u8]) -> String {
        let length = if kind == ValueType::Text { payload.len() } else { 0 };
        let plan = Plan::new(vec![Field { tag: 0, at: 0, kind, order, bit: None, length }], false).unwrap();
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
            assert_eq!(one(ValueType::Float32, order, &bytes), "Some(Real32(123.456))");
            assert_eq!(one(ValueType::UInt32, order, &bytes), format!("Some(Unsigned({}))", 0x42F6_E979));
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
            assert_eq!(one(ValueType::UInt64, order, &bytes), format!("Some(Unsigned({}))", 0x0102_0304_0506_0708_u64));
        }
    }

    #[test]
    fn narrow_types_and_text() {
        assert_eq!(one(ValueType::Int8, Order::Abcd, &[0xff, 0x80]), "Some(Integer(-128))");
        assert_eq!(one(ValueType::Int16, Order::Badc, &[0xfe, 0xff]), "Some(Integer(-2))");
        assert_eq!(one(ValueType::Text, Order::Abcd, b"ab\0d"), "Some(Text(\"ab\"))");
        assert_eq!(one(ValueType::Text, Order::Badc, b"ba\0c"), "Some(Text(\"abc\"))");
        assert_eq!(one(ValueType::Text, Order::Abcd, &[0xff, 0xfe]), "None");
    }

    #[test]
    fn bits_of_registers_and_coils() {
        let field = |at, bit| Field { tag: 0, at, kind: ValueType::Bool, order: Order::Abcd, bit, length: 0 };
        let mut seen = Vec::new();
        let registers = Plan::new(vec![field(0, Some(3)), field(0, Some(4)), field(1, None)], false).unwrap();
        registers.decode(&[0, 8, 1, 0], |_, value| seen.push(value == Some(Value::Bool(true)))).unwrap();
        let coils = Plan::new(vec![field(0, None), field(9, None)], true).unwrap();
        coils.decode(&[0, 2], |_, value| seen.push(value == Some(Value::Bool(true)))).unwrap();
        assert_eq!(seen, [true, false, true, false, true]);
        assert_eq!(
            coils.decode(&[0], |_, _| panic!("nothing may be taken")),
            Err(Error::Length { expected: 2, found: 1 })
        );
    }
}
