//! Headrace's core: what a gateway does per reading. Bytes from the wire go in, sealed blocks come out, and blocks go
//! back to columns. No I/O, no thread, no clock: times come in as numbers, and the Python half owns the rest.

pub mod arrow;
pub mod base64;
pub mod block;
pub mod body;
pub mod buffer;
pub mod codec;
pub mod column;
pub mod decode;
pub mod error;
pub mod filter;
pub mod identifier;
pub mod joined;
pub mod json;
pub mod memory;
#[cfg(feature = "python")]
mod python;
pub mod tag;
pub mod value;
pub mod values;
