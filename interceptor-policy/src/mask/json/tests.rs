//! Documents of all shapes, in pieces of all sizes.

use proptest::prelude::*;

use super::*;
use crate::mask::{Detector, JsonState, MaskEntry, MaskWhat};
use crate::matcher::pointer::Pointer;
use crate::operation::http::Json;

const KEY: MaskKey = MaskKey([7; 32]);

fn masks(entries: &[(&str, Transform)]) -> Arc<Masks> {
    let mut masks = Masks::default();
    for (what, with) in entries {
        let what = match *what {
            "cards" => MaskWhat::Detect(vec![Detector::CreditCard, Detector::Email]),
            pointer => MaskWhat::Json(vec![Arc::new(Pointer::new(pointer).unwrap())]),
        };
        masks.add(&MaskEntry {
            what,
            with: with.clone(),
            direction: Direction::Response,
        });
    }
    Arc::new(masks)
}

fn in_pieces(masks: &Arc<Masks>, pieces: &[&[u8]]) -> Result<String, JsonFault> {
    let mut masker = JsonMasker::new(Arc::clone(masks), Direction::Response);
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &KEY, &mut out)?;
    }
    masker.finish(&KEY, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn masked(entries: &[(&str, Transform)], text: &str) -> String {
    in_pieces(&masks(entries), &[text.as_bytes()]).unwrap()
}

fn redact(pointers: &[&str], text: &str) -> String {
    let entries: Vec<_> = pointers
        .iter()
        .map(|pointer| (*pointer, Transform::Redact))
        .collect();
    masked(&entries, text)
}

#[test]
fn a_value_is_hidden_by_its_place_and_the_rest_goes_through_as_it_was() {
    assert_eq!(
        redact(
            &["/customer/email", "/**/iban", "/items/*/price", "/list/1"],
            "{ \"customer\" : {\"email\":\"a@b.co\",\"name\":\"\\u0041\",\"iban\":1.50},\r\n\
             \"items\":[{\"price\":3,\"n\":1e3},{\"price\":true}],\"list\":[1, 2 ,3],\"email\":\"x\"}\n",
        ),
        "{ \"customer\" : {\"email\":\"[redacted]\",\"name\":\"\\u0041\",\"iban\":\"[redacted]\"},\r\n\
         \"items\":[{\"price\":\"[redacted]\",\"n\":1e3},{\"price\":\"[redacted]\"}],\"list\":[1, \"[redacted]\" ,3],\"email\":\"x\"}\n",
    );
}

#[test]
fn keys_are_read_decoded_in_either_case_and_each_time_they_are_there() {
    assert_eq!(
        redact(
            &["/ssn"],
            r#"{"ssn":"1","\u0073sn":"2","SSN":"3","ssn":"4","sn":"5"}"#
        ),
        r#"{"ssn":"[redacted]","\u0073sn":"[redacted]","SSN":"[redacted]","ssn":"[redacted]","sn":"5"}"#,
    );
}

#[test]
fn a_whole_object_or_list_is_hidden_with_all_that_is_in_it() {
    assert_eq!(
        redact(
            &["/a", "/b/0"],
            r#"{"a":{"x":[1,{"y":"}]"}]},"b":[[2],3],"c":4}"#
        ),
        r#"{"a":"[redacted]","b":["[redacted]",3],"c":4}"#,
    );
    let partial = Transform::Partial {
        keep_first: 0,
        keep_last: 2,
    };
    for (with, put) in [
        (Transform::Null, "null"),
        (Transform::Constant("a\"b".into()), "\"a\\\"b\""),
        (Transform::Hash, "\"[redacted]\""),
        (partial, "\"[redacted]\""),
    ] {
        assert_eq!(masked(&[("", with)], "{\"x\":[]}"), put);
    }
}

#[test]
fn each_kind_of_value_becomes_what_is_written() {
    let of = |with: &Transform, value: &str| {
        let out = masked(&[("/v", with.clone())], &format!("{{\"v\":{value}}}"));
        out.strip_prefix("{\"v\":")
            .unwrap()
            .strip_suffix('}')
            .unwrap()
            .to_owned()
    };
    let partial = Transform::Partial {
        keep_first: 0,
        keep_last: 2,
    };
    assert_eq!(of(&Transform::Redact, "null"), "null");
    assert_eq!(of(&Transform::Null, "42"), "null");
    assert_eq!(of(&partial, "12345.67"), "\"******67\"");
    assert_eq!(of(&partial, "\"\\u0031\\u0032345\""), "\"***45\"");
    assert_eq!(of(&Transform::Constant("x".into()), "true"), "\"x\"");
    let hash = of(&Transform::Hash, "\"4\\u0032\"");
    assert_eq!(hash, of(&Transform::Hash, "42"));
    assert!(hash.starts_with("\"[hash:"), "{hash}");
}

#[test]
fn detectors_are_asked_about_what_a_string_reads_as() {
    let hidden = |text: &str| masked(&[("cards", Transform::Redact)], text);
    for (text, out) in [
        (r#"["4111 1111 1111 1111"]"#, r#"["[redacted]"]"#),
        (
            r#"["\u0034111\u002d1111-1111-1111!"]"#,
            r#"["[redacted]!"]"#,
        ),
        (
            r#"{"k":"a\nb me@example.com \"c\""}"#,
            r#"{"k":"a\nb [redacted] \"c\""}"#,
        ),
        (r#"{"me@example.com":1}"#, r#"{"[redacted]":1}"#),
        ("[4111111111111111,42]", r#"["[redacted]",42]"#),
        (r#"["\ud83d","\u00e4 \/"]"#, r#"["\ud83d","\u00e4 \/"]"#),
    ] {
        assert_eq!(hidden(text), out, "{text}");
    }
}

#[test]
fn a_place_hides_before_a_detector_looks() {
    let both = [("/a", Transform::Null), ("cards", Transform::Redact)];
    assert_eq!(
        masked(&both, r#"{"a":"4111111111111111","b":"4111111111111111"}"#),
        r#"{"a":null,"b":"[redacted]"}"#
    );
}

#[test]
fn a_value_too_long_to_be_held_is_replaced_whole_and_one_that_is_looked_at_is_streamed() {
    let long = "\\u0034é".repeat(LIMITS.value);
    assert_eq!(
        masked(
            &[("/a", Transform::Hash)],
            &format!("{{\"a\":\"{long}\",\"b\":\"{long}\"}}")
        ),
        format!("{{\"a\":\"[redacted]\",\"b\":\"{long}\"}}")
    );
    let words = "word \\\"x\\\" ".repeat(5000);
    let text = format!("[\"{words} 4111 1111 1111 1111 {words}\"]");
    let out = masked(&[("cards", Transform::Redact)], &text);
    assert_eq!(out, format!("[\"{words} [redacted] {words}\"]"));
}

#[test]
fn little_is_held() {
    let masks = masks(&[("/a", Transform::Hash), ("cards", Transform::Redact)]);
    let mut masker = JsonMasker::new(masks, Direction::Response);
    let mut out = Vec::new();
    masker.push(b"{\"a\":\"", &KEY, &mut out).unwrap();
    for _ in 0..1000 {
        masker.push(&[b'x'; 1000], &KEY, &mut out).unwrap();
    }
    masker.push(b"\",\"b\":\"", &KEY, &mut out).unwrap();
    for _ in 0..1000 {
        masker.push(&[b'y'; 1000], &KEY, &mut out).unwrap();
    }
    let stream = masker.stream.as_ref().unwrap();
    assert!(masker.held.len() <= LIMITS.whole);
    assert!(out.len() + stream.held() + masker.held.len() >= 1_000_000);
    assert!(stream.held() < 128 << 10, "{}", stream.held());
}

#[test]
fn what_is_no_json_is_a_fault_and_nothing_more_comes_out() {
    for bad in [
        "{\"a\":1",
        "[1,]",
        "{\"a\" 1}",
        "{1:2}",
        "[1 2]",
        "]",
        "{]",
        "01",
        "1.",
        "-",
        "nul",
        "truex",
        "\"\u{1}\"",
        "\"abc",
        "{}{}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "'a'",
        "// x",
        "\u{feff}\u{feff}1",
        "{,}",
        "[,1]",
        "{\"a\":}",
        "1,2",
    ] {
        let masks = masks(&[("/a", Transform::Redact)]);
        let mut masker = JsonMasker::new(masks, Direction::Response);
        let mut out = Vec::new();
        let pushed = masker.push(bad.as_bytes(), &KEY, &mut out);
        let fault = pushed.and_then(|()| masker.finish(&KEY, &mut out));
        assert!(
            matches!(fault, Err(JsonFault::Malformed { .. })),
            "{bad}: {fault:?}"
        );
        let len = out.len();
        assert_eq!(masker.push(b"{}", &KEY, &mut out), fault);
        assert_eq!(masker.finish(&KEY, &mut out), fault);
        assert_eq!(out.len(), len);
    }
    assert!(in_pieces(&masks(&[("/a", Transform::Redact)]), &[b"{\"a\":\"\xff\"}"]).is_err());
    let deep = "[".repeat(LIMITS.depth + 1);
    assert_eq!(
        in_pieces(&masks(&[]), &[deep.as_bytes()]),
        Err(JsonFault::TooDeep)
    );
    let wide = format!("[{}]", "1".repeat(LIMITS.number + 1));
    assert_eq!(
        in_pieces(&masks(&[]), &[wide.as_bytes()]),
        Err(JsonFault::TooLong)
    );
}

#[test]
fn documents_come_one_after_the_other_or_none_at_all() {
    assert_eq!(redact(&["/a"], ""), "");
    assert_eq!(
        redact(&["/a"], "{\"a\":1}\n{\"a\":2}\r\n 3 \"x\"\n"),
        "{\"a\":\"[redacted]\"}\n{\"a\":\"[redacted]\"}\r\n 3 \"x\"\n"
    );
    assert_eq!(
        redact(&["/a"], "\u{feff}{\"a\":1}"),
        "\u{feff}{\"a\":\"[redacted]\"}"
    );
}

#[test]
fn what_is_hidden_one_way_is_not_hidden_the_other() {
    let masks = masks(&[("/a", Transform::Redact)]);
    let mut masker = JsonMasker::new(masks, Direction::Request);
    let mut out = Vec::new();
    masker.push(b"{\"a\":1}", &KEY, &mut out).unwrap();
    assert_eq!((out.as_slice(), masker.hidden()), (&b"{\"a\":1}"[..], 0));
}

/// The same, on a tree.
fn on_tree(json: &Json, at: &JsonState<'_>) -> serde_json::Value {
    if let Some(transform) = at.transform() {
        let text = match json {
            Json::Null => return serde_json::Value::Null,
            Json::Bool(is) => Some(is.to_string()),
            Json::Number(text) | Json::Text(text) => Some(text.to_string()),
            Json::List(_) | Json::Object(_) => None,
        };
        let mut out = Vec::new();
        let transform = match (transform, &text) {
            (Transform::Hash | Transform::Partial { .. }, None) => &Transform::Redact,
            (transform, _) => transform,
        };
        let masked = transform.apply(text.unwrap_or_default().as_bytes(), &KEY, &mut out);
        return match masked {
            Masked::Null => serde_json::Value::Null,
            Masked::Text => String::from_utf8(out).unwrap().into(),
        };
    }
    match json {
        Json::Null => serde_json::Value::Null,
        Json::Bool(is) => (*is).into(),
        Json::Number(number) => serde_json::from_str(number).unwrap(),
        Json::Text(text) => (**text).into(),
        Json::List(items) => {
            let items = items.iter().enumerate();
            items
                .map(|(index, item)| on_tree(item, &at.index(index)))
                .collect()
        }
        Json::Object(members) => members
            .iter()
            .map(|(key, value)| (key.to_string(), on_tree(value, &at.key(key))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn document() -> impl Strategy<Value = String> {
    let string = prop::collection::vec(
        prop::sample::select(
            &[
                "a",
                "é",
                "😀",
                "\\n",
                "\\u0034",
                "\\ud83d\\ude00",
                "\\\"",
                "\\\\",
                " ",
                "4111111111111111",
            ][..],
        ),
        0..5,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let key = prop::sample::select(&["\"a\"", "\"b\"", "\"A\"", "\"\\u0061\"", "\"c\""][..]);
    let leaf = prop_oneof![
        prop::sample::select(&["null", "true", "false", "0", "-1.5e3", "12345678"][..])
            .prop_map(str::to_owned),
        string,
    ];
    leaf.prop_recursive(5, 32, 4, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        let object = prop::collection::vec((key.clone(), inner), 0..4);
        prop_oneof![
            list.prop_map(|items| format!("[ {} ]", items.join(" ,"))),
            object.prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(k, v)| format!("{k} : {v}")).collect();
                format!("{{{}}}", members.join(",\n"))
            }),
        ]
    })
}

fn entries() -> impl Strategy<Value = Vec<(&'static str, Transform)>> {
    let pointers = &["/a", "/**/a", "/a/*", "/*/b", "/**/c/**/a", "/0", ""][..];
    let partial = Transform::Partial {
        keep_first: 1,
        keep_last: 1,
    };
    let with = [Transform::Redact, Transform::Hash, Transform::Null, partial];
    prop::collection::vec(
        (
            prop::sample::select(pointers),
            prop::sample::select(with.to_vec()),
        ),
        0..3,
    )
}

proptest! {
    #[test]
    fn what_comes_out_is_what_a_tree_says(text in document(), entries in entries()) {
        let masks = masks(&entries);
        let out = in_pieces(&masks, &[text.as_bytes()]).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        let json = Json::parse(text.as_bytes()).unwrap();
        let none = crate::mask::JsonMask::default();
        let mask = masks.of(Direction::Response).json().unwrap_or(&none);
        let expected = on_tree(&json, &mask.root());
        let got: serde_json::Value = serde_json::from_str(&out).unwrap();
        prop_assert_eq!(got, expected, "{}", out);
    }

    #[test]
    fn the_pieces_do_not_matter(
        text in document(),
        entries in entries(),
        detect in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut entries = entries;
        if detect {
            entries.push(("cards", Transform::Redact));
        }
        let masks = masks(&entries);
        let whole = in_pieces(&masks, &[text.as_bytes()]);
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.sort_unstable();
        at.push(text.len());
        let mut from = 0;
        let mut pieces = Vec::new();
        for to in at {
            pieces.push(&text.as_bytes()[from..to]);
            from = to;
        }
        prop_assert_eq!(in_pieces(&masks, &pieces), whole.clone());
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(in_pieces(&masks, &bytes), whole);
    }

    #[test]
    fn no_card_number_is_left_however_it_is_spelled(
        spelled in prop::collection::vec(any::<bool>(), 16),
        before in "[a-z ]{0,5000}",
    ) {
        let mut card = String::new();
        for (digit, escaped) in "4111111111111111".chars().zip(spelled) {
            match escaped {
                true => card.push_str(&format!("\\u{:04x}", u32::from(digit))),
                false => card.push(digit),
            }
        }
        let out = masked(&[("cards", Transform::Redact)], &format!("[\"{before} {card}\"]"));
        let read: Vec<String> = serde_json::from_str(&out).unwrap();
        prop_assert!(!read[0].contains("4111111111111111"), "{out}");
        prop_assert!(read[0].ends_with("[redacted]"), "{out}");
    }
}
