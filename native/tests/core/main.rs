//! What must hold of the core for every input, tried on random ones. One crate, so that it links once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic in a test is a finding
#![allow(clippy::float_cmp)] // equal means equal

mod arrays;
mod blocks;
mod buffer;
mod cell;
mod codecs;
mod columns;
mod corrections;
mod directory;
mod filters;
mod gaps;
mod hostile;
mod identifiers;
mod known_errors;
mod later_versions;
mod memory;
mod modbus;
mod one_reading;
mod opcua;
mod parts;
mod predictions;
mod signals;
mod soak;
