//! Modbus responses against a naive reference, which lays values into registers by the words of the contract.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::decode::modbus::{Field, Order, Plan};
use _native::error::Error;
use _native::tag::ValueType;

use crate::cell::{Cell, Habit, KINDS, OF_REGISTERS};
use crate::columns::{cases, habit};

const ORDERS: [(Order, &str); 4] =
    [(Order::Abcd, "ABCD"), (Order::Dcba, "DCBA"), (Order::Badc, "BADC"), (Order::Cdab, "CDAB")];

/// A value's big-endian bytes.
fn big_endian(kind: ValueType, cell: &Cell) -> Vec<u8> {
    let wide = match cell {
        Cell::Integer(value) => value.to_be_bytes(),
        Cell::Unsigned(value) => value.to_be_bytes(),
        Cell::Real32(bits) => u64::from(*bits).to_be_bytes(),
        Cell::Real64(bits) => bits.to_be_bytes(),
        other => panic!("{other:?}"),
    };
    // An 8-bit value fills its register: sign-extended, or with 0.
    wide[8 - kind.width().max(2)..].to_vec()
}

/// The registers, as pairs of bytes, that a device of this order shows.
fn registers(kind: ValueType, order: &str, cell: &Cell) -> Vec<[u8; 2]> {
    let bytes = match cell {
        Cell::Bool(value) => vec![0, u8::from(*value)],
        Cell::Text(text) => [text.as_bytes(), &[0_u8][..text.len() % 2]].concat(),
        other => big_endian(kind, other),
    };
    let mut pairs: Vec<[u8; 2]> = bytes.chunks(2).map(|pair| [pair[0], pair[1]]).collect();
    let one_register = matches!(kind, ValueType::Bool | ValueType::Int8 | ValueType::UInt8);
    if (order == "BADC" || order == "DCBA") && !one_register {
        for pair in &mut pairs {
            pair.reverse();
        }
    }
    if (order == "CDAB" || order == "DCBA") && kind != ValueType::Text {
        pairs.reverse();
    }
    pairs
}

/// What a device shows of `cell`, decoded.
fn decoded(plan: &Plan, payload: &[u8]) -> Vec<(u32, Cell)> {
    let mut found = Vec::new();
    plan.decode(payload, |tag, value| found.push((tag, value.map_or(Cell::Absent, Cell::from)))).unwrap();
    found
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn every_type_in_every_order(
        tags in vec((0..OF_REGISTERS, 0..ORDERS.len(), habit(), any::<u64>(), 0_usize..3), 1..12),
    ) {
        let (mut fields, mut payload, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (tag, (kind, order, habit, random, skip)) in tags.into_iter().enumerate() {
            let (kind, (order, name)) = (KINDS[kind], ORDERS[order]);
            let cell = shown(habit, kind, random);
            let length = if let Cell::Text(text) = &cell { text.len() } else { 0 };
            payload.extend(std::iter::repeat_n(0x5a, skip * 2));
            fields.push(Field { length, ..Field::plain(tag as u32, payload.len() / 2, kind, order) });
            payload.extend(registers(kind, name, &cell).concat());
            expected.push((tag as u32, cell));
        }
        prop_assume!(payload.len() <= 250);
        let plan = Plan::new(fields, false).unwrap();
        prop_assert_eq!(plan.expected(), payload.len());
        prop_assert_eq!(decoded(&plan, &payload), expected);
    }

    #[test]
    fn touching_fields_decode_as_each_alone(
        kind in 0..OF_REGISTERS, order in 0..ORDERS.len(), payload in vec(any::<[u8; 8]>(), 1..15), marked in any::<u16>(),
    ) {
        let (kind, (order, _)) = (KINDS[kind], ORDERS[order]);
        prop_assume!(kind != ValueType::Text);
        let words = kind.width().div_ceil(2);
        // Now and then a field that has to be asked more: the run of its neighbours is broken there.
        let field = |at: usize| Field { nan: marked >> at & 1 == 1, ..Field::plain(at as u32, at * words, kind, order) };
        let fields: Vec<Field> = (0..payload.len()).map(field).collect();
        let bytes: Vec<u8> = payload.iter().flat_map(|value| value[..words * 2].to_vec()).collect();
        let together = Plan::new(fields.clone(), false).unwrap();
        let alone: Vec<(u32, Cell)> = fields
            .into_iter()
            .zip(bytes.chunks(words * 2))
            .flat_map(|(field, bytes)| decoded(&Plan::new(vec![Field { at: 0, ..field }], false).unwrap(), bytes))
            .collect();
        prop_assert_eq!(decoded(&together, &bytes), alone);
    }

    #[test]
    fn bits_of_registers(word in any::<u16>(), bit in 0_u8..16) {
        let field = |bit| Field { bit, ..Field::plain(0, 0, ValueType::Bool, Order::Abcd) };
        let plan = Plan::new(vec![field(Some(bit)), field(None)], false).unwrap();
        let expected = [(0, Cell::Bool(word >> bit & 1 == 1)), (0, Cell::Bool(word != 0))];
        prop_assert_eq!(decoded(&plan, &word.to_be_bytes()), expected);
    }

    #[test]
    fn coils(states in vec(any::<bool>(), 1..200)) {
        let mut payload = vec![0_u8; states.len().div_ceil(8)];
        states.iter().enumerate().for_each(|(at, on)| payload[at / 8] |= u8::from(*on) << (at % 8));
        let field = |at| Field::plain(at as u32, at, ValueType::Bool, Order::Abcd);
        let plan = Plan::new((0..states.len()).map(field).collect(), true).unwrap();
        let found: Vec<_> = decoded(&plan, &payload).into_iter().map(|(_, cell)| cell).collect();
        prop_assert_eq!(found, states.into_iter().map(Cell::Bool).collect::<Vec<_>>());
    }

    #[test]
    fn a_response_of_any_other_length_gives_nothing(payload in vec(any::<u8>(), 0..20)) {
        let field = Field::plain(0, 2, ValueType::Int32, Order::Cdab);
        let plan = Plan::new(vec![field], false).unwrap();
        let (mut given, found) = (0, payload.len());
        let result = plan.decode(&payload, |_, _| given += 1);
        prop_assert_eq!(given, usize::from(found == 8));
        prop_assert_eq!(result, if found == 8 { Ok(()) } else { Err(Error::Length { expected: 8, found }) });
    }
}

/// A value that a register can show: text ends at its first NUL and is never empty.
fn shown(habit: Habit, kind: ValueType, random: u64) -> Cell {
    match habit.cell(kind, 0, random) {
        Cell::Text(text) => Cell::Text(format!("#{}", text.replace('\0', ""))),
        other => other,
    }
}

#[test]
fn text_ends_at_its_first_nul_and_may_be_empty() {
    let field = Field { length: 6, ..Field::plain(0, 0, ValueType::Text, Order::Abcd) };
    let plan = Plan::new(vec![field], false).unwrap();
    assert_eq!(decoded(&plan, b"ab\0cde"), [(0, Cell::Text("ab".to_owned()))]);
    assert_eq!(decoded(&plan, &[0; 6]), [(0, Cell::Text(String::new()))]);
    assert_eq!(decoded(&plan, b"ab\xffcde"), [(0, Cell::Absent)], "not UTF-8");
}

#[test]
fn plans_that_no_device_could_answer_are_refused() {
    let field = |kind, at, bit, length| Field { bit, length, ..Field::plain(4, at, kind, Order::Abcd) };
    let refusal = |fields, bits| Plan::new(fields, bits).unwrap_err().to_string();
    assert_eq!(refusal(vec![], false), "a request of 0; at least 1 and at most 125");
    assert!(Plan::new(vec![field(ValueType::Float64, 121, None, 0)], false).is_ok());
    assert!(refusal(vec![field(ValueType::Float64, 122, None, 0)], false).contains("a request of 126"));
    assert!(refusal(vec![field(ValueType::Bool, 2000, None, 0)], true).contains("at most 2000"));
    assert!(refusal(vec![field(ValueType::Bool, usize::MAX, None, 0)], false).contains("at most 125"));
    assert!(refusal(vec![field(ValueType::Int8, 0, None, 0)], true).contains("tag 4: a coil or discrete input"));
    assert!(refusal(vec![field(ValueType::Text, 0, None, 0)], false).contains("write string[20]"));
    assert!(refusal(vec![field(ValueType::Bool, 0, Some(16), 0)], false).contains("bits 0 to 15"));
}
