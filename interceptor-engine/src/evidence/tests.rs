//! Whatever is done to a recording is found, at its place.

use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::finding::{Finding, What};
use super::ledger::{Expected, Ledger, Note, Trust};
use super::session::{Outcome, SessionCheck};
use super::statement::{Line, PublicKey, SessionHead, Signed, State, Statement, Void, head};
use crate::chain::{Fields, Hasher, Head};

const SESSION: Uuid = Uuid::from_u128(0x0199_a000_0000_7000_8000_0000_0000_0007);
const OURS: PublicKey = PublicKey([7; 32]);
const THEIRS: PublicKey = PublicKey([9; 32]);

type Entry = (String, Vec<(String, Vec<u8>)>);

/// Stands in for Ed25519: only who knows how can make it, and tests do.
fn sign(key: PublicKey, message: &[u8]) -> [u8; 64] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"only the host knows")
        .chain_update(key.0)
        .chain_update(message)
        .finalize()
        .into();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&digest);
    signature
}

fn is_signed(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    sign(*key, message) == *signature
}

/// A session's entries, and the chain's value after each.
fn recording(lines: &[String]) -> (Vec<Entry>, Vec<Head>) {
    let mut hasher = Hasher::default();
    let session = SESSION.to_string();
    let opened = (SESSION.as_u128() >> 80) as u64;
    let (mut entries, mut heads, mut head) = (Vec::new(), Vec::new(), Head::START);
    for (seq, line) in lines.iter().enumerate() {
        let kind = match seq {
            0 => "open",
            last if last + 1 == lines.len() => "close",
            _ => "command",
        };
        let (number, at) = (seq.to_string(), (seq * 700).to_string());
        let fields = Fields {
            session: session.as_bytes(),
            seq: number.as_bytes(),
            at: at.as_bytes(),
            kind: kind.as_bytes(),
            run: b"run-1",
            line: line.as_bytes(),
            ..Fields::default()
        };
        head = hasher.next(head, &fields);
        heads.push(head);
        let fields = [
            ("seq", fields.seq),
            ("at", fields.at),
            ("kind", fields.kind),
            ("run", fields.run),
            ("line", fields.line),
            ("chain", &head.to_hex()),
        ];
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let id = format!("{}-{}", opened + seq as u64 * 700 / 1000, seq + 1);
        entries.push((id, fields.collect()));
    }
    (entries, heads)
}

/// Makes statements as a host does.
struct Host {
    key: PublicKey,
    number: u64,
    previous: Head,
    /// Entries of `sessions`.
    stated: Vec<Vec<(&'static str, String)>>,
}

impl Host {
    fn new(key: PublicKey) -> Self {
        let mut host = Self {
            key,
            number: 0,
            previous: Head::START,
            stated: Vec::new(),
        };
        host.heads(&[Line::Key(key)]);
        host
    }

    fn state(&mut self, body: String) -> Signed {
        self.number += 1;
        let statement = Statement {
            host: "h",
            key: self.key,
            number: self.number,
            previous: self.previous,
            at: "2026-01-02T03:04:05Z",
            body: &body,
        };
        let bytes = statement.bytes();
        self.previous = head(&bytes);
        Signed {
            host: "h".into(),
            key: self.key,
            number: self.number,
            previous: statement.previous,
            at: statement.at.into(),
            body: body.clone(),
            signature: sign(self.key, &bytes),
        }
    }

    fn heads(&mut self, lines: &[Line]) {
        self.says("heads", lines);
    }

    /// An entry of `sessions` that is a statement beside what it is for readers.
    fn says(&mut self, event: &str, lines: &[Line]) {
        let body: String = lines.iter().map(Line::to_string).collect();
        let signed = self.state(body);
        let mut fields = vec![
            ("event", event.to_owned()),
            ("host", "h".to_owned()),
            ("heads", signed.body.clone()),
        ];
        if event != "heads" {
            fields.push(("session", SESSION.to_string()));
        }
        fields.extend(signed.fields());
        self.stated.push(fields);
    }

    fn open(&mut self) {
        self.stated.push(vec![
            ("event", "open".to_owned()),
            ("session", SESSION.to_string()),
            ("host", "h".to_owned()),
        ]);
    }

    fn close(&mut self, head: SessionHead) {
        let signed = self.state(Line::Head(head).to_string());
        let mut fields = vec![
            ("event", "close".to_owned()),
            ("session", SESSION.to_string()),
            ("host", "h".to_owned()),
            ("events", head.events.to_string()),
            ("chain", head.chain.to_string()),
        ];
        fields.extend(signed.fields());
        self.stated.push(fields);
    }
}

fn at(events: usize, heads: &[Head], state: State) -> SessionHead {
    SessionHead {
        session: SESSION,
        events: events as u64,
        chain: heads[events - 1],
        state,
    }
}

fn pinned() -> Trust {
    Trust {
        pins: [("h".to_owned(), vec![OURS])].into(),
        only_pins: true,
    }
}

fn ledger(trust: Trust, stated: &[Vec<(&'static str, String)>]) -> Ledger {
    let mut ledger = Ledger::new(trust, is_signed);
    for (at, fields) in stated.iter().enumerate() {
        ledger.entry(&format!("1-{at}"), |name| {
            let found = fields.iter().find(|(field, _)| *field == name);
            found.map_or(String::new(), |(_, value)| value.clone())
        });
    }
    ledger
}

fn check(entries: &[Entry], expected: &Expected) -> Outcome {
    let mut check = SessionCheck::new(SESSION, expected);
    for (id, fields) in entries {
        if !check.entry(id, fields.clone()) {
            break;
        }
    }
    check.end()
}

/// A session that was recorded, signed in the middle and at its end.
struct Scene {
    entries: Vec<Entry>,
    heads: Vec<Head>,
    host: Host,
    middle: usize,
}

fn scene(lines: &[String]) -> Scene {
    let (entries, heads) = recording(lines);
    let mut host = Host::new(OURS);
    let middle = entries.len() / 2;
    host.open();
    host.heads(&[Line::Head(at(middle, &heads, State::Open))]);
    host.close(at(entries.len(), &heads, State::Closed));
    host.heads(&[]);
    Scene {
        entries,
        heads,
        host,
        middle,
    }
}

impl Scene {
    fn of(count: usize) -> Self {
        let lines: Vec<String> = (0..count).map(|n| format!("line {n}")).collect();
        scene(&lines)
    }

    fn expected(&self) -> Expected {
        let mut ledger = ledger(pinned(), &self.host.stated);
        assert_eq!(ledger.findings(), []);
        assert_eq!(ledger.missing(true, true), []);
        ledger.session(SESSION).unwrap().clone()
    }

    fn check(&self, entries: &[Entry]) -> Outcome {
        check(entries, &self.expected())
    }
}

fn found(outcome: &Outcome) -> (Option<u64>, &What) {
    let finding = outcome.finding.as_ref().expect("nothing was found");
    (finding.place.seq, &finding.what)
}

#[test]
fn what_was_recorded_is_right() {
    let scene = Scene::of(9);
    let outcome = scene.check(&scene.entries);
    assert_eq!(outcome.finding, None);
    assert!(outcome.is_closed);
    assert_eq!((outcome.events, outcome.signed), (9, 9));
}

#[test]
fn an_open_session_is_right_up_to_its_last_signed_head() {
    let scene = Scene::of(9);
    let stated = &scene.host.stated[..3];
    let ledger = ledger(pinned(), stated);
    let outcome = check(&scene.entries[..7], ledger.session(SESSION).unwrap());
    assert_eq!(outcome.finding, None);
    assert!(!outcome.is_closed);
    assert_eq!((outcome.events, outcome.signed), (7, 4));
}

#[test]
fn a_chain_made_anew_is_found_by_the_next_signature() {
    let scene = Scene::of(9);
    for changed in 0..9 {
        let mut lines: Vec<String> = (0..9).map(|n| format!("line {n}")).collect();
        lines[changed] = "nothing was done".to_owned();
        let (forged, _) = recording(&lines);
        let outcome = scene.check(&forged);
        let (seq, what) = found(&outcome);
        let What::Rewritten { from, to, .. } = what else {
            panic!("{what}")
        };
        assert!((*from..=*to).contains(&(changed as u64)), "{from} {to}");
        assert_eq!(seq, Some(*from));
        assert_eq!(*to + 1, if changed < scene.middle { 4 } else { 9 });
    }
}

#[test]
fn who_has_no_key_cannot_sign_what_was_made_anew() {
    let scene = Scene::of(9);
    let (forged, heads) = recording(&vec!["forged".to_owned(); 9]);
    // With a key of their own, and with a signature of somebody's in the name of ours.
    for (key, claimed) in [(THEIRS, THEIRS), (THEIRS, OURS)] {
        let mut theirs = Host::new(key);
        theirs.open();
        theirs.close(at(9, &heads, State::Closed));
        for fields in &mut theirs.stated {
            for (name, value) in fields {
                if *name == "signed_by" {
                    *value = claimed.to_string();
                }
            }
        }
        let mut ledger = ledger(pinned(), &theirs.stated);
        let findings = ledger.findings();
        assert_eq!(findings.len(), 2, "{findings:?}");
        for Finding { what, .. } in findings {
            let right = match claimed == OURS {
                true => matches!(what, What::Signature { .. }),
                false => matches!(what, What::Key { key: THEIRS, .. }),
            };
            assert!(right, "{what}");
        }
        let outcome = check(&forged, ledger.session(SESSION).unwrap());
        assert_eq!(found(&outcome).1, &What::Unsigned);
    }
    // Beside the true statements, it is found in the recording, too.
    assert!(matches!(
        found(&scene.check(&forged)).1,
        What::Rewritten { from: 0, .. }
    ));
}

#[test]
fn a_host_whose_key_is_not_pinned_is_noted() {
    let scene = Scene::of(9);
    let mut ledger = ledger(Trust::default(), &scene.host.stated);
    assert_eq!(ledger.findings(), []);
    assert_eq!(
        ledger.notes(),
        [Note::Unpinned {
            host: "h".into(),
            key: OURS
        }]
    );
}

#[test]
fn a_tail_that_was_cut_and_a_recording_that_is_gone_are_found() {
    let scene = Scene::of(9);
    for left in 0..9 {
        let outcome = scene.check(&scene.entries[..left]);
        let (seq, what) = found(&outcome);
        assert_eq!(seq, Some(left as u64));
        match what {
            What::Gone { events: 9, .. } => assert_eq!(left, 0),
            What::Cut { events: 9, .. } => assert_ne!(left, 0),
            other => panic!("{other}"),
        }
    }
    // The close was deleted, too: the head in the middle still names it.
    let stated = &scene.host.stated[..3];
    let ledger = ledger(pinned(), stated);
    let outcome = check(&[], ledger.session(SESSION).unwrap());
    assert!(matches!(found(&outcome).1, What::Gone { events: 4, .. }));
}

#[test]
fn a_missing_statement_is_found_by_the_one_after_it() {
    let scene = Scene::of(9);
    let numbers: Vec<u64> = (1..=4).collect();
    // Of the entries, the second is the opening, which is not signed.
    for (number, index) in numbers.into_iter().zip([0, 2, 3]) {
        let mut stated = scene.host.stated.clone();
        stated.remove(index);
        let ledger = ledger(pinned(), &stated);
        let missing: Vec<What> = ledger
            .missing(true, true)
            .into_iter()
            .map(|f| f.what)
            .collect();
        assert_eq!(
            missing,
            [What::Statements {
                from: number,
                to: number
            }]
        );
    }
    // Two at once, and what the session then lacks.
    let mut stated = scene.host.stated.clone();
    stated.drain(2..4);
    let ledger = ledger(pinned(), &stated);
    let missing: Vec<What> = ledger
        .missing(true, true)
        .into_iter()
        .map(|f| f.what)
        .collect();
    assert_eq!(missing, [What::Statements { from: 2, to: 3 }]);
    let outcome = check(&scene.entries, ledger.session(SESSION).unwrap());
    assert_eq!(found(&outcome).1, &What::NoClose);
}

#[test]
fn a_missing_statement_does_not_hide_behind_one_that_cannot_be_believed() {
    let scene = Scene::of(9);
    let mut stated = scene.host.stated.clone();
    // Number three; number two is taken away.
    for (name, value) in &mut stated[3] {
        if *name == "signed_at" {
            value.push('x');
        }
    }
    stated.remove(2);
    let mut ledger = ledger(pinned(), &stated);
    assert!(matches!(
        ledger.findings()[..],
        [Finding {
            what: What::Signature { number: 3 },
            ..
        }]
    ));
    let holes = |are_told| -> Vec<What> {
        let missing = ledger.missing(true, are_told).into_iter();
        missing.map(|finding| finding.what).collect()
    };
    assert_eq!(holes(true), [What::Statements { from: 2, to: 2 }]);
    assert_eq!(holes(false), [What::Statements { from: 2, to: 3 }]);
}

#[test]
fn a_statement_that_was_sent_twice_is_one() {
    let scene = Scene::of(9);
    let mut stated = scene.host.stated.clone();
    stated.push(scene.host.stated[3].clone());
    let mut ledger = ledger(pinned(), &stated);
    assert_eq!(ledger.findings(), []);
    assert_eq!(ledger.missing(true, true), []);
    assert_eq!(ledger.notes(), []);
}

#[test]
fn a_key_that_was_rotated_vouches_for_the_next_and_signs_no_more() {
    let mut host = Host::new(OURS);
    let (entries, heads) = recording(&vec!["l".to_owned(); 4]);
    host.open();
    host.close(at(4, &heads, State::Closed));
    host.heads(&[Line::Key(THEIRS)]);
    host.key = THEIRS;
    host.heads(&[]);
    let mut whole = ledger(pinned(), &host.stated);
    assert_eq!(whole.findings(), []);
    assert_eq!(whole.missing(true, true), []);
    let outcome = check(&entries, whole.session(SESSION).unwrap());
    assert_eq!(outcome.finding, None);

    host.key = OURS;
    host.heads(&[]);
    let mut late = ledger(pinned(), &host.stated);
    let what = late.findings().pop().unwrap().what;
    assert!(
        matches!(
            what,
            What::Replaced {
                number: 5,
                replaced: 3,
                ..
            }
        ),
        "{what}"
    );
}

#[test]
fn any_change_of_a_statement_is_found() {
    let scene = Scene::of(5);
    for index in [0, 2, 3, 4] {
        for (field, _) in scene.host.stated[index].iter().enumerate() {
            let mut stated = scene.host.stated.clone();
            let (name, value) = &mut stated[index][field];
            if *name == "event" {
                continue;
            }
            // Another digit or letter of the same kind.
            let last = value.pop().map_or('x', |last| match last {
                '1' => '2',
                'a' => 'b',
                'a'..='z' => 'a',
                '\n' => 'x',
                _ => '1',
            });
            value.push(last);
            let name = *name;
            let mut ledger = ledger(pinned(), &stated);
            let mut findings = ledger.findings();
            findings.extend(ledger.missing(true, true));
            let outcome = check(&scene.entries, ledger.session(SESSION).unwrap());
            findings.extend(outcome.finding);
            assert!(!findings.is_empty(), "{name} of {index}");
        }
    }
}

/// What somebody does to a recording.
#[derive(Clone, Debug)]
enum Tampering {
    Flip(Index, Index, Index, u8),
    Drop(Index),
    Swap(Index),
    Duplicate(Index),
    Cut(Index),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), index(), index(), 0..8_u8)
            .prop_map(|(event, field, byte, bit)| Tampering::Flip(event, field, byte, bit)),
        1 => index().prop_map(Tampering::Drop),
        1 => index().prop_map(Tampering::Swap),
        1 => index().prop_map(Tampering::Duplicate),
        1 => index().prop_map(Tampering::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The first event that cannot be believed is named.
    #[test]
    fn whatever_is_done_to_one_event_is_found_there(
        lines in prop::collection::vec("[a-z]{1,12}", 3..12),
        tampering in tampering(),
    ) {
        let scene = scene(&lines);
        let mut entries = scene.entries.clone();
        let place = match &tampering {
            Tampering::Flip(event, field, byte, bit) => {
                let event = event.index(entries.len());
                let fields = &mut entries[event].1;
                let field = field.index(fields.len());
                let value = &mut fields[field].1;
                let byte = byte.index(value.len());
                value[byte] ^= 1 << bit;
                event
            }
            Tampering::Drop(event) => {
                let event = event.index(entries.len());
                entries.remove(event);
                event
            }
            Tampering::Swap(event) => {
                let event = event.index(entries.len() - 1);
                entries.swap(event, event + 1);
                event
            }
            Tampering::Duplicate(event) => {
                let event = event.index(entries.len());
                let again = entries[event].clone();
                entries.insert(event + 1, again);
                event + 1
            }
            Tampering::Cut(event) => {
                let left = event.index(entries.len());
                entries.truncate(left);
                left
            }
        };
        let outcome = scene.check(&entries);
        let (seq, what) = found(&outcome);
        prop_assert_eq!(seq, Some(place as u64), "{}", what);
        match tampering {
            Tampering::Swap(_) => prop_assert_eq!(what, &What::Swapped { with: place as u64 + 1 }),
            Tampering::Drop(event) if event.index(lines.len()) + 1 < lines.len() => {
                let seq = place as u64;
                prop_assert_eq!(what, &What::Removed { seq, up_to: seq });
            }
            Tampering::Duplicate(_) => prop_assert_eq!(what, &What::Again { seq: place as u64 - 1 }),
            _ => {}
        }
    }

    /// The parts of two neighbours are exchanged, and their numbers and IDs are not.
    #[test]
    fn a_swap_under_the_numbers_is_named(at in 0_usize..7) {
        let scene = Scene::of(9);
        let mut entries = scene.entries.clone();
        let (first, second) = (at + 1, at + 2);
        for (name, index) in [("at", 1), ("kind", 2), ("run", 3), ("line", 4), ("chain", 5)] {
            let value = entries[first].1[index].1.clone();
            prop_assert_eq!(&entries[first].1[index].0, name);
            entries[first].1[index].1 = std::mem::replace(&mut entries[second].1[index].1, value);
        }
        // `at` and the event's own number belong together, so only content is compared.
        let outcome = scene.check(&entries);
        prop_assert_eq!(found(&outcome).0, Some(first as u64));
    }
}

#[test]
fn a_field_that_no_recorder_writes_and_an_id_that_does_not_follow_are_found() {
    let scene = Scene::of(5);
    let mut entries = scene.entries.clone();
    entries[2].1.push(("note".into(), b"trust me".to_vec()));
    assert_eq!(
        found(&scene.check(&entries)),
        (Some(2), &What::Field("note".into()))
    );
    let mut entries = scene.entries.clone();
    entries[3].0 = "1-1".into();
    let outcome = scene.check(&entries);
    assert_eq!(found(&outcome).0, Some(3));
    assert!(matches!(found(&outcome).1, What::Id { .. }));
    let _ = &scene.heads;
}

#[test]
fn which_of_event_and_chain_value_was_changed_is_told() {
    let scene = Scene::of(6);
    let mut entries = scene.entries.clone();
    entries[2].1[4].1 = b"harmless".to_vec();
    assert_eq!(found(&scene.check(&entries)), (Some(2), &What::Changed));
    for event in [2, 5] {
        let mut entries = scene.entries.clone();
        entries[event].1[5].1 = scene.heads[0].to_hex().to_vec();
        assert_eq!(
            found(&scene.check(&entries)),
            (Some(event as u64), &What::ChainChanged)
        );
    }
}

/// What stands in `sessions` of the scene's opening or close.
fn listing(scene: &Scene, event: &str, agent: &str) -> Vec<(String, Vec<u8>)> {
    let line = match event {
        "open" => "line 0".to_owned(),
        _ => format!("line {}", scene.entries.len() - 1),
    };
    let fields = [
        ("event", event),
        ("session", &SESSION.to_string()),
        ("host", "h"),
        ("agent", agent),
        ("run", "run-1"),
        ("line", &line),
        ("signed_at", "then"),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    fields.to_vec()
}

#[test]
fn what_the_list_says_of_a_session_is_what_the_recording_says() {
    let scene = Scene::of(6);
    let check_listed = |listed: &[Vec<(String, Vec<u8>)>]| {
        let mut ledger = ledger(pinned(), &scene.host.stated);
        for fields in listed {
            ledger.listed(fields);
        }
        let outcome = check(&scene.entries, ledger.session(SESSION).unwrap());
        outcome.finding.map(|finding| finding.what)
    };
    let (open, close) = (listing(&scene, "open", ""), listing(&scene, "close", ""));
    assert_eq!(check_listed(&[open.clone(), close.clone()]), None);
    // After a crash, one stands there twice.
    assert_eq!(check_listed(&[close.clone(), open.clone(), close]), None);
    for event in ["open", "close"] {
        let other = listing(&scene, event, "somebody-else");
        let found = Some(What::Listed { event });
        // Beside the right one, too, whichever comes first.
        assert_eq!(check_listed(std::slice::from_ref(&other)), found);
        let right = listing(&scene, event, "");
        assert_eq!(check_listed(&[right.clone(), other.clone()]), found);
        assert_eq!(check_listed(&[other, right]), found);
    }
    let mut more = open;
    more.push(("verdict".to_owned(), b"allow".to_vec()));
    assert_eq!(
        check_listed(&[more]),
        Some(What::Listed { event: "open" }),
        "a field that the opening does not have"
    );
}

/// What somebody writes into `sessions` who has no key.
fn unsigned(event: &str) -> Vec<(&'static str, String)> {
    vec![
        ("event", event.to_owned()),
        ("session", SESSION.to_string()),
        ("host", "h".to_owned()),
        ("by", "retention".to_owned()),
        ("events", "6".to_owned()),
    ]
}

#[test]
fn a_removal_counts_that_a_host_signed() {
    let scene = Scene::of(6);
    let gone = |lines: &[(&str, State, usize)], more: &[Vec<(&'static str, String)>]| {
        let mut scene = Scene::of(6);
        for (event, state, events) in lines {
            let head = at(*events, &scene.heads, *state);
            scene.host.says(event, &[Line::Head(head)]);
        }
        scene.host.stated.extend(more.iter().cloned());
        let ledger = ledger(pinned(), &scene.host.stated);
        check(&[], ledger.session(SESSION).unwrap())
    };
    let removed = ("removed", State::Removed, 6);
    let restored = ("restored", State::Restored, 6);
    let word = |outcome: &Outcome| outcome.finding.as_ref().map(|finding| finding.what.name());
    let outcome = gone(&[removed], &[]);
    assert_eq!((outcome.is_removed, word(&outcome)), (true, None));
    let outcome = gone(&[removed, restored, removed], &[]);
    assert_eq!((outcome.is_removed, word(&outcome)), (true, None));
    for (what, lines, more) in [
        ("gone", &[][..], &[][..]),
        ("removal", &[], &[unsigned("removed")]),
        ("gone", &[], &[unsigned("removed"), unsigned("restored")]),
        // It came back, and went again by nobody's order.
        ("gone", &[removed, restored], &[]),
        ("removal", &[removed, restored], &[unsigned("removed")]),
        // What was removed was not all that was signed.
        ("gone", &[("removed", State::Removed, 5)], &[]),
    ] {
        let outcome = gone(lines, more);
        assert_eq!(
            (outcome.is_removed, word(&outcome)),
            (false, Some(what)),
            "{lines:?}"
        );
    }
    // One that says it and is there is looked at as ever.
    let mut there = Scene::of(6);
    let head = at(6, &there.heads, State::Removed);
    there.host.says("removed", &[Line::Head(head)]);
    let mut entries = scene.entries;
    assert_eq!(there.check(&entries).finding, None);
    entries.truncate(5);
    assert_eq!(word(&there.check(&entries)), Some("cut"));
}

/// A host with so many statements, and what is left of them when the first go.
fn trimmed(host: &Host, gone: usize) -> Vec<Vec<(&'static str, String)>> {
    host.stated.iter().skip(gone).cloned().collect()
}

fn id(entry: &str) -> (u64, u64) {
    let (millis, counter) = entry.split_once('-').unwrap();
    (millis.parse().unwrap(), counter.parse().unwrap())
}

#[test]
fn a_beginning_may_be_missing_where_a_host_signed_that_it_went() {
    let mut host = Host::new(OURS);
    for _ in 1..10 {
        host.heads(&[]);
    }
    let whole = ledger(pinned(), &host.stated);
    let lines = whole.trim((1, 4), id);
    let [Line::Trimmed(line)] = &*lines else {
        panic!("{lines:?}")
    };
    assert_eq!((line.number, line.before, &*line.host), (4, (1, 4), "h"));

    let holes = |stated: &[Vec<(&'static str, String)>]| -> Vec<(u64, u64)> {
        let missing = ledger(pinned(), stated).missing(true, true);
        let holes = missing.into_iter().map(|finding| match finding.what {
            What::Statements { from, to } => (from, to),
            other => panic!("{other}"),
        });
        holes.collect()
    };
    assert_eq!(holes(&trimmed(&host, 4)), [(1, 4)]);
    // Somebody says so, and signs nothing.
    let mut lied = trimmed(&host, 4);
    lied.push(unsigned("trimmed"));
    assert_eq!(holes(&lied), [(1, 4)]);
    let findings = ledger(pinned(), &lied).findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].what, What::Trimmed);

    host.says("trimmed", &lines);
    assert_eq!(holes(&trimmed(&host, 4)), []);
    assert_eq!(holes(&host.stated), [], "nothing has to go");
    assert_eq!(
        holes(&trimmed(&host, 6)),
        [(5, 6)],
        "more went than was signed"
    );
    let mut hole = trimmed(&host, 4);
    hole.remove(2);
    assert_eq!(holes(&hole), [(7, 7)]);

    // The next time: what was said is said again, or gone with the line that says it.
    let left = trimmed(&host, 4);
    let lines = ledger(pinned(), &left).trim((1, 2), id);
    assert!(
        matches!(&*lines, [Line::Trimmed(line)] if line.number == 6),
        "{lines:?}"
    );
    let lines = ledger(pinned(), &left).trim((0, 0), id);
    assert!(
        matches!(&*lines, [Line::Trimmed(line)] if line.number == 4),
        "{lines:?}"
    );
}

/// Else who takes something away had only to wait until the rest goes in time.
#[test]
fn what_was_missing_before_a_beginning_went_is_missing_afterwards() {
    let mut host = Host::new(OURS);
    for _ in 1..10 {
        host.heads(&[]);
    }
    host.stated.remove(2);
    let lines = ledger(pinned(), &host.stated).trim((1, 6), id);
    assert!(
        matches!(&*lines, [Line::Trimmed(line)] if line.number == 2),
        "{lines:?}"
    );
    host.says("trimmed", &lines);
    let left = trimmed(&host, 6);
    let missing = ledger(pinned(), &left).missing(true, true);
    let what: Vec<_> = missing.into_iter().map(|finding| finding.what).collect();
    assert_eq!(what, [What::Statements { from: 3, to: 7 }]);
}

#[test]
fn a_host_that_was_killed_takes_back_what_it_signed_beyond_what_is_on_record() {
    let of = |events: usize, number: u64, is_first: bool| {
        let mut scene = Scene::of(6);
        scene.host.stated.retain(|fields| fields[0].1 != "close");
        scene.host.stated.pop();
        (scene.host.number, scene.host.previous) = (2, Head::START);
        let closed = at(6, &scene.heads, State::Closed);
        scene.host.heads(&[Line::Head(closed)]);
        let real = at(5, &scene.heads, State::Open);
        let void = Void {
            number,
            session: SESSION,
            events: events as u64,
            chain: real.chain,
        };
        scene.host.heads(&[Line::Void(void)]);
        if is_first {
            let last = scene.host.stated.len() - 1;
            scene.host.stated.swap(last - 1, last);
        }
        let ledger = ledger(pinned(), &scene.host.stated);
        let notes = ledger.notes();
        let expected = ledger.session(SESSION).unwrap();
        (
            check(&scene.entries[..5], expected).finding,
            check(&scene.entries[..4], expected).finding,
            notes,
        )
    };
    for is_first in [false, true] {
        let (five, four, notes) = of(5, 3, is_first);
        assert_eq!(five, None);
        assert!(
            matches!(four.unwrap().what, What::Cut { events: 5, .. }),
            "what it kept counts"
        );
        assert!(
            matches!(
                &*notes,
                [Note::Void {
                    number: 3,
                    events: 5,
                    ..
                }]
            ),
            "{notes:?}"
        );
        // Of another statement, or for more than it says.
        assert!(of(5, 2, is_first).0.is_some());
        assert!(of(6, 3, is_first).0.is_some());
    }
}
