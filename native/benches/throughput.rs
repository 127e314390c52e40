//! Readings a second through the core, on one thread and without Python: from the filter to the sealed block, and from
//! the block to Arrow. Prints one JSON object a line: name, value, unit, baseline, ratio, command (docs/benchmarks.md).
//!
//! Every round is `BLOCKS` blocks that follow each other, pushed to the same buffer, as an agent does; the first round, in
//! which the buffer knows nothing of its tags yet, is not counted. Of each block the best of all rounds counts: other load
//! can only make a figure worse.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // of what is made here
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // what is measured here is time, and printed

use std::hint::black_box;
use std::time::{Duration, Instant};

use _native::arrow;
use _native::block::{self, Meta};
use _native::buffer::Buffer;
use _native::decode::modbus::{Field, Order};
use _native::tag::{TagSpec, Value, ValueType};

const TAGS: usize = 62;
const SCANS: usize = 300;
/// Blocks in a round.
const BLOCKS: usize = 8;
/// Readings in a round.
const READINGS: usize = TAGS * SCANS * BLOCKS;
const BEGIN: i64 = 1_750_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;
/// Looks at every reading, and holds back about one in seventy: whose tag then has times of its own in the block.
const DEADBAND: &str = "deadband=0.001";
/// Rounds every reading, and lets all of them pass: times stay shared.
const GRID: &str = "grid=0.005";
const META: Meta = Meta { stream: [7; 16], sequence: 1, epoch: 1 << 63, sealed_ns: BEGIN, synchronized: true };
const LEAST: Duration = Duration::from_millis(700);
const COMMAND: &str = "cargo bench --bench throughput";

/// 64 well-mixed bits (splitmix64).
fn mix(seed: u64, index: u64) -> u64 {
    let mut x = seed.wrapping_mul(0xd1b5_4a32_d192_ed03).wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn noise(tag: usize, scan: usize) -> f64 {
    (mix(tag as u64, scan as u64) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
}

/// What a transmitter shows: a wave, a walk, a stroke or a level, noisy in its last digits, with one or two decimals.
fn value(tag: usize, scan: usize) -> f32 {
    let at = scan as f64 + 17.0 * tag as f64;
    let level = match tag % 4 {
        0 => 180.0 + 40.0 * (at / 60.0).sin() + 0.6 * noise(tag, scan),
        1 => 90.0 + 0.2 * (0..=scan).rev().take(40).map(|step| noise(tag, step)).sum::<f64>(),
        2 => (at % 90.0) * 6.0 + 0.2 * noise(tag, scan),
        _ => 12.5 + 3.0 * ((at / 50.0).floor() % 4.0) + 0.5 * noise(tag, scan),
    };
    let digits = if tag % 4 == 2 { 10.0 } else { 100.0 };
    ((level * digits).round() / digits) as f32
}

/// Late by about 18 ms, with a standard deviation of 3.
fn late(tag: usize, scan: usize) -> i64 {
    i64::from((mix(tag as u64 + 1000, scan as u64) >> 28).count_ones()) * MILLISECOND
}

/// The readings of one block, scan by scan.
struct Plant {
    /// A Modbus response for each scan.
    responses: Vec<(Vec<u8>, i64)>,
    /// Tag, time and value of every reading that has its own time.
    own: Vec<(u32, i64, f32)>,
}

impl Plant {
    fn new(block: usize) -> Self {
        let mut responses = Vec::new();
        let mut own = Vec::new();
        for scan in block * SCANS..(block + 1) * SCANS {
            let time_ns = BEGIN + scan as i64 * SECOND;
            let values: Vec<f32> = (0..TAGS).map(|tag| value(tag, scan)).collect();
            responses.push((values.iter().flat_map(|value| value.to_be_bytes()).collect(), time_ns));
            own.extend(values.iter().enumerate().map(|(tag, value)| (tag as u32, time_ns + late(tag, scan), *value)));
        }
        Self { responses, own }
    }

    /// Times as int64 and values as float32, a tag after the other, as memory has them: 12 bytes a reading.
    fn raw(&self, shared: bool) -> Vec<u8> {
        let mut raw = Vec::with_capacity(READINGS * 12);
        for tag in 0..TAGS {
            let mine = || self.own.iter().skip(tag).step_by(TAGS);
            let time = |at: (usize, &(u32, i64, f32))| if shared { self.responses[at.0].1 } else { at.1.1 };
            raw.extend(mine().enumerate().flat_map(|each| time(each).to_le_bytes()));
            raw.extend(mine().flat_map(|(_, _, value)| value.to_le_bytes()));
        }
        raw
    }
}

/// A buffer of the plant's tags, and the plan of its response.
fn open(filter: &str) -> (Buffer, usize) {
    let spec = TagSpec { raw: ValueType::Float32, scale: None, filter: filter.to_owned(), range: None };
    let mut buffer = Buffer::new(vec![spec; TAGS], 64 << 20).unwrap();
    let field = |tag| Field::plain(tag, tag as usize * 2, ValueType::Float32, Order::Abcd);
    let plan = buffer.modbus_plan((0..TAGS as u32).map(field).collect(), false).unwrap();
    (buffer, plan)
}

fn push(buffer: &mut Buffer, plan: usize, plant: &Plant, shared: bool) {
    if shared {
        for (response, time_ns) in &plant.responses {
            buffer.push_registers(plan, response, *time_ns).unwrap();
        }
    } else {
        for (tag, time_ns, value) in &plant.own {
            buffer.push(*tag, *time_ns, Value::Real32(*value), 0).unwrap();
        }
    }
}

/// Readings a second of what says how long it took for a block, by its number: of each the best of many rounds.
fn best(mut measured: impl FnMut(usize) -> Duration) -> f64 {
    for block in 0..BLOCKS {
        measured(block);
    }
    let (begin, mut best) = (Instant::now(), [Duration::MAX; BLOCKS]);
    while begin.elapsed() < LEAST {
        for (block, best) in best.iter_mut().enumerate() {
            *best = measured(block).min(*best);
        }
    }
    READINGS as f64 / best.iter().sum::<Duration>().as_secs_f64()
}

/// Readings a second of what is called.
fn rate<T>(mut work: impl FnMut(usize) -> T) -> f64 {
    best(|block| {
        let start = Instant::now();
        black_box(work(block));
        start.elapsed()
    })
}

/// Four digits: more would be noise.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap()
}

fn print(name: &str, value: f64, baselines: &[(&str, f64)]) {
    for (baseline, other) in baselines {
        let (value, ratio) = (short(value), short(value / other));
        println!(
            "{{\"name\":\"{name}\",\"value\":{value},\"unit\":\"readings/s\",\"baseline\":\"{baseline}\",\
             \"ratio\":{ratio},\"command\":\"{COMMAND}\"}}"
        );
    }
}

fn measure(blocks: &[Plant], shared: bool) {
    let times = if shared { "shared times" } else { "own times" };
    let raw: Vec<Vec<u8>> = blocks.iter().map(|block| block.raw(shared)).collect();
    let size = raw[0].len();
    let mut copied = vec![0; size];
    let copy = rate(|at| black_box(&mut copied).copy_from_slice(black_box(&raw[at])));
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    let packed: Vec<Vec<u8>> = raw.iter().map(|raw| compressor.compress(raw).unwrap()).collect();
    let pack = rate(|at| compressor.compress(&raw[at]).unwrap());
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    let unpack = rate(|at| decompressor.decompress(&packed[at], size).unwrap());
    let encoding = [("memcpy of the raw columns", copy), ("zstd-3 of the raw columns", pack)];
    let decoding = [("memcpy of the raw columns", copy), ("zstd-3 of the raw columns, back", unpack)];

    let mut sealed = vec![Vec::new(); BLOCKS];
    for (rule, said) in [(GRID, "grid"), (DEADBAND, "deadband"), ("", "no filter")] {
        let (mut buffer, plan) = open(rule);
        let whole = rate(|at| {
            push(&mut buffer, plan, &blocks[at], shared);
            buffer.take().unwrap().encode(&META)
        });
        print(&format!("core: readings to sealed block, {said}, {times}"), whole, &encoding);
    }
    let (mut buffer, plan) = open("");
    let sealing = best(|at| {
        push(&mut buffer, plan, &blocks[at], shared);
        let start = Instant::now();
        sealed[at] = buffer.take().unwrap().encode(&META);
        start.elapsed()
    });
    print(&format!("core: seal alone, {times}"), sealing, &encoding);
    let arrow = rate(|at| arrow::batch(&block::decode(&sealed[at]).unwrap().1).unwrap());
    print(&format!("core: decode to Arrow, {times}"), arrow, &decoding);
    let columns = rate(|at| block::decode(&sealed[at]).unwrap());
    print(&format!("core: decode to columns, {times}"), columns, &decoding);
}

fn main() {
    let blocks: Vec<Plant> = (0..BLOCKS).map(Plant::new).collect();
    measure(&blocks, true);
    measure(&blocks, false);
}
