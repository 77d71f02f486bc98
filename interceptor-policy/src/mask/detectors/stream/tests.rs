//! Texts in pieces of all sizes, and what is too long for any.

use proptest::prelude::*;

use super::*;
use crate::mask::detectors::corpus;
use crate::mask::{MaskEntry, MaskWhat, Pattern};

const KEY: MaskKey = MaskKey([7; 32]);

fn masks() -> Arc<Masks> {
    let mut masks = Masks::default();
    let all = Detector::NAMES.iter().map(|(_, detector)| *detector);
    let pattern = Arc::new(Pattern::new(r"EMP-\d{6}|<<[^>]*").unwrap());
    for what in [
        MaskWhat::Detect(all.collect()),
        MaskWhat::Patterns(vec![pattern]),
    ] {
        masks.add(&MaskEntry {
            direction: Direction::Response,
            what,
            with: Transform::Hash,
        });
    }
    Arc::new(masks)
}

fn small() -> Limits {
    Limits {
        line: 300,
        overlap: 100,
        private_key: 200,
    }
}

fn run(limits: Limits, pieces: &[&[u8]]) -> (String, u64) {
    let mut stream = DetectStream::new(masks());
    stream.limits = limits;
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &KEY, &mut out);
        let bound = CONTEXT + limits.line + limits.private_key;
        assert!(stream.buffer.len() <= bound, "{}", stream.buffer.len());
        assert!(stream.held() <= bound);
    }
    stream.finish(&KEY, &mut out);
    (String::from_utf8_lossy(&out).into_owned(), stream.hidden)
}

/// What a scan of the whole text would leave.
fn whole(text: &str) -> String {
    let masks = masks();
    let mut out = Vec::new();
    let mut done = 0;
    for hit in masks.detect().unwrap().scan(text.as_bytes()) {
        out.extend_from_slice(&text.as_bytes()[done..hit.range.start]);
        put(
            hit.transform,
            &text.as_bytes()[hit.range.clone()],
            &KEY,
            &mut out,
        );
        done = hit.range.end;
    }
    out.extend_from_slice(&text.as_bytes()[done..]);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn a_text_in_pieces_loses_what_a_whole_one_does() {
    for text in corpus::texts() {
        for text in [text.clone(), format!("{text}\n"), format!("a\n{text}\r\nb")] {
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(run(LIMITS, &bytes).0, whole(&text), "{text}");
        }
    }
}

#[test]
fn lines_pass_as_soon_as_they_end() {
    let mut stream = DetectStream::new(masks());
    let mut out = Vec::new();
    stream.push(b"one\ntwo a@b", &KEY, &mut out);
    assert_eq!(out, b"one\n");
    assert_eq!(stream.held(), 7);
    stream.push(b".co\n", &KEY, &mut out);
    assert!(out.starts_with(b"one\ntwo [hash:") && out.ends_with(b"]\n"));
    assert_eq!((stream.held(), stream.hidden()), (0, 1));
}

#[test]
fn without_detectors_everything_passes_at_once() {
    let mut stream = DetectStream::new(Arc::default());
    let mut out = Vec::new();
    stream.push(b"a@b.co", &KEY, &mut out);
    assert_eq!(out, b"a@b.co");
}

#[test]
fn who_waits_gets_what_is_held_but_for_a_secret_that_has_begun() {
    for (text, passes) in [
        ("login: ", "login: "),
        ("root@host:~# ", "root@host:~# "),
        ("key ghp_abcdef", "key "),
        ("x -----BEGIN RSA PRI", "x "),
        ("x -----BEGIN PRIVATE KEY-----", "x "),
    ] {
        let mut stream = DetectStream::new(masks());
        let mut out = Vec::new();
        stream.push(text.as_bytes(), &KEY, &mut out);
        assert_eq!(out, b"");
        stream.flush(&KEY, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), passes);
    }
}

#[test]
fn a_pause_gives_whole_words_and_keeps_what_a_number_may_go_on_from() {
    for (text, passes) in [
        ("hello wor", "hello "),
        ("hello ", "hello "),
        ("card 4111 1111 ", "card "),
        ("card 4111 1111 11", "card "),
        ("iban DE89 3704 0044", "iban "),
        ("pay ada@exam", "pay "),
        ("key ghp_abcdef", "key "),
        ("x -----BEGIN RSA PRI", "x "),
    ] {
        let mut stream = DetectStream::new(masks());
        let mut out = Vec::new();
        stream.push(text.as_bytes(), &KEY, &mut out);
        stream.flush_words(&KEY, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), passes, "{text}");
        stream.finish(&KEY, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), text);
    }
    // At any pause.
    let text = "pay 4111 1111 1111 1111 and write to ada@example.com, please";
    let whole = {
        let mut stream = DetectStream::new(masks());
        let mut out = Vec::new();
        stream.push(text.as_bytes(), &KEY, &mut out);
        stream.finish(&KEY, &mut out);
        out
    };
    assert!(!String::from_utf8_lossy(&whole).contains("1111 1111"));
    for first in 0..text.len() {
        let mut stream = DetectStream::new(masks());
        let mut out = Vec::new();
        for piece in [&text.as_bytes()[..first], &text.as_bytes()[first..]] {
            stream.push(piece, &KEY, &mut out);
            stream.flush_words(&KEY, &mut out);
        }
        stream.finish(&KEY, &mut out);
        assert_eq!(out, whole, "a pause at {first}");
    }
}

#[test]
fn what_is_too_long_to_hold_is_hidden_whole() {
    // Letters in no order that anybody would write.
    let mut state = 1_u32;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        char::from(alphabet[(state >> 16) as usize % alphabet.len()])
    };
    let long: String = (0..200_000).map(|_| letter()).collect();
    let samples: Vec<&str> = (0..long.len() - 6)
        .step_by(997)
        .map(|at| long.get(at..at + 6).unwrap())
        .collect();
    let header = "eyJhbGciOiJIUzI1NiJ9";
    let lines = format!("{}\n", "MIIBaB3dE6gH9j".repeat(4)).repeat(4000);
    for (before, secret, after) in [
        ("t=", format!("{header}.{long}.{long}"), " after"),
        ("Authorization: Bearer ", long.clone(), "\r\nafter"),
        ("{\"api_key\":\"", long.clone(), "\",\"x\":1}"),
        ("password=", long.clone(), "&x=1"),
        ("glpat-", long.clone(), " x"),
        ("x ", format!("<<{}", "lorem ".repeat(40_000)), "\nafter"),
        (
            "x\n",
            format!("-----BEGIN PRIVATE KEY-----\n{lines}-----END PRIVATE KEY-----"),
            "\nafter",
        ),
    ] {
        let text = format!("{before}{secret}{after}");
        for size in [997, 50_000, text.len()] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (got, hidden) = run_unbounded(&pieces);

            assert!(
                !samples.iter().any(|sample| got.contains(sample)),
                "{before}"
            );
            assert!(!got.contains("lorem") && !got.contains("MIIB"), "{before}");
            assert!(got.ends_with(after) && got.len() < 200, "{before}: {got}");
            assert!(hidden >= 1);
        }
    }
}

fn run_unbounded(pieces: &[&[u8]]) -> (String, u64) {
    let mut stream = DetectStream::new(masks());
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &KEY, &mut out);
    }
    stream.finish(&KEY, &mut out);
    (String::from_utf8_lossy(&out).into_owned(), stream.hidden)
}

#[test]
fn a_secret_is_found_wherever_a_long_line_is_parted() {
    let card = "4111 1111 1111 1111";
    for offset in (0..LIMITS.line + 200).step_by(1021) {
        let text = format!("{},{card},{}", "x ".repeat(offset / 2), "y".repeat(40_000));
        let (got, hidden) = run_unbounded(&[text.as_bytes()]);
        assert!(!got.contains("1111") && hidden == 1, "{offset}");
    }
}

fn text() -> impl Strategy<Value = String> {
    let shard = prop_oneof![
        4 => prop::sample::select(corpus::texts()),
        2 => "[ -~]{0,40}",
        1 => "[A-Za-z0-9+/]{0,400}",
        1 => prop::sample::select(vec!["\n".to_owned(), "\r\n".to_owned(), " ".to_owned()]),
        1 => prop::sample::select(vec![
            "-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----", "-----END ", "eyJhbGciOiJIUzI1NiJ9.",
            "secret", "api_key=", "password: ", "Bearer ", "<<", ">>", "EMP-123456",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(shard, 0..16).prop_map(|shards| shards.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_pieces_give_the_same(text in text(), cuts in prop::collection::vec(1_usize..200, 1..20)) {
        let text = text.as_bytes();
        let mut pieces = Vec::new();
        let mut rest = text;
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = after;
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        for limits in [small(), LIMITS] {
            let one = run_any(limits, &[text]);
            prop_assert_eq!(&run_any(limits, &pieces), &one);
            prop_assert_eq!(&run_any(limits, &bytes), &one);
        }
    }

    #[test]
    fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let _ = run_any(small(), &pieces);
    }
}

fn run_any(limits: Limits, pieces: &[&[u8]]) -> (String, u64) {
    let mut stream = DetectStream::new(masks());
    stream.limits = limits;
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &KEY, &mut out);
    }
    stream.finish(&KEY, &mut out);
    (String::from_utf8_lossy(&out).into_owned(), stream.hidden)
}

fn coloured(limits: Limits, pieces: &[&[u8]]) -> String {
    let mut stream = DetectStream::new(masks()).through_colours();
    stream.limits = limits;
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &KEY, &mut out);
    }
    stream.finish(&KEY, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

const COLOURS: [&str; 5] = [
    "\x1b[31m",
    "\x1b[01;31m\x1b[K",
    "\x1b[m\x1b[K",
    "\x1b(B\x1b[m",
    "\x0f",
];

#[test]
fn a_secret_with_a_colour_in_it_is_hidden_and_the_colour_stays() {
    let plain = run(LIMITS, &[b"key AKIAIOSFODNN7EXAMPLF end\n"]).0;
    assert!(!plain.contains("AKIA"));
    let (before, after) = plain.split_at(plain.find(" end").unwrap());
    for colour in COLOURS {
        let text = format!("key AKIA{colour}IOSFODNN7EXAMPLF end\n");
        assert_eq!(
            coloured(LIMITS, &[text.as_bytes()]),
            format!("{before}{colour}{after}")
        );
    }
    let around = "\x1b[1mkey \x1b[31mAKIAIOSFODNN7EXAMPLF\x1b[0m end\n\x1b[2m";
    let expected = format!(
        "\x1b[1m{}\x1b[31m{}\x1b[0m{after}\x1b[2m",
        "key ",
        before.strip_prefix("key ").unwrap()
    );
    assert_eq!(coloured(LIMITS, &[around.as_bytes()]), expected);
}

#[test]
fn colours_do_not_wait_for_the_text_behind_them() {
    let mut stream = DetectStream::new(masks()).through_colours();
    let mut out = Vec::new();
    stream.push(b"\x1b[?25l\x1b[32m", &KEY, &mut out);
    assert_eq!(out, b"");
    stream.flush(&KEY, &mut out);
    assert_eq!(out, b"\x1b[?25l\x1b[32m");
    out.clear();
    stream.push(b"line\r\n\x1b[0m", &KEY, &mut out);
    assert_eq!(out, b"line\r\n\x1b[0m");
}

#[test]
fn colours_without_end_are_not_kept() {
    let mut stream = DetectStream::new(masks()).through_colours();
    stream.limits = small();
    let mut out = Vec::new();
    stream.push(b"x", &KEY, &mut out);
    for _ in 0..100_000 {
        stream.push(b"\x1b[31m", &KEY, &mut out);
    }
    assert!(out.len() > 300_000, "{}", out.len());
    stream.finish(&KEY, &mut out);
    assert_eq!(out.len(), 500_001);
}

proptest! {
    #[test]
    fn colours_change_nothing_of_what_is_hidden_and_keep_their_order(
        words in proptest::collection::vec(
            prop_oneof![
                Just("AKIAIOSFODNN7EXAMPLF".to_owned()),
                Just("a@example.com".to_owned()),
                Just("4111 1111 1111 1111".to_owned()),
                Just("EMP-123456".to_owned()),
                Just("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----".to_owned()),
                "[a-z ]{0,12}",
                Just("\n".to_owned()),
            ],
            0..10,
        ),
        places in proptest::collection::vec((any::<prop::sample::Index>(), 0..COLOURS.len()), 0..12),
        piece in 1..40_usize,
    ) {
        let text = words.join(" ");
        let mut places: Vec<(usize, usize)> = places
            .iter()
            .map(|(place, colour)| (place.index(text.len() + 1), *colour))
            .collect();
        places.sort_unstable();
        let (mut mixed, mut done, mut order) = (String::new(), 0, String::new());
        for (place, colour) in &places {
            mixed.push_str(text.get(done..*place).unwrap());
            mixed.push_str(COLOURS[*colour]);
            order.push_str(COLOURS[*colour]);
            done = *place;
        }
        mixed.push_str(text.get(done..).unwrap());
        let pieces: Vec<&[u8]> = mixed.as_bytes().chunks(piece).collect();
        let shown = coloured(LIMITS, &pieces);
        prop_assert_eq!(&coloured(LIMITS, &[mixed.as_bytes()]), &shown);
        let mut colours = Colours::default();
        let mut plain = Vec::new();
        colours.split(shown.as_bytes(), &mut plain);
        let mut left = Vec::new();
        colours.put_back(usize::MAX, &mut left);
        prop_assert_eq!(String::from_utf8(left).unwrap(), order);
        let expected = run(LIMITS, &[text.as_bytes()]).0;
        prop_assert_eq!(String::from_utf8(plain).unwrap(), expected);
    }
}
