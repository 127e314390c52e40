//! Protocol bytes to values. One module a protocol; none does I/O.

pub mod modbus;
pub mod opcua;
