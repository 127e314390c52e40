//! Protocol bytes to values. One module a protocol; none does I/O.

mod clock;
pub mod form;
pub mod modbus;
pub mod opcua;
