//! OPC UA response bodies to values (OPC 10000-6, 5.2: the binary encoding).
//!
//! A body is walked where it lies: what is read of it are numbers and slices, and nothing is allocated for a length that
//! the other side only claims. What can't be a body is refused at the byte where that shows.

mod cursor;
mod data_value;
mod diagnostic;
mod extension;
mod fit;
mod history;
mod node_id;
mod notification;
mod response;
mod scalar;
mod structure;
mod text;
mod time;
mod variant;

pub use data_value::{DataValue, Stamps};
pub use fit::{Fitted, Scratch, fit};
pub use history::{NodeHistory, read_history};
pub use notification::{Part, Publish};
pub use response::{read_results, sent_ns};
pub use scalar::Scalar;
pub use structure::{Field, Form, Kind, Structure, Type};
pub use time::{ns, stamp};
pub use variant::{Array, Content, Variant};

/// The most levels of values in values. Decoders have to take 100 (OPC 10000-6, 5.1.12).
pub const MAX_DEPTH: u32 = 100;
