//! One error for the whole core; `python.rs` turns it into Python's.

/// What can go wrong in the core.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not a block that this version can read.
    #[error("not a readable block: {0}")]
    Block(String),
    /// A tag, filter or plan can't be as it was asked for.
    #[error("{0}")]
    Spec(String),
    /// A text is not an identifier of any known scheme.
    #[error("character {at}: {what}")]
    Identifier {
        /// Which character, from 1.
        at: usize,
        /// What is wrong there, and what to write.
        what: String,
    },
    /// A device's response does not have the length that its request asks for.
    #[error("response of {found} bytes where {expected} were asked for")]
    Length {
        /// Bytes that the request's response must have.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// An OPC UA response that can't be one, or that is past a bound.
    #[error("not a readable response: {what} at byte {offset}")]
    Response {
        /// Bytes from the body's start.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A StatusCode instead of a response.
    #[error("the server answers with status 0x{0:08X}")]
    Service(u32),
    /// A tag or plan number that does not exist.
    #[error("no {what} {number}; there are {count}")]
    Unknown {
        /// `tag` or `plan`.
        what: &'static str,
        /// The number asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

/// The result of anything in the core that can fail.
pub type Result<T> = std::result::Result<T, Error>;
