//! Base64 with padding (RFC 4648, 4).

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the letters of `bytes`: four for every three, the last of them filled up with `=`.
pub fn put(out: &mut String, bytes: &[u8]) {
    for three in bytes.chunks(3) {
        let group = (0..3).fold(0_usize, |group, at| group << 8 | three.get(at).map_or(0, |byte| usize::from(*byte)));
        for at in 0..4 {
            let letter = LETTERS.get(group >> (18 - 6 * at) & 63).filter(|_| at <= three.len());
            out.push(letter.map_or('=', |letter| char::from(*letter)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut found = String::new();
            put(&mut found, bytes.as_bytes());
            assert_eq!(found, text);
        }
    }
}
