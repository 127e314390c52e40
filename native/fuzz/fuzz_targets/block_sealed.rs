//! Bytes of anybody behind a right checksum: header, directory and every codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::survive(&fuzz::sealed(data)));
