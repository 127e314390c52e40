//! Blocks changed at random, many of them: `HEADRACE_SOAK=1000000` and `HEADRACE_SEED` say how many and which
//! (`make soak-core`). What is damaged is refused; what somebody made up and sealed harms nobody, and whatever it
//! decodes to is written and read back as the same readings.

use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use _native::block::{self, DecodedColumn};
use _native::column::Column;
use _native::{arrow, json};

use crate::columns::{META, columns, mix, rows};
use crate::parts::{Parts, reseal};

const MUTATIONS: u64 = 20_000;
/// Mutations of one block before the next is made.
const EACH: u64 = 100;
/// A block that decodes to more readings than this is not converted as well: the codecs are what is asked here.
const CONVERTED: usize = 20_000;
/// Of a processor: what other programs take of it meanwhile is not the block's.
const MOST_TIME: Duration = Duration::from_secs(10);
const MOST_MEMORY_KIB: u64 = 1 << 21;

/// 64 random bits at a time.
struct Random(u64, u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.1 += 1;
        mix(self.0, self.1)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        match self.below(3) {
            0 => [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            _ => self.next() as u8,
        }
    }

    /// Flips, writes, cuts, repeats and moves bytes, one to five times; `near` keeps it within the first bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>, near: usize) {
        for _ in 0..=self.below(5) {
            let at = self.below(bytes.len().min(near));
            let length = self.below(9).min(bytes.len() - at);
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.byte()),
                0 => bytes[at] ^= 1 << self.below(8),
                1 | 2 => bytes[at] = self.byte(),
                3 => drop(bytes.drain(at..at + length)),
                4 => {
                    let again = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => {
                    let other = self.below(bytes.len());
                    bytes.swap(at, other);
                }
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// What this thread has had of a processor, where the system tells; otherwise what has gone by.
#[allow(clippy::disallowed_methods)] // a hang is told from work by a clock
fn spent(begun: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| begun.elapsed(), Duration::from_nanos)
}

fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

fn readable(columns: &[DecodedColumn]) -> Vec<(u32, Column)> {
    columns.iter().filter_map(|each| Some((each.tag, each.column.as_ref().ok()?.clone()))).collect()
}

/// Decodes a made-up block behind a right checksum; returns whether it is one.
fn survive(bytes: &[u8]) -> bool {
    let Ok((header, decoded)) = block::decode(bytes) else { return false };
    let found = readable(&decoded);
    let count: usize = found.iter().map(|(_, column)| column.len()).sum();
    assert!(header.gap.is_some() || count as u64 <= header.readings);
    if count <= CONVERTED && count > 0 {
        assert_eq!(arrow::batch(&decoded).unwrap().num_rows(), count);
        json::write(&header, &decoded, bytes.len()).unwrap();
        let (_, again) = block::decode(&block::encode(&found, &META)).unwrap();
        assert_eq!(again.len(), found.len());
        for ((tag, column), (tag_again, column_again)) in found.iter().zip(&readable(&again)) {
            assert_eq!((tag, rows(column)), (tag_again, rows(column_again)));
        }
    }
    true
}

/// As `survive`; a panic shows the bytes that it takes to see it again.
fn survives(bytes: &[u8]) -> bool {
    std::panic::catch_unwind(|| survive(bytes)).unwrap_or_else(|_| panic!("the block was {bytes:02x?}"))
}

#[test]
#[allow(clippy::disallowed_methods)] // a hang is told from work by a clock
#[allow(clippy::print_stdout)] // the result is what it is run for
fn mutated_blocks_harm_nobody() {
    let (count, seed) = (number("HEADRACE_SOAK", MUTATIONS), number("HEADRACE_SEED", 1));
    let mut random = Random(seed, 0);
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut refused, mut decoded, mut slowest) = (0_u64, 0_u64, Duration::ZERO);
    let begun = Instant::now();
    let mut block = Vec::new();
    for at in 0..count {
        if at % EACH == 0 {
            block = block::encode(&columns().new_tree(&mut runner).unwrap().current(), &META);
        }
        let mut bytes = block.clone();
        let before = spent(begun);
        let whole = match at % 4 {
            // Damage: the checksum is not put right.
            0 | 1 => {
                random.mutate(&mut bytes, usize::MAX);
                assert!(bytes == block || block::decode(&bytes).is_err(), "seed {seed}, {at}: damaged, but decoded");
                bytes == block
            }
            // Malice: it is, over a changed block, or over a changed part, the directory above all.
            2 => {
                random.mutate(&mut bytes, usize::MAX);
                bytes.resize(bytes.len().max(4), 0);
                reseal(&mut bytes);
                survives(&bytes)
            }
            _ => {
                let mut parts = Parts::of(&bytes);
                let near = [48, usize::MAX][random.below(2)];
                if random.below(3) == 0 && !parts.hard.is_empty() {
                    random.mutate(&mut parts.hard, near);
                } else {
                    random.mutate(&mut parts.soft, near);
                }
                survives(&if random.below(4) == 0 { parts.join_packed() } else { parts.join() })
            }
        };
        *if whole { &mut decoded } else { &mut refused } += 1;
        slowest = slowest.max(spent(begun).saturating_sub(before));
        assert!(slowest < MOST_TIME, "seed {seed}, {at}: took {slowest:?}");
        if at % 1000 == 0 {
            let peak = peak_kib().unwrap_or(0);
            assert!(peak < MOST_MEMORY_KIB, "seed {seed}, {at}: {peak} KiB");
        }
    }
    let (seconds, peak) = (begun.elapsed().as_secs_f64(), peak_kib().unwrap_or(0));
    println!(
        "{count} mutated blocks, seed {seed}: {refused} refused, {decoded} decoded, {seconds:.1} s, slowest {slowest:?}, \
         peak {peak} KiB"
    );
}
