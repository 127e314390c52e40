//! The plan: what `headrace simulate --load` writes to our stdin, one line of JSON (simulators/load_plan.py).
//!
//! What the devices hold is worked out there, `images` times. We show one image after the other, each for a period,
//! forward and back, and know nothing of tags, scales or signals.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub struct Plan {
    pub times: Times,
    #[serde(default)]
    pub modbus: Vec<Line>,
    #[serde(default)]
    pub opcua: Vec<Endpoint>,
    /// A directory that is ours, for what the OPC UA stack wants to keep.
    pub store: std::path::PathBuf,
}

/// Which image is shown when.
#[derive(Clone, Copy, Deserialize)]
pub struct Times {
    pub begin_ns: u64,
    pub period_ns: u64,
    pub images: usize,
}

/// A Modbus TCP address, with the units behind it.
#[derive(Deserialize)]
pub struct Line {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub units: Vec<Unit>,
}

#[derive(Deserialize)]
pub struct Unit {
    pub unit: u8,
    pub spans: Vec<Span>,
}

/// Addresses of one table without a hole. `function` reads it (1 coils, 2 discrete inputs, 3 holding, 4 input registers).
#[derive(Deserialize)]
pub struct Span {
    pub function: u8,
    pub first: u32,
    pub count: u32,
    /// Where each tag begins, ascending: what is counted as readings.
    pub tags: Vec<u32>,
    /// As they go over the wire, in hexadecimal; bits are packed, the lowest first.
    pub images: Vec<String>,
}

#[derive(Deserialize)]
pub struct Endpoint {
    pub name: String,
    pub url: String,
    pub host: String,
    pub port: u16,
    /// (user, password); a user of null stands for everybody.
    pub users: Vec<(Option<String>, String)>,
    /// URIs of the namespaces from index 2 on.
    pub namespaces: Vec<String>,
    /// So many of them are addressed by their index, and must have it.
    pub numbered: usize,
    pub nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub struct Node {
    /// Its namespace: a place in `namespaces`.
    pub space: usize,
    /// Without its namespace: `s=Furnace.Temp`, `i=7`.
    pub id: String,
    pub name: String,
    pub kind: String,
    /// One for each image.
    pub values: Vec<Value>,
}

impl Times {
    /// How many periods have begun since 1970.
    pub fn turn(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64 / self.period_ns
    }

    /// The image of a turn: 0, 1, .. n-1, n-2, .. 1, 0, and so on, without a jump.
    pub fn image(&self, turn: u64) -> usize {
        let cycle = 2 * self.images as u64 - 2;
        let at = turn.saturating_sub(self.begin_ns / self.period_ns) % cycle;
        at.min(cycle - at) as usize
    }

    /// When a turn begins, in ns since 1970.
    pub fn begin(&self, turn: u64) -> u64 {
        turn * self.period_ns
    }

    pub fn until(&self, turn: u64) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_nanos(self.begin(turn)).saturating_sub(now)
    }
}

/// What was done since the start; `clients` is how many are connected now.
#[derive(Default)]
pub struct Counters {
    pub requests: AtomicU64,
    pub exceptions: AtomicU64,
    pub readings: AtomicU64,
    pub changes: AtomicU64,
    pub skipped: AtomicU64,
    pub clients: AtomicU64,
}

impl Counters {
    pub fn line(&self) -> String {
        let found = |counter: &AtomicU64| counter.load(Relaxed);
        serde_json::json!({
            "requests": found(&self.requests),
            "exceptions": found(&self.exceptions),
            "readings": found(&self.readings),
            "changes": found(&self.changes),
            "skipped": found(&self.skipped),
            "clients": found(&self.clients),
        })
        .to_string()
    }
}

pub fn bytes(hexadecimal: &str) -> Result<Vec<u8>, String> {
    let digits = hexadecimal.as_bytes();
    let digit = |at: u8| (at as char).to_digit(16).ok_or("an image is not hexadecimal".to_owned());
    digits.chunks(2).map(|pair| Ok((digit(pair[0])? << 4 | digit(*pair.get(1).unwrap_or(&b'x'))?) as u8)).collect()
}
