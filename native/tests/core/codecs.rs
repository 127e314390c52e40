//! Every codec by itself: what it writes, it reads; what it did not write, it refuses or reads as something harmless.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::codec::run::{self, Runs};
use _native::codec::text::{self, Texts};
use _native::codec::{Codec, Reader, integer, put_signed, put_varint, real};
use _native::tag::ValueType;

use crate::cell::{Cell, KINDS};
use crate::columns::{cases, habit, mix};

const CODECS: [Codec; 8] = [
    Codec::Constant,
    Codec::Raw,
    Codec::Decimal,
    Codec::Step,
    Codec::Delta,
    Codec::Run,
    Codec::Bitmap,
    Codec::Dictionary,
];

/// Values of a kind that look like a column's.
fn cells(kind: ValueType) -> impl Strategy<Value = Vec<Cell>> {
    (habit(), any::<u64>(), prop_oneof![0_usize..3, 0_usize..300]).prop_map(move |(habit, seed, count)| {
        (0..count).map(|index| habit.cell(kind, index, mix(seed, index as u64))).collect()
    })
}

fn whole(cell: &Cell) -> i64 {
    match cell {
        Cell::Integer(value) => *value,
        Cell::Unsigned(value) => *value as i64,
        other => panic!("{other:?} is no integer"),
    }
}

fn single(cell: &Cell) -> f32 {
    if let Cell::Real32(bits) = cell { f32::from_bits(*bits) } else { panic!("{cell:?}") }
}

fn double(cell: &Cell) -> f64 {
    if let Cell::Real64(bits) = cell { f64::from_bits(*bits) } else { panic!("{cell:?}") }
}

fn texts(values: &[Cell]) -> Texts {
    let mut texts = Texts::default();
    for cell in values {
        if let Cell::Text(text) = cell {
            texts.push(text);
        }
    }
    texts
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn integers((kind, values) in (1_usize..9).prop_flat_map(|kind| (Just(KINDS[kind]), cells(KINDS[kind])))) {
        let (values, signed) = (values.iter().map(whole).collect::<Vec<_>>(), kind.range().unwrap().0 < 0);
        let (codec, bytes) = integer::encode(&values, kind.width());
        prop_assert_eq!(integer::decode(codec, &bytes, values.len(), kind.width(), signed).unwrap(), values);
    }

    #[test]
    fn singles(values in cells(ValueType::Float32)) {
        let (codec, bytes) = real::encode(&values.iter().map(single).collect::<Vec<_>>());
        let decoded: Vec<f32> = real::decode(codec, &bytes, values.len()).unwrap();
        prop_assert_eq!(decoded.iter().map(|value| Cell::Real32(value.to_bits())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn doubles(values in cells(ValueType::Float64)) {
        let (codec, bytes) = real::encode(&values.iter().map(double).collect::<Vec<_>>());
        let decoded: Vec<f64> = real::decode(codec, &bytes, values.len()).unwrap();
        prop_assert_eq!(decoded.iter().map(|value| Cell::Real64(value.to_bits())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn bools(values in prop_oneof![vec(any::<bool>(), 0..70), vec(prop::bool::weighted(0.02), 0..300)]) {
        let (codec, bytes) = run::encode_bools(&values);
        prop_assert_eq!(run::decode_bools(codec, &bytes, values.len()).unwrap(), values);
    }

    #[test]
    fn strings(values in cells(ValueType::Text)) {
        let (codec, bytes) = text::encode(&texts(&values));
        let decoded = text::decode(codec, &bytes, values.len(), usize::MAX).unwrap();
        prop_assert_eq!(decoded.iter().map(|text| Cell::Text(text.to_owned())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn qualities(values in vec(prop_oneof![Just(0_u32), Just(0x8005_0000), any::<u32>()], 0..200)) {
        let mut runs = Runs::default();
        for value in &values {
            runs.push(*value);
        }
        let decoded = run::decode::<u32>(&run::encode(&runs), values.len()).unwrap();
        prop_assert_eq!(decoded.iter().collect::<Vec<_>>(), values);
    }

    #[test]
    fn varints(numbers in vec(prop_oneof![any::<u64>(), 0_u64..300, Just(u64::MAX)], 0..20)) {
        let mut bytes = Vec::new();
        for number in &numbers {
            put_varint(&mut bytes, *number);
            put_signed(&mut bytes, *number as i64);
        }
        let mut reader = Reader::new(&bytes);
        for number in &numbers {
            prop_assert_eq!(reader.varint().unwrap(), *number);
            prop_assert_eq!(reader.signed().unwrap(), *number as i64);
        }
        prop_assert!(reader.end().is_ok());
    }

    #[test]
    fn bytes_of_anybody_never_panic_a_decoder(
        codec in 0_usize..CODECS.len(),
        bytes in vec(prop_oneof![any::<u8>(), 0_u8..4], 0..80),
        count in 0_usize..100,
    ) {
        let codec = CODECS[codec];
        for (width, signed) in [(1, true), (2, false), (4, true), (8, false), (8, true)] {
            let found = integer::decode(codec, &bytes, count, width, signed);
            prop_assert!(found.is_err() || found.unwrap().len() == count);
        }
        let found = real::decode::<f32>(codec, &bytes, count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = real::decode::<f64>(codec, &bytes, count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = run::decode_bools(codec, &bytes, count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = text::decode(codec, &bytes, count, 1000);
        prop_assert!(found.is_err() || found.as_ref().unwrap().iter().count() == count);
        let found = run::decode::<u8>(&bytes, count);
        prop_assert!(found.is_err() || found.unwrap().iter().count() == count);
    }
}

/// The codec that a column of its kind of plant signal should get; the golden vectors have the bytes.
#[test]
fn each_codec_is_chosen_for_what_it_is_made_for() {
    let count = 0..200_i64;
    let wave: Vec<i64> = count.clone().map(|i| (i * i * 7) % 90).collect();
    let steps: Vec<i64> = count.clone().map(|i| 5 + 3 * i).collect();
    let states: Vec<i64> = count.clone().map(|i| i / 60 * 1000).collect();
    assert_eq!(integer::encode(&[9; 50], 4).0, Codec::Constant);
    assert_eq!(integer::encode(&steps, 4).0, Codec::Step);
    assert_eq!(integer::encode(&wave, 4).0, Codec::Delta);
    assert_eq!(integer::encode(&states, 4).0, Codec::Run);
    assert_eq!(integer::encode(&[-128, 127, -127, 126, -120], 1).0, Codec::Raw);
    let decimals: Vec<f32> = wave.iter().map(|value| *value as f32 / 10.0).collect();
    assert_eq!(real::encode(&decimals).0, Codec::Decimal);
    let thirds: Vec<f64> = count.clone().map(|i| i as f64 / 3.0).collect();
    assert_eq!(real::encode(&thirds).0, Codec::Raw);
    assert_eq!(run::encode_bools(&count.clone().map(|i| i % 3 == 0).collect::<Vec<_>>()).0, Codec::Bitmap);
    assert_eq!(run::encode_bools(&count.map(|i| i > 100).collect::<Vec<_>>()).0, Codec::Run);
    let recipe = |name: &str| Cell::Text(name.to_owned());
    let names: Vec<Cell> = (0..50).map(|i| recipe(if i % 9 > 4 { "Träger links" } else { "Träger rechts" })).collect();
    assert_eq!(text::encode(&texts(&names)).0, Codec::Dictionary);
    assert_eq!(text::encode(&texts(&[recipe("a"), recipe("b")])).0, Codec::Raw);
}

/// Ten times fewer bytes than raw is why there are codecs at all.
#[test]
fn a_decimal_with_exceptions_is_still_a_decimal() {
    let values: Vec<f64> = (0..240)
        .map(|i| if i % 60 == 7 { [f64::NAN, -0.0, f64::INFINITY, 1.0 / 3.0][i / 60] } else { i as f64 / 8.0 })
        .collect();
    let (codec, bytes) = real::encode(&values);
    assert_eq!(codec, Codec::Decimal);
    assert!(bytes.len() < values.len() * 3);
    let decoded: Vec<f64> = real::decode(codec, &bytes, values.len()).unwrap();
    assert!(values.iter().zip(&decoded).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn strings_are_bounded_by_how_often_they_are_used() {
    let bytes = b"0123456789";
    assert!(text::decode(Codec::Constant, bytes, 10, 100).is_ok());
    assert!(text::decode(Codec::Constant, bytes, 11, 100).is_err());
}

#[test]
fn a_varint_has_64_bits() {
    let mut largest = vec![0xff; 9];
    largest.push(1);
    assert_eq!(Reader::new(&largest).varint(), Ok(u64::MAX));
    largest[9] = 2;
    assert!(Reader::new(&largest).varint().is_err());
    assert!(Reader::new(&[0x80; 11]).varint().is_err());
    assert!(Reader::new(&[0x80]).varint().is_err());
}
