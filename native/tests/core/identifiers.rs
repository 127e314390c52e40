//! Identifiers of every scheme: golden forms, and what must hold of any text.

use _native::identifier::{Identifier, Scheme};
use proptest::prelude::*;

fn parse(text: &str) -> Identifier {
    Identifier::parse(text).unwrap_or_else(|wrong| panic!("{text:?}: {wrong}"))
}

#[test]
fn schemes_and_their_canonical_texts() {
    for (raw, scheme, text) in [
        ("88.101.0042/001", Scheme::Handle, "88.101.0042/001"),
        ("hdl:88.1/x", Scheme::Handle, "88.1/x"),
        ("lab.1/x", Scheme::Handle, "lab.1/x"),
        ("hdl:did:x/y", Scheme::Handle, "hdl:did:x/y"),
        ("20.1000/5555/", Scheme::Handle, "20.1000/5555/"),
        ("88.608.8889/EQ#01 泵", Scheme::Handle, "88.608.8889/EQ#01 泵"),
        ("urn:oid:1.2.156.1", Scheme::Oid, "urn:oid:1.2.156.1"),
        ("OID:1.2.156.1", Scheme::Oid, "urn:oid:1.2.156.1"),
        ("1.2.156.1", Scheme::Oid, "urn:oid:1.2.156.1"),
        ("ecode:1000abc", Scheme::Ecode, "ecode:1000ABC"),
        ("0173-1#02-AAB325#008", Scheme::Irdi, "0173-1#02-AAB325#008"),
        ("irdi:0112/2///61360_4#aaa001#001", Scheme::Irdi, "0112/2///61360_4#AAA001#001"),
        ("MA.156.1003.1629/60.10000000.2/", Scheme::Ma, "MA.156.1003.1629/60.10000000.2/"),
        ("did:vaa:IDcontract1:86.100.1234/abcdfe.123", Scheme::Did, "did:vaa:IDcontract1:86.100.1234/abcdfe.123"),
        ("nsu=http://vendor.com/UA/;s=Line1.Temp", Scheme::OpcUa, "nsu=http://vendor.com/UA/;s=Line1.Temp"),
        ("https://id.example.com/press?sn=7", Scheme::Link, "https://id.example.com/press?sn=7"),
        ("https://example.com/docs/01/12", Scheme::Link, "https://example.com/docs/01/12"),
        ("(01)9521234543213(21)a/b", Scheme::Gs1, "https://id.gs1.org/01/09521234543213/21/a%2Fb"),
        (
            "https://shop.example/x/01/09521234543213/10/ABC123/21/12345?17=301231",
            Scheme::Gs1,
            "https://id.gs1.org/01/09521234543213/10/ABC123/21/12345",
        ),
        ("gs1:(8004)95212345(7040)ab", Scheme::Gs1, "https://id.gs1.org/8004/95212345/7040/ab"),
    ] {
        let found = parse(raw);
        assert_eq!((found.scheme(), found.text()), (scheme, text), "{raw}");
        assert_eq!(parse(found.text()), found, "{raw}");
    }
    let hash = "0123456789abcdef".repeat(4);
    assert_eq!(parse(&format!("did:cn:baidu:{hash}")).scheme(), Scheme::Did);
}

#[test]
fn what_is_equal_and_what_is_not() {
    let same = |a: &str, b: &str| parse(a) == parse(b);
    assert!(same("10.ABC/x", "10.abc/x"));
    assert!(same("0.na/20.1000", "0.NA/20.1000"));
    assert!(same("hdl:88.1/x", "88.1/x"));
    assert!(!same("88.101.0042/001", "88.101.42/001"));
    assert!(!same("88.608.8889/EQ01", "88.608.8889/eq01"));
    assert!(!same("20.1000/5555", "20.1000/5555/"));
    assert!(same("(01)09521234543213(10)ABC123(21)12345", "https://x.example/01/09521234543213/10/ABC123/21/12345"));
    assert!(!same("0173-1#02-AAB325#008", "0173-1#02-AAB325#007"));
    assert_eq!(parse("0173-1#02-AAB325#008").concept(), parse("0173-1#02-AAB325#007").concept());
    assert_eq!(parse("88.1/x").concept(), "88.1/x");
}

#[test]
fn the_path_of_a_resolver() {
    assert_eq!(parse("88.608.8889/EQ#01 泵").path(), "88.608.8889/EQ%2301%20%E6%B3%B5");
    assert_eq!(parse("hdl:did:x/y").path(), "did%3Ax/y");
    assert_eq!(parse("88.1/a:b/c").path(), "88.1/a%3Ab/c");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (raw, message) in [
        ("", "character 1: an empty identifier"),
        (" 88.1/x", "character 1: a blank at its edge"),
        ("88.1/泵 ", "character 7: a blank at its edge"),
        ("88.1/\u{7}", "character 6: a control character"),
        ("88.608.8889/", "character 13: nothing after the slash"),
        ("/x", "character 1: an empty label"),
        ("88..1/x", "character 4: an empty label"),
        ("nohandle", "character 9: no slash and no known scheme"),
        ("1.2.0156", "character 5: an arc with a leading zero; write 156"),
        ("urn:oid:3.1", "character 9: the first arc"),
        ("1.40.3", "character 3: the second arc"),
        ("ecode:x", "character 7: no version"),
        ("(01)09521234543214", "character 18: a wrong check digit; it would be 3"),
        ("(01)123", "character 5: 3 digits; (01) has 14"),
        ("(99)1", "character 2: (99) is no key"),
        ("(01)09521234543213(21)a(10)b", "character 25: (10) does not belong here"),
        ("0173-1#02-AAB325#x", "character 18: the version is a number"),
        ("MA.156", "character 7: no organisation"),
        ("did:Web:x", "character 5: a method has small letters"),
        ("ns=2;s=Line1.Temp", "character 1: a namespace index changes with its server"),
        ("nsu=urn:x;q=1", "character 11: not a node"),
        ("https:///x", "character 9: no host"),
        ("https://a/%zz", "character 11: % without two"),
    ] {
        let found = Identifier::parse(raw).expect_err(raw).to_string();
        assert!(found.starts_with(message), "{raw:?}: {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50_000))]

    #[test]
    fn any_text_is_refused_or_comes_back(raw in "\\PC{0,40}|[0-9MAdihnsu=:/.#()%a-z-]{0,40}") {
        if let Ok(found) = Identifier::parse(&raw) {
            let again = Identifier::parse(found.text());
            prop_assert_eq!(again.as_ref().map(Identifier::text), Ok(found.text()));
            prop_assert_eq!(again.as_ref().map(Identifier::key), Ok(found.key()));
        }
    }

    #[test]
    fn damaged_identifiers_do_not_panic(
        which in 0usize..8, at in 0usize..40, with in any::<char>(), cut in 0usize..60,
    ) {
        let raw = [
            "88.101.0042/001", "urn:oid:1.2.156.1", "0173-1#02-AAB325#008", "MA.156.1003.1629/60.10000000.2/",
            "https://id.gs1.org/01/09521234543213/10/ABC123/21/12345", "(01)09521234543213(21)12345",
            "nsu=http://vendor.com/UA/;s=Line1.Temp", "did:vaa:IDcontract1:86.100.1234/abcdfe.123",
        ][which];
        let mut letters: Vec<char> = raw.chars().collect();
        let place = at % letters.len();
        letters[place] = with;
        letters.truncate(cut.max(1));
        let text: String = letters.into_iter().collect();
        if let Ok(found) = Identifier::parse(&text) {
            prop_assert_eq!(Identifier::parse(found.text()), Ok(found));
        }
    }
}
