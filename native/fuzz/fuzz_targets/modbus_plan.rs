//! Any fields and any response: a plan that was made decodes every response of its length, and refuses every other.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use _native::block::{self, Meta};
use _native::buffer::Buffer;
use _native::decode::form::Form;
use _native::decode::modbus::{Field, Order, Plan};
use _native::error::Error;
use _native::tag::{Scale, TagSpec};

#[derive(Arbitrary, Debug)]
struct Asked {
    tag: u8,
    at: u16,
    order: u8,
    bit: Option<u8>,
    length: u8,
    form: u8,
    invalid: Option<u64>,
}

#[derive(Arbitrary, Debug)]
struct Request {
    fields: Vec<Asked>,
    bits: bool,
    time_ns: i64,
    payload: Vec<u8>,
}

const META: Meta = Meta { stream: [7; 16], sequence: 1, epoch: 2, sealed_ns: 3, synchronized: true };
const FORMS: [&str; 13] = [
    "",
    "float16",
    "bcd16",
    "bcd32",
    "bcd64",
    "datetime[unix32]",
    "datetime[unix64]",
    "datetime[unix64ms]",
    "datetime[cp56]",
    "datetime[ymdhms]",
    "datetime[ymdhmsms]",
    "datetime[bcd]",
    "datetime[s7]",
];
const ORDERS: [Order; 4] = [Order::Abcd, Order::Dcba, Order::Badc, Order::Cdab];

fuzz_target!(|request: Request| {
    // Each type twice: as it is, and scaled.
    let tags: Vec<TagSpec> = [None, Some(Scale { factor: 0.1, offset: -40.0 })]
        .into_iter()
        .flat_map(|scale| {
            let kinds = fuzz::KINDS.into_iter().take(fuzz::OF_REGISTERS);
            kinds.map(move |raw| TagSpec { raw, scale, filter: String::new(), range: None })
        })
        .collect();
    let fields: Vec<Field> = request
        .fields
        .iter()
        .map(|asked| {
            let tag = if request.bits { 0 } else { usize::from(asked.tag) % tags.len() };
            // Two in three places are near: a field past the last register is refused, which is soon said.
            let at = usize::from(if asked.at % 3 == 0 { asked.at } else { asked.at % 130 });
            let order = ORDERS[usize::from(asked.order % 4)];
            let bit = asked.bit.map(|bit| bit % 18);
            let (kind, length) = (tags[tag].raw, usize::from(asked.length));
            let name = FORMS[usize::from(asked.form) % FORMS.len()];
            let form = Form::parse(name, kind).unwrap_or_default();
            let invalid = asked.invalid.into_iter().collect();
            let nan = asked.form & 0x80 != 0;
            Field { form, bit, high: nan, length, invalid, nan, ..Field::plain(tag as u32, at, kind, order) }
        })
        .collect();
    let Ok(plan) = Plan::new(fields.clone(), request.bits) else { return };
    let mut buffer = Buffer::new(tags, 1 << 20).unwrap();
    let number = buffer.modbus_plan(fields.clone(), request.bits).unwrap();
    let mut payload = request.payload;
    if let Err(wrong) = plan.decode(&payload, |_, _| {}) {
        let Error::Length { expected, found } = wrong else { panic!("{wrong}") };
        assert_ne!(expected, found);
        assert!(buffer.push_registers(number, &payload, request.time_ns).is_err());
        assert!(buffer.take().is_none(), "kept something of a response that was refused");
        payload.resize(expected, 0xa5);
    }
    let mut decoded = 0;
    plan.decode(&payload, |_, _| decoded += 1).unwrap();
    assert_eq!(decoded, fields.len());
    assert_eq!(buffer.push_registers(number, &payload, request.time_ns), Ok(fields.len()));
    if let Some(taken) = buffer.take() {
        let (header, _) = block::decode(&taken.encode(&META)).unwrap();
        assert_eq!(header.readings, fields.len() as u64);
    }
});
