//! Every codec by itself: what it writes, it reads; what it did not write, it refuses or reads as something harmless.

use proptest::collection::vec;
use proptest::prelude::*;

use _native::codec::run::{self, Runs};
use _native::codec::text;
use _native::codec::{Codec, Reader, Sink, Source, integer, put_signed, put_varint, real};
use _native::joined::{Blobs, Texts};
use _native::tag::ValueType;

use crate::cell::{Cell, KINDS};
use crate::columns::{cases, habit, mix, waves};

/// Every codec of this version.
fn codecs() -> Vec<Codec> {
    let found: Vec<Codec> = (0..=u8::MAX).filter_map(Codec::from_id).collect();
    assert_eq!(found.len(), 12);
    found
}

/// What `encode` wrote, being read; the length in front of an added codec's stream has been.
fn source(sink: &Sink, codec: Codec) -> Source<'_> {
    let mut soft = Reader::new(&sink.soft);
    if matches!(codec, Codec::Pco | Codec::Nudged) {
        assert_eq!(soft.varint(), Ok(sink.hard.len() as u64));
    }
    Source { heads: Reader::new(&sink.heads), soft, hard: Reader::new(&sink.hard) }
}

/// Encodes into a sink that already holds something, and decodes; nothing may be left over.
fn there_and_back<T>(encode: impl Fn(&mut Sink) -> Codec, decode: impl Fn(Codec, &mut Source<'_>) -> T) -> (Codec, T) {
    let mut before = Sink { heads: vec![1], soft: vec![2, 2], hard: vec![3, 3, 3], ..Sink::default() };
    let (mut sink, mark) = (Sink::default(), before.mark());
    let codec = encode(&mut sink);
    assert_eq!(encode(&mut before), codec);
    assert_eq!(before.since(mark), sink.since([0; 3]));
    assert_eq!(&before.soft[2..], sink.soft, "it does not matter what is there already");
    let mut source = source(&sink, codec);
    let found = decode(codec, &mut source);
    assert_eq!((source.heads.rest(), source.soft.rest(), source.hard.rest()), (&[][..], &[][..], &[][..]));
    (codec, found)
}

fn integers_back(values: &[i64], width: usize, signed: bool) -> (Codec, Vec<i64>) {
    there_and_back(
        |out| integer::encode(values, width, out),
        |codec, source| integer::decode(codec, source, values.len(), width, signed).unwrap(),
    )
}

fn reals_back<T: real::Real>(values: &[T]) -> (Codec, Vec<T>) {
    there_and_back(|out| real::encode(values, out), |codec, source| real::decode(codec, source, values.len()).unwrap())
}

fn bools_back(values: &[bool]) -> (Codec, Vec<bool>) {
    there_and_back(
        |out| run::encode_bools(values, &mut out.soft),
        |codec, source| run::decode_bools(codec, &mut source.soft, values.len()).unwrap(),
    )
}

fn texts_back(values: &Texts) -> (Codec, Texts) {
    there_and_back(
        |out| text::encode(values, out),
        |codec, source| text::decode(codec, source, values.len(), usize::MAX).unwrap(),
    )
}

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
        prop_assert_eq!(integers_back(&values, kind.width(), signed).1, values);
    }

    #[test]
    fn noisy_integers(
        start in any::<i64>(), step in -2_000_i64..2_000, noise in 0_u32..60, unit in 0_u32..10,
        held in 0_u64..4, seed in any::<u64>(), count in 0_i64..300,
    ) {
        let mut value = 0;
        let values: Vec<i64> = (0..count).map(|at| {
            let random = mix(seed, at as u64);
            if random % 5 >= held {
                value = start.wrapping_add(step.wrapping_mul(at)).wrapping_add((random >> 4 & ((1 << noise) - 1)) as i64);
            }
            value.wrapping_mul(10_i64.pow(unit))
        }).collect();
        prop_assert_eq!(integers_back(&values, 8, true).1, values);
    }

    #[test]
    fn singles(values in cells(ValueType::Float32)) {
        let (_, decoded) = reals_back(&values.iter().map(single).collect::<Vec<_>>());
        prop_assert_eq!(decoded.iter().map(|value| Cell::Real32(value.to_bits())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn doubles(values in cells(ValueType::Float64)) {
        let (_, decoded) = reals_back(&values.iter().map(double).collect::<Vec<_>>());
        prop_assert_eq!(decoded.iter().map(|value| Cell::Real64(value.to_bits())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn long_decimals(exponent in 0_i32..12, seed in any::<u64>(), bits in 1_u32..63, odd in 0_u64..200) {
        let value = |at: u64| {
            let random = mix(seed, at);
            if random % 200 < odd / 10 { f64::from_bits(random) } else { (random >> (64 - bits)) as f64 / 10_f64.powi(exponent) }
        };
        let values: Vec<f64> = (0..200).map(value).collect();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&reals_back(&values).1), bits(&values));
    }

    #[test]
    fn bools(values in prop_oneof![vec(any::<bool>(), 0..70), vec(prop::bool::weighted(0.02), 0..300)]) {
        prop_assert_eq!(bools_back(&values).1, values);
    }

    #[test]
    fn strings(values in cells(ValueType::Text)) {
        let (_, decoded) = texts_back(&texts(&values));
        prop_assert_eq!(decoded.iter().map(|text| Cell::Text(text.to_owned())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn byte_strings(values in cells(ValueType::Bytes)) {
        let mut blobs = Blobs::default();
        for cell in &values {
            if let Cell::Bytes(bytes) = cell { blobs.push(bytes) }
        }
        let (_, decoded) = there_and_back(
            |out| text::encode(&blobs, out),
            |codec, source| text::decode::<Vec<u8>>(codec, source, blobs.len(), usize::MAX).unwrap(),
        );
        prop_assert_eq!(decoded.iter().map(|bytes| Cell::Bytes(bytes.to_owned())).collect::<Vec<_>>(), values);
    }

    #[test]
    fn qualities(values in vec(prop_oneof![Just(0_u32), Just(0x8005_0000), any::<u32>()], 0..200)) {
        let mut runs = Runs::default();
        for value in &values {
            runs.push(*value);
        }
        let mut bytes = Vec::new();
        run::encode(&runs, &mut bytes);
        let mut reader = Reader::new(&bytes);
        let decoded = run::decode::<u32>(&mut reader, values.len()).unwrap();
        prop_assert!(reader.end().is_ok());
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
        codec in 0_usize..12,
        [heads, soft, hard] in prop::array::uniform3(vec(prop_oneof![any::<u8>(), 0_u8..10], 0..80)),
        count in 0_usize..100,
    ) {
        let codec = codecs()[codec];
        let all = Source { heads: Reader::new(&heads), soft: Reader::new(&soft), hard: Reader::new(&hard) };
        for (width, signed) in [(1, true), (2, false), (4, true), (8, false), (8, true)] {
            let found = integer::decode(codec, &mut all.clone(), count, width, signed);
            prop_assert!(found.is_err() || found.unwrap().len() == count);
        }
        let found = real::decode::<f32>(codec, &mut all.clone(), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = real::decode::<f64>(codec, &mut all.clone(), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = run::decode_bools(codec, &mut Reader::new(&soft), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = text::decode::<String>(codec, &mut all.clone(), count, 1000);
        prop_assert!(found.is_err() || found.as_ref().unwrap().iter().count() == count);
        let found = text::decode::<Vec<u8>>(codec, &mut all.clone(), count, 1000);
        prop_assert!(found.is_err() || found.as_ref().unwrap().iter().count() == count);
        let found = run::decode::<u8>(&mut Reader::new(&soft), count);
        prop_assert!(found.is_err() || found.unwrap().iter().count() == count);
    }

    #[test]
    fn nearly_decimals_come_back_to_the_bit(
        seed in any::<u64>(),
        factor in prop::sample::select(vec![0.1, 0.01, 0.3, -0.7, 1e-5, 1.1]),
        offset in prop::sample::select(vec![0.0, -0.1, 273.15, 1e9]),
        strange in vec((0_usize..120, any::<u64>()), 0..8),
    ) {
        let mut values = scaled(seed, 120, factor, offset);
        for (at, bits) in strange {
            values[at] = f64::from_bits(bits);
        }
        let (_, found) = reals_back(&values);
        prop_assert!(values.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
        // Some steps off, which a float32 of such a value often is from the nearest decimal.
        let single: Vec<f32> = values.iter().zip(0..).map(|(value, at)| {
            f32::from_bits((*value as f32).to_bits().wrapping_add(mix(seed, at) as u32 & 3))
        }).collect();
        let (_, found) = reals_back(&single);
        prop_assert!(single.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn a_damaged_nudged_stream_never_panics(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        count in prop_oneof![4 => Just(200_usize), 1 => 0_usize..4000],
        cut in 0_usize..3,
    ) {
        let mut sink = Sink::default();
        prop_assert_eq!(real::encode(&scaled(1, 200, 0.1, 0.0), &mut sink), Codec::Nudged);
        for (at, (place, byte)) in changes.into_iter().enumerate() {
            let end = if at % 2 == 0 { sink.hard.len() } else { 12 };
            sink.hard[place.index(end)] = byte;
        }
        sink.hard.truncate(sink.hard.len() - cut);
        let stream = || Source { heads: Reader::new(&[]), soft: Reader::new(&[]), hard: Reader::new(&sink.hard) };
        let found = real::decode::<f64>(Codec::Nudged, &mut stream(), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = real::decode::<f32>(Codec::Nudged, &mut stream(), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
    }

    #[test]
    fn a_damaged_pcodec_stream_never_panics(
        seed in any::<u64>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        count in prop_oneof![4 => Just(300_usize), 1 => 0_usize..4000],
    ) {
        let values = waves(seed);
        let mut sink = Sink::default();
        prop_assert_eq!(real::encode(&values, &mut sink), Codec::Pco);
        // The first bytes, where the numbers of bins and the sizes of tables are, as often as all others.
        for (at, (place, byte)) in changes.into_iter().enumerate() {
            let end = if at % 2 == 0 { sink.hard.len() } else { 40 };
            sink.hard[place.index(end)] = byte;
        }
        let found = real::decode::<f64>(Codec::Pco, &mut source(&sink, Codec::Pco), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
        let found = real::decode::<f32>(Codec::Pco, &mut source(&sink, Codec::Pco), count);
        prop_assert!(found.is_err() || found.unwrap().len() == count);
    }
}

/// Registers of a device, walking, as a tag's factor and offset turn them into readings.
fn scaled(seed: u64, count: u64, factor: f64, offset: f64) -> Vec<f64> {
    let mut raw = 0_i64;
    let mut next = |at| {
        raw += (mix(seed, at) % 41) as i64 - 20;
        raw as f64 * factor + offset
    };
    (0..count).map(&mut next).collect()
}

#[test]
fn a_factor_costs_little_more_than_the_registers() {
    for (factor, offset) in [(0.1, 0.0), (0.01, 0.0), (0.05, 0.0), (-0.1, 0.0), (0.1, -20.0), (0.001, 4.0)] {
        let values = scaled(3, 300, factor, offset);
        let mut sink = Sink::default();
        let codec = real::encode(&values, &mut sink);
        assert!(sink.since([0; 3]) * 10 < values.len() * 13, "{factor}, {offset}: {codec:?} {:?}", sink.mark());
        let (_, found) = reals_back(&values);
        assert!(values.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

/// The codec that a column of its kind of plant signal should get; the golden vectors have the bytes.
#[test]
fn each_codec_is_chosen_for_what_it_is_made_for() {
    let count = 0..200_i64;
    let noise = |at: i64| mix(1, at as u64) as i64;
    let integers = |values: &[i64], width| integers_back(values, width, true).0;
    assert_eq!(integers(&[9; 50], 4), Codec::Constant);
    assert_eq!(integers(&count.clone().map(|i| 5 + 3 * i).collect::<Vec<_>>(), 4), Codec::Step);
    let wave: Vec<i64> = count.clone().map(|i| (i * i * 7) % 90).collect();
    assert_eq!(integers(&count.clone().map(|i| [0, 40, 7, 90][i as usize % 4]).collect::<Vec<_>>(), 4), Codec::Delta);
    assert_eq!(integers(&count.clone().map(|i| noise(i) & 0x3ff).collect::<Vec<_>>(), 4), Codec::Rice);
    assert_eq!(integers(&count.clone().map(|i| noise(i / 50) >> 20).collect::<Vec<_>>(), 8), Codec::Run);
    assert_eq!(integers(&[-128, 127, -127, 126, -120], 1), Codec::Raw);
    let mut last = 0;
    let mut held = |i| {
        last = if noise(i) & 1 == 0 { last } else { noise(i) >> 40 };
        last
    };
    assert_eq!(integers(&count.clone().map(&mut held).collect::<Vec<_>>(), 4), Codec::Hold);
    let decimals: Vec<f32> = wave.iter().map(|value| *value as f32 / 10.0).collect();
    assert_eq!(reals_back(&decimals).0, Codec::Decimal);
    assert_eq!(reals_back(&[1.0_f64 / 3.0; 9]).0, Codec::Constant);
    assert_eq!(reals_back(&[1.0 / 3.0, 1.0 / 7.0, 1.0 / 9.0]).0, Codec::Raw);
    assert_eq!(reals_back(&waves(1)).0, Codec::Pco);
    assert_eq!(reals_back(&scaled(1, 200, 0.1, 0.0)).0, Codec::Nudged);
    assert_eq!(bools_back(&count.clone().map(|i| i % 3 == 0).collect::<Vec<_>>()).0, Codec::Bitmap);
    assert_eq!(bools_back(&count.map(|i| i > 100).collect::<Vec<_>>()).0, Codec::Run);
    let recipe = |name: &str| Cell::Text(name.to_owned());
    let names: Vec<Cell> = (0..50).map(|i| recipe(if i % 9 > 4 { "Träger links" } else { "Träger rechts" })).collect();
    assert_eq!(texts_back(&texts(&names)).0, Codec::Dictionary);
    assert_eq!(texts_back(&texts(&[recipe("a"), recipe("b")])).0, Codec::Raw);
}

/// Ten times fewer bytes than raw is why there are codecs at all.
#[test]
fn a_decimal_with_exceptions_is_still_a_decimal() {
    let values: Vec<f64> = (0..240)
        .map(|i| if i % 60 == 7 { [f64::NAN, -0.0, f64::INFINITY, 1.0 / 3.0][i / 60] } else { i as f64 / 8.0 })
        .collect();
    let mut sink = Sink::default();
    assert_eq!(real::encode(&values, &mut sink), Codec::Decimal);
    assert!(sink.since([0; 3]) < values.len() * 3);
    assert!(values.iter().zip(&reals_back(&values).1).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn strings_are_bounded_by_how_often_they_are_used() {
    let sink = Sink { soft: b"\x0a0123456789".to_vec(), ..Sink::default() };
    let read = |count| text::decode::<String>(Codec::Constant, &mut source(&sink, Codec::Constant), count, 100);
    assert!(read(10).is_ok());
    assert!(read(11).is_err());
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
