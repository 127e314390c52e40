//! Rice codes (R. F. Rice, JPL 79-22, 1979): the low `k` bits of a number as they are, the rest in unary. Within a
//! quarter of a bit of the entropy for the residuals of a noisy signal, with no table to carry: what short columns need.
//!
//! Bits fill bytes from the least significant one up. A number whose unary part would reach `ESCAPE` is written as that
//! many zeros and its 64 bits.

use super::{Reader, broken, zigzag};
use crate::error::Result;

/// Zeros that announce a number written out.
const ESCAPE: u32 = 20;
/// The most low bits.
pub(super) const MAX_K: u32 = 56;

/// The parameter that takes least, and the bits that it takes.
pub(super) fn plan(values: &[i64]) -> (u32, usize) {
    let (any, sum) = values
        .iter()
        .map(|value| zigzag(*value))
        .fold((0, 0_u64), |(any, sum), value| (any | value, sum.wrapping_add(value)));
    let small = any < 1 << 32 && values.len() < 1 << 31;
    let total = if small { u128::from(sum) } else { values.iter().map(|value| u128::from(zigzag(*value))).sum() };
    let mean = total / (values.len().max(1) as u128);
    let near = (127_u32.saturating_sub((mean | 1).leading_zeros())).min(MAX_K);
    let low = near.saturating_sub(1);
    let mut bits = [0_u64; 3];
    if any >> low < u64::from(ESCAPE) {
        // None is written out: nothing to decide for each, so that several are added up at a time.
        let unary = values.iter().map(|value| zigzag(*value) >> low).fold([0; 3], |sums: [u64; 3], quotient| {
            [sums[0] + quotient, sums[1] + (quotient >> 1), sums[2] + (quotient >> 2)]
        });
        for ((k, total), unary) in (low..).zip(&mut bits).zip(unary) {
            *total = unary + values.len() as u64 * (1 + u64::from(k));
        }
    } else {
        for value in values {
            let value = zigzag(*value);
            for (k, total) in (low..).zip(&mut bits) {
                let quotient = value >> k;
                *total +=
                    if quotient < u64::from(ESCAPE) { quotient + 1 + u64::from(k) } else { u64::from(ESCAPE) + 64 };
            }
        }
    }
    let tried = (low..=MAX_K).zip(bits);
    tried.min_by_key(|(_, bits)| *bits).map_or((0, usize::MAX), |(k, bits)| (k, bits as usize))
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    bits: u64,
    count: u32,
}

impl Writer<'_> {
    /// Appends the low `count` bits of `value`, at most 32; the others must be 0.
    fn put(&mut self, value: u64, count: u32) {
        self.bits |= value << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
        }
    }
}

/// Appends `values` with parameter `k`.
pub(super) fn put(values: &[i64], k: u32, out: &mut Vec<u8>) {
    let mut writer = Writer { out, bits: 0, count: 0 };
    let mask = (1_u64 << k) - 1;
    for value in values {
        let value = zigzag(*value);
        let (quotient, low) = (value >> k, value & mask);
        if quotient >= u64::from(ESCAPE) {
            writer.put(0, ESCAPE);
            writer.put(value & 0xffff_ffff, 32);
            writer.put(value >> 32, 32);
        } else if k + ESCAPE <= 32 {
            writer.put((low << 1 | 1) << quotient, quotient as u32 + 1 + k);
        } else {
            writer.put(1 << quotient, quotient as u32 + 1);
            writer.put(low & 0xffff_ffff, k.min(32));
            writer.put(low >> 32, k.saturating_sub(32));
        }
    }
    let bytes = writer.bits.to_le_bytes();
    let used = writer.count.div_ceil(8) as usize;
    writer.out.extend_from_slice(bytes.get(..used).unwrap_or_default());
}

/// Reads `count` numbers of parameter `k`, and the rest of their last byte. Leaves room for one number more.
pub(super) fn read(reader: &mut Reader<'_>, k: u32, count: usize) -> Result<Vec<i64>> {
    if k > MAX_K {
        return Err(broken(format!("a Rice parameter of {k}")));
    }
    // A number takes a bit at least: what can't be there is not allocated.
    if reader.rest().len().saturating_mul(8) < count {
        return Err(broken("fewer bits than values"));
    }
    let bytes = reader.rest();
    let mut bits = Bits { bytes, next: 0, held: 0, count: 0 };
    let mut values = Vec::with_capacity(count + 1);
    for _ in 0..count {
        let value = bits.code(k).ok_or_else(|| broken("cut short"))?;
        values.push((value >> 1) as i64 ^ -((value & 1) as i64));
    }
    let used = bits.next - (bits.count / 8) as usize;
    reader.take(used)?;
    Ok(values)
}

struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Holds at least 57 bits, or all that are left.
    fn fill(&mut self) {
        if let Some(word) = self.bytes.get(self.next..).and_then(|rest| rest.first_chunk::<8>()) {
            self.held |= u64::from_le_bytes(*word) << self.count;
            let taken = (63 - self.count) / 8;
            self.next += taken as usize;
            self.count += taken * 8;
            // What was ored in past the whole bytes comes again, the same, with the next fill.
            self.held &= u64::MAX >> (64 - self.count).min(63);
            return;
        }
        while self.count <= 56 {
            let Some(byte) = self.bytes.get(self.next) else { return };
            self.held |= u64::from(*byte) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }

    /// One code.
    #[inline]
    fn code(&mut self, k: u32) -> Option<u64> {
        let quotient = self.zeros()?;
        if quotient == ESCAPE {
            return Some(self.take(32)? | self.take(32)? << 32);
        }
        Some((u64::from(quotient) << k) | self.take(k)?)
    }

    #[inline]
    fn take(&mut self, count: u32) -> Option<u64> {
        if self.count < count {
            self.fill();
            if self.count < count {
                return None;
            }
        }
        let value = self.held & ((1_u64 << count) - 1);
        self.held >>= count;
        self.count -= count;
        Some(value)
    }

    /// The zeros before the next one, which is taken too; or `ESCAPE` zeros.
    #[inline]
    fn zeros(&mut self) -> Option<u32> {
        if self.count <= ESCAPE {
            self.fill();
        }
        let zeros = self.held.trailing_zeros().min(ESCAPE);
        self.take(if zeros == ESCAPE { ESCAPE } else { zeros + 1 })?;
        Some(zeros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(values: &[i64], k: u32) {
        let mut bytes = vec![0xa5];
        put(values, k, &mut bytes);
        bytes.extend([0xff; 3]);
        let mut reader = Reader::new(&bytes[1..]);
        assert_eq!(read(&mut reader, k, values.len()).unwrap(), values, "k = {k}");
        assert_eq!(reader.rest(), [0xff; 3], "k = {k}");
        // Every prefix of the codes lacks something, but for the padding of the last byte, which is less than one.
        let codes = &bytes[1..bytes.len() - 3];
        for end in 0..codes.len() {
            assert!(read(&mut Reader::new(&codes[..end]), k, values.len()).is_err(), "k = {k}, {end}");
        }
    }

    #[test]
    fn every_k_keeps_every_size_of_number() {
        let powers =
            (0..64).flat_map(|bit| [1_i64 << bit, (1_i64 << bit).wrapping_neg(), (1_i64 << bit).wrapping_sub(1)]);
        let values: Vec<i64> = powers.chain([0, i64::MIN, i64::MAX, -1]).collect();
        for k in 0..=MAX_K {
            back(&values, k);
            for value in &values {
                back(&[*value], k);
                back(&[*value, 0, *value], k);
            }
        }
    }

    #[test]
    fn the_last_unary_part_before_an_escape_and_the_first_one_of_it() {
        for k in [0, 1, 7, 8, 31, 55, MAX_K] {
            for quotient in [0, 1, u64::from(ESCAPE) - 1, u64::from(ESCAPE), u64::from(ESCAPE) + 1] {
                let code = u128::from(quotient) << k;
                let Ok(code) = u64::try_from(code) else { continue };
                let value = (code >> 1) as i64 ^ -((code & 1) as i64);
                let mut bytes = Vec::new();
                put(&[value], k, &mut bytes);
                let bits = if quotient < u64::from(ESCAPE) { quotient as usize + 1 + k as usize } else { 84 };
                assert_eq!(bytes.len(), bits.div_ceil(8));
                back(&[value; 9], k);
            }
        }
    }

    #[test]
    fn the_plan_says_how_long_the_codes_will_be() {
        for shift in 0..63 {
            let values: Vec<i64> = (0..100_i64).map(|at| (at * 7919 % 97 - 48) << shift >> (at % 3)).collect();
            let (k, bits) = plan(&values);
            let mut bytes = Vec::new();
            put(&values, k, &mut bytes);
            assert_eq!(bytes.len(), bits.div_ceil(8));
            back(&values, k);
        }
        assert_eq!(plan(&[]).1, 0);
    }

    #[test]
    fn counts_past_the_bits_that_are_there_are_refused_at_once() {
        assert!(read(&mut Reader::new(&[0xff; 4]), 0, 32).is_ok());
        for count in [33, 1 << 22, usize::MAX] {
            assert!(read(&mut Reader::new(&[0xff; 4]), 0, count).is_err());
        }
        assert!(read(&mut Reader::new(&[0xff; 4]), MAX_K + 1, 1).is_err());
        assert!(read(&mut Reader::new(&[]), 3, 0).unwrap().is_empty());
    }
}
