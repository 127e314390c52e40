//! Signals of plants, random and real, for the tests of what is lossy.

use std::path::{Path, PathBuf};

use _native::tag::ValueType;

use crate::cell::Cell;
use crate::columns::{Row, mix};

const SECOND: i64 = 1_000_000_000;
const BEGIN: i64 = 1_750_000_000 * SECOND;
const BAD: u32 = 0x8005_0000;

/// A random number in -1.0..1.0, and one of `most` places.
struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    fn bits(&mut self) -> u64 {
        self.thrown += 1;
        mix(self.seed, self.thrown)
    }

    fn real(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    fn below(&mut self, most: u64) -> u64 {
        self.bits() % most
    }
}

/// One signal, and the bound that goes with its size.
pub(crate) struct Signal {
    pub(crate) seed: u64,
    pub(crate) kind: ValueType,
    pub(crate) rows: Vec<Row>,
    pub(crate) bound: f64,
    /// Nothing out of the ordinary in it, and no value on a raster: no decision is a tie.
    pub(crate) plain: bool,
}

/// Walks, steps, sines, constants, noise and ramps; small, around 1e11, or of the size of integers beyond 2^53; with NaN
/// bursts, infinities, absent values, changes of quality, equal, backward and jittering times in every other signal.
pub(crate) fn signal(seed: u64) -> Signal {
    let mut dice = Dice { seed, thrown: 0 };
    let shape = dice.below(6);
    let plain = seed.is_multiple_of(2);
    let kind = if plain {
        ValueType::Float64
    } else {
        [ValueType::Float64, ValueType::Float32, ValueType::Int16, ValueType::Int64, ValueType::UInt64]
            [dice.below(5) as usize]
    };
    let (middle, size) = match (kind, dice.below(3)) {
        (ValueType::Int16, _) => (0.0, 3000.0),
        (ValueType::Int64 | ValueType::UInt64, 0) => (4e18, 1e6),
        (_, 1) => (1e11, 10.0),
        (_, 2) => (100.0, 1e-3),
        _ => (20.0, 50.0),
    };
    let bound = size * [0.5, 0.1, 0.02, 0.001][dice.below(4) as usize];
    let step = [1, 1000, 1_000_000, SECOND, 300 * SECOND][dice.below(5) as usize];
    let (mut time, mut walk, mut quality) = (BEGIN, 0.0_f64, 0);
    let mut rows = Vec::new();
    for index in 0..30 + dice.below(170) {
        time += step + if seed.is_multiple_of(3) { dice.below(step.unsigned_abs()) as i64 } else { 0 };
        walk = (walk + dice.real() * 0.2).clamp(-1.0, 1.0);
        let level = match shape {
            0 => walk,
            1 => [-0.7, 0.3, 0.9][(index / 17 % 3) as usize] + if plain { dice.real() * 1e-3 } else { 0.0 },
            2 => (index as f64 / 9.0).sin(),
            3 => {
                if plain {
                    dice.real() * 1e-3
                } else {
                    0.25
                }
            }
            4 => dice.real(),
            _ => index as f64 / 100.0 - 1.0,
        };
        let value = middle + level * size;
        let mut cell = match kind {
            ValueType::Float32 => Cell::Real32((value as f32).to_bits()),
            ValueType::Float64 => Cell::Real64(value.to_bits()),
            ValueType::UInt64 => Cell::Unsigned(value as u64 + dice.below(3)),
            _ => Cell::Integer(value as i64 + dice.below(3) as i64),
        };
        if !plain {
            match dice.below(60) {
                0 => time -= step,
                1 => time -= 5 * step,
                2 => quality = [0, BAD, 0x4000_0000, 0x002f_0000][dice.below(4) as usize],
                3 => cell = Cell::Absent,
                4 | 5 => {
                    let odd = [f64::NAN, f64::NAN, f64::INFINITY, f64::MAX, f64::MIN][dice.below(5) as usize];
                    match kind {
                        ValueType::Float64 => cell = Cell::Real64(odd.to_bits()),
                        ValueType::Float32 => cell = Cell::Real32((odd as f32).to_bits()),
                        _ => (),
                    }
                }
                6 => rows.extend(rows.last().cloned()),
                _ => (),
            }
        }
        rows.push((time, cell, quality));
    }
    Signal { seed, kind, rows, bound, plain }
}

/// The real signals: columns of numbers, one a line. They need not be there.
pub(crate) fn real_signals() -> Vec<Signal> {
    let folder = std::env::var_os("HEADRACE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let mut found = Vec::new();
    let files = [
        ("tep_d00_te.dat", 180),
        ("Steel_industry_data.csv", 900),
        ("nab_machine_temperature_system_failure.csv", 300),
    ];
    for (file, step) in files {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split([',', ' ']).filter(|cell| !cell.is_empty()).collect()).collect();
        let width = lines.iter().map(Vec::len).max().unwrap_or(0);
        for place in 0..width {
            let numbers = lines.iter().filter_map(|line| line.get(place)?.parse::<f64>().ok());
            let rows = numbers
                .enumerate()
                .map(|(at, value)| (BEGIN + at as i64 * step * SECOND, Cell::Real64(value.to_bits()), 0));
            let rows: Vec<Row> = rows.collect();
            if rows.len() > lines.len() / 2 {
                found.push(Signal {
                    seed: found.len() as u64,
                    kind: ValueType::Float64,
                    rows,
                    bound: 0.0,
                    plain: true,
                });
            }
        }
    }
    found
}
