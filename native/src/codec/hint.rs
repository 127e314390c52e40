//! What an encoder remembers of a column from one block to the next: how it was coded, and what that took.
//!
//! Looking for the best form costs several passes over a column, and plants change slowly. So the form that won last is
//! tried first, with one pass; it stands where it takes about as much a value as it did when it was found. Where it does
//! not, or after `AGAIN` blocks, everything is looked at anew. A hint is only ever a guess at the best form: whatever it
//! says, the column that it gives is as right as any, and is verified like any.

use super::Codec;
use super::predict::Prediction;

/// After so many blocks another form may have become the best, though the known one takes no more than it did.
const AGAIN: u8 = 32;
/// Fewer values say too little about what a form takes.
const FEW: usize = 32;
/// Parts of a bit, to count what a value takes.
const PARTS: usize = 64;

/// How a column was coded last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hint {
    /// Blocks for which it is still taken at its word.
    left: u8,
    begun: bool,
    /// Of integers, times, and the digits of decimals.
    form: Option<Form>,
    /// Of floats: the power of ten, and of 64 values those that were no such decimals.
    pub(super) power: Option<(u8, u8)>,
    /// Of floats: whether pcodec was tried, and took clearly more.
    pub(super) pco_lost: bool,
    /// Of floats that are nearly decimals: the same of `Nudged`.
    pub(super) nudged_lost: bool,
}

/// A form that won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// `Delta` or `Rice`: the others are recognised with less than a pass.
    pub(super) codec: Codec,
    pub(super) prediction: Prediction,
    pub(super) based: bool,
    pub(super) unit: i64,
    /// 64ths of a bit a value that its Rice codes take or would take: they tell how well the prediction does.
    pub(super) each: u32,
}

impl Hint {
    /// Called once a block. The first turn of a tag is shorter by its index, lest all tags are looked at anew in the same
    /// block.
    pub(crate) fn turn(&mut self, tag: u32) {
        if self.left == 0 {
            let left = if self.begun { AGAIN } else { 1 + (tag % u32::from(AGAIN)) as u8 };
            *self = Self { left, begun: true, ..Self::default() };
        }
        self.left -= 1;
    }

    /// Whether it is of any use for the next block.
    pub(crate) fn says_anything(&self) -> bool {
        self.form.is_some() || self.power.is_some() || self.pco_lost || self.nudged_lost
    }

    /// The form to try first.
    pub(super) fn form(&self, values: usize) -> Option<Form> {
        self.form.filter(|_| values >= FEW)
    }

    /// Remembers the form that a full search found, if there is one to remember.
    pub(super) fn learn(&mut self, form: Option<Form>) {
        self.form = form;
    }
}

/// 64ths of a bit a value.
pub(super) fn each(bits: usize, values: usize) -> u32 {
    u32::try_from(bits * PARTS / values.max(1)).unwrap_or(u32::MAX)
}

/// Whether a form that took `known` 64ths of a bit a value, and now takes `now`, still does as it did: what takes far less
/// has changed as much as what takes more, and may now be a run.
pub(super) fn holds(known: u32, now: u32) -> bool {
    let (known, now, part) = (u64::from(known), u64::from(now), PARTS as u64 / 16);
    now <= known + known / 16 + part && now + part >= known - known / 16
}
