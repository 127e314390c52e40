//! Bytes of anybody: next to none have a right checksum, so this is the outer door only.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::survive(data));
