//! What a buffer remembers of its tags from one block to the next, for the encoder alone.

use crate::codec::Hint;

/// How the times and the values of every tag were coded last.
#[derive(Debug, Default)]
pub struct Memory {
    /// Nothing where nothing was learnt: of a tag with a few readings a block there never is.
    tags: Vec<Option<Box<Known>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    times: Hint,
    values: Hint,
}

/// Which half of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Its times. Where columns share them: of the first of these columns.
    Times,
    /// Its values.
    Values,
}

impl Memory {
    /// Of so many tags, and as yet without a memory of any.
    pub fn new(tags: usize) -> Self {
        Self { tags: vec![None; tags] }
    }

    /// What is known of a tag, for the block that is being encoded: nothing, where it is time to look anew.
    pub fn recall(&self, tag: u32, half: Half) -> Hint {
        let known = self.tags.get(tag as usize).and_then(Option::as_deref).copied().unwrap_or_default();
        let mut hint = if half == Half::Times { known.times } else { known.values };
        hint.turn(tag);
        hint
    }

    /// Keeps what was learnt; of a tag that it was not made for, nothing.
    pub fn keep(&mut self, tag: u32, half: Half, hint: Hint) {
        if let Some(known) = self.tags.get_mut(tag as usize)
            && (known.is_some() || hint.says_anything())
        {
            let known = known.get_or_insert_default();
            *(if half == Half::Times { &mut known.times } else { &mut known.values }) = hint;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tags.fill(None);
    }
}
