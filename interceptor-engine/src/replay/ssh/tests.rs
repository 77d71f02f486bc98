//! A shell that tries what a terminal would obey, shown in every way.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::cast::Cast;
use super::filter::{Filter, Utf8, reset};
use super::lines::Lines;
use super::screen::{Player, Step};
use super::terminals::{Terminals, Unclear};
use crate::event::FlowTime;
use crate::replay::text::{self, Style};
use crate::replay::{Entry, Timeline};

fn entry(at: u64, kind: &str, exchange: u64, line: &str, meta: Value) -> Entry {
    Entry {
        at: FlowTime(at),
        kind: kind.to_owned(),
        exchange: (exchange > 0).then_some(exchange),
        line: line.to_owned(),
        meta,
        ..Entry::default()
    }
}

fn drawn(at: u64, channel: u64, data: &[u8]) -> Entry {
    let meta = json!({"channel": channel, "stream": "stdout", "terminal": true});
    let mut entry = entry(at, "output", channel, "", meta);
    entry.data = data.to_vec();
    entry
}

fn command(at: u64, channel: u64, exchange: u64, line: &str, verdict: &str) -> Entry {
    let meta = json!({
        "channel": channel, "ssh": "shell", "verdict": verdict,
        "terminal": {"name": "xterm", "columns": 100, "rows": 30},
    });
    entry(at, "command", exchange, line, meta)
}

/// A shell on channel 1, and a command beside it on channel 2.
fn session() -> Vec<Entry> {
    let open = json!({
        "protocol": "ssh", "agent": "bot", "target": "build-host",
        "at_wall_ms": 1_700_000_000_123_u64,
    });
    let mut output = entry(
        3_200_000,
        "output",
        4,
        "3 bytes of stdout",
        json!({"channel": 2, "stream": "stdout"}),
    );
    output.data = b"up\n".to_vec();
    vec![
        entry(0, "open", 0, "ssh to build-host", open),
        entry(
            900_000,
            "channel",
            0,
            "channel 1: session",
            json!({"channel": 1}),
        ),
        command(1_000_000, 1, 1, "a shell", "allow"),
        drawn(1_500_000, 1, b"\x1b[?2004h\x1b[01;32mbot@host\x1b[00m:~$ "),
        drawn(2_000_000, 1, b"l"),
        drawn(2_100_000, 1, b"s\r\n\x1b[?2004l"),
        command(2_100_100, 1, 2, "ls", "allow"),
        // A character in two parts, and what attacks who looks at it.
        drawn(2_200_000, 1, b"caf\xc3"),
        drawn(
            2_200_500,
            1,
            b"\xa9\r\n\x1b]52;c;cm0gLXJmIC8K\x07\x1b]0;title\x1b\\\x1b[6n\x05",
        ),
        entry(
            2_900_000,
            "resize",
            1,
            "120 by 40",
            json!({"channel": 1, "columns": 120, "rows": 40}),
        ),
        entry(
            3_000_000,
            "command",
            4,
            "uptime",
            json!({"channel": 2, "ssh": "exec", "verdict": "allow", "command": "uptime"}),
        ),
        output,
        entry(
            3_300_000,
            "result",
            4,
            "exit 0 · 0 bytes in, 3 bytes out · 1.000 ms",
            json!({"channel": 2, "ssh": "exec", "status": 0}),
        ),
        command(4_000_000, 1, 3, "rm -rf /", "block"),
        entry(
            4_000_100,
            "verdict",
            3,
            "block by no: not here",
            json!({"verdict": "block", "rule": "no", "message": "not here"}),
        ),
        drawn(4_000_200, 1, b"\r\n\x1b[0minterceptor: not here\r\n"),
        entry(
            5_000_000,
            "result",
            1,
            "exit 0 · 5 bytes in, 90 bytes out · 4000.000 ms",
            json!({"channel": 1, "ssh": "shell", "status": 0}),
        ),
        entry(
            5_000_500,
            "close",
            0,
            "the agent closed it",
            json!({"reason": "the agent closed it"}),
        ),
    ]
}

fn terminals(entries: &[Entry]) -> Terminals {
    let mut found = Terminals::default();
    entries.iter().for_each(|entry| found.push(entry));
    found
}

fn cast(from: u64) -> String {
    let entries = session();
    let all = terminals(&entries);
    let terminal = all.choose(None).unwrap();
    let mut cast = Cast::new("s", &all, terminal, FlowTime(from), Some(2.0));
    let mut text = cast.header().to_owned();
    for entry in &entries {
        text.push_str(&cast.push(entry));
    }
    text + &cast.finish()
}

#[test]
fn a_player_of_asciicasts_gets_output_sizes_and_marks_and_nothing_that_attacks() {
    let text = cast(0);
    assert_eq!(text, include_str!("golden/shell.cast"));
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["version"], 2);
    let mut last = 0.0;
    for line in lines {
        let (at, kind, data): (f64, String, String) = serde_json::from_str(line).unwrap();
        assert!(
            at >= last && ["o", "r", "m"].contains(&kind.as_str()),
            "{line}"
        );
        assert!(!data.contains("\x1b]") && !data.contains("[6n"), "{line}");
        last = at;
    }
}

#[test]
fn what_was_drawn_before_the_start_is_there_at_once() {
    let text = cast(3_000_000);
    assert!(text.contains("[0.000000, \"o\", \"l\"]"), "{text}");
    assert!(
        text.contains("[1.000000, \"m\", \"block: rm -rf /\"]"),
        "{text}"
    );
    assert!(text.contains("\"timestamp\":1700000003"), "{text}");
}

#[test]
fn a_terminal_is_drawn_and_what_happened_meanwhile_is_told_behind_it() {
    let entries = session();
    let terminal = terminals(&entries).choose(None).unwrap().clone();
    let mut player = Player::new(terminal, Timeline::new(10));
    let mut text = String::new();
    let mut take = |steps: Vec<Step>| {
        for step in steps {
            text.push_str(&match step {
                Step::Item(item) => text::render(&item, Style::default()),
                Step::Begin(size) => format!("<begin {size}>\n"),
                Step::Draw(text) => text.escape_default().to_string() + "\n",
                Step::End(text) => format!("{}\n<end>\n", text.escape_default()),
                Step::More(more) => format!("<{more} more>\n"),
            });
        }
    };
    entries.iter().for_each(|entry| take(player.push(entry)));
    take(player.finish());
    assert_eq!(text, include_str!("golden/shell.steps"));
}

#[test]
fn where_nothing_draws_a_terminal_is_lines_of_text_that_nothing_obeys() {
    let mut lines = Lines::default();
    let mut timeline = Timeline::new(10);
    let mut text = String::new();
    for entry in session() {
        for entry in lines.push(entry) {
            let item = timeline.push(&entry);
            text.extend(item.map(|item| text::render(&item, Style::default())));
        }
    }
    assert!(lines.finish().is_empty());
    assert_eq!(text, include_str!("golden/shell.txt"));
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn of_several_terminals_one_has_to_be_chosen_and_the_error_names_them() {
    let mut entries = session();
    assert_eq!(terminals(&[]).choose(None), Err(Unclear::None));
    entries.push(command(6_000_000, 3, 9, "top", "allow"));
    // One that was refused drew nothing.
    entries.push(command(6_000_000, 4, 10, "vi", "block"));
    entries.push(drawn(6_100_000, 3, b"x"));
    let all = terminals(&entries);
    let error = all.choose(None).unwrap_err().to_string();
    assert!(
        error.ends_with("1 (a shell, 100 by 30), 3 (top, 100 by 30)"),
        "{error}"
    );
    assert_eq!(all.choose(Some(3)).unwrap().what, "top");
    let error = all.choose(Some(4)).unwrap_err().to_string();
    assert!(error.starts_with("channel 4 has no terminal"), "{error}");
}

#[test]
fn what_draws_goes_through_as_it_is() {
    for sequence in [
        "plain é 漢字 🦀\r\n\t\u{8}\u{7}",
        "\x1b[1;38;2;10;20;30mcolour\x1b[38:5:7m\x1b[m",
        "\x1b[H\x1b[2J\x1b[10;20H\x1b[3A\x1b[K\x1b[1K\x1b[?25l\x1b[?25h\x1b[?7l",
        "\x1b[?1049h\x1b[2;20r\x1bM\x1bD\x1b7\x1b8\x1b[4h\x1b[4l\x1b[?1049l",
        "\x1b(0lqk\x1b(B\x0e\x0f\x1b[5 q\x1b[2P\x1b[3@\x1b[L\x1b[M\x1b[X",
        "\x1b[!p\x1b#8\x1b[S\x1b[T",
    ] {
        assert_eq!(Filter::default().push(sequence.as_bytes()), sequence);
    }
}

#[test]
fn what_a_terminal_would_answer_or_do_goes_nowhere() {
    for (hostile, left) in [
        // Answers: status, position, attributes, settings, modes, version, a name of ENQ's.
        ("a\x1b[5n\x1b[6n\x1b[?6nb", "ab"),
        ("a\x1b[c\x1b[>c\x1b[=c\x1bZb", "ab"),
        ("a\x1bP$qm\x1b\\\x1bP+q544e\x1b\\b", "ab"),
        ("a\x1b[?1$p\x1b[4$p\x1b[>q\x1b[x\x1b[?ub", "ab"),
        ("a\x05b", "ab"),
        // Titles, and telling them; the window.
        ("a\x1b]0;rm -rf /\x07\x1b[21t\x1b[20tb", "ab"),
        ("a\x1b[8;1;1t\x1b[3;0;0t\x1b[2t\x1b[?3hb", "ab"),
        // The clipboard, links, colours told, files, notices.
        ("a\x1b]52;c;cm0=\x07\x1b]52;c;?\x1b\\b", "ab"),
        ("a\x1b]8;;https://evil.example\x1b\\b\x1b]8;;\x1b\\", "ab"),
        (
            "a\x1b]11;?\x07\x1b]1337;File=inline=0:AAAA\x07\x1b]9;x\x07b",
            "ab",
        ),
        // The printer, the keyboard, the mouse, pastes, focus, other keys, updates held.
        ("a\x1b[5i\x1b[4i\x1b[2h\x1b[12lb", "ab"),
        (
            "a\x1b[?1000h\x1b[?1002;1006h\x1b[?2004h\x1b[?1004h\x1b[?2026hb",
            "ab",
        ),
        ("a\x1b[>4;2m\x1b[>1u\x1b[?1hb", "ab"),
        // What the viewer had before.
        ("a\x1b[3Jb", "ab"),
        // Another introducer, in one character of eight bits, in UTF-8 and raw.
        ("a\u{9b}6nb\u{9d}52;c;cm0=\u{9c}c", "abc"),
        ("user\u{202e}nimda\u{2066}", "usernimda"),
        // Broken off, and begun anew inside.
        ("a\x1b]52;c;\x1b[31mb\x1b[\x186nc", "a\x1b[31mb6nc"),
        ("a\x1b[6\x1b]52;c;x\x07b", "ab"),
        ("a\x1b[99999999bb\x1b[99999Cc", "abc"),
        // Only what draws, of several.
        ("\x1b[?1049;1000h\x1b[?1049l", "\x1b[?1049h\x1b[?1049l"),
        // A control in a sequence is done before it.
        ("\x1b[3\r1m", "\r\x1b[31m"),
    ] {
        assert_eq!(
            Filter::default().push(hostile.as_bytes()),
            left,
            "{hostile:?}"
        );
    }
    assert_eq!(Filter::default().push(b"a\x9b6nb"), "a\u{fffd}6nb");
    let long = format!("a\x1b[{}mb", "1;".repeat(500));
    assert_eq!(Filter::default().push(long.as_bytes()), "ab");
}

#[test]
fn a_text_without_end_does_not_hide_all_that_follows() {
    let mut filter = Filter::default();
    filter.push(b"\x1b]0;");
    let shown = filter.push(&vec![b'x'; (1 << 20) + 10]);
    assert!(shown.ends_with('x') && shown.len() < 20, "{}", shown.len());
}

#[test]
fn a_reset_does_not_take_what_was_there_before() {
    let mut filter = Filter::default();
    assert_eq!(
        filter.push(b"\x1b[?1049h\x1bc"),
        "\x1b[?1049h\x1b[?1049l\x1b[!p\x1b[H\x1b[2J"
    );
    assert!(!filter.finish().contains("1049"));
}

#[test]
fn the_alternate_screen_is_left_at_the_end_and_only_then() {
    let mut filter = Filter::default();
    filter.push(b"\x1b[?1049h");
    assert!(filter.finish().starts_with("\x1b[?1049l"));
    assert!(!filter.finish().contains("\x1b[?1049l"));
    // What is sent at the end, or on an interrupt, passes the filter itself.
    let own = reset();
    assert_eq!(Filter::default().push(own.as_bytes()), own);
}

/// Whether `text` has nothing but sequences that draw: those are parsed by another
/// rule than the filter's.
fn only_draws(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let sequence = rest.get(at + 1..).unwrap_or_default();
        let mut chars = sequence.chars();
        match chars.next() {
            Some('[') => {
                let last = chars.find(|c| ('@'..='~').contains(c));
                let Some(last) = last else { return false };
                if "nctxipqRywvzo{|}~".contains(last) && !sequence.starts_with("[!p") {
                    let shape = sequence.split_once(" q").map(|(number, _)| number.len());
                    if last != 'q' || shape.is_none_or(|length| length > 2) {
                        return false;
                    }
                }
            }
            Some(']' | 'P' | 'X' | '^' | '_' | 'Z' | 'c') | None => return false,
            Some(_) => {}
        }
        rest = sequence;
    }
    !text.contains(|c: char| matches!(c, '\u{80}'..='\u{9f}' | '\u{5}' | '\u{7f}' | '\0'))
}

proptest! {
    #[test]
    fn whatever_comes_only_what_draws_is_left_and_cuts_change_nothing(
        parts in proptest::collection::vec(
            prop_oneof![
                "\\x1b[\\[\\]P_ZXc#(^]?[0-9;?>!$ ]{0,6}[@-~]?",
                "[a-z\\x00-\\x1f\u{80}-\u{9f}]{0,4}",
                "\\x1b",
            ].prop_map(String::into_bytes).boxed().prop_union(
                proptest::collection::vec(any::<u8>(), 0..6).boxed()
            ),
            0..12,
        )
    ) {
        let whole = Filter::default().push(&parts.concat());
        prop_assert!(only_draws(&whole), "{:?}", whole);
        let mut filter = Filter::default();
        let cut: String = parts.concat().chunks(1).map(|byte| filter.push(byte)).collect();
        prop_assert_eq!(&whole, &cut);
        // What went through once goes through again.
        prop_assert_eq!(Filter::default().push(whole.as_bytes()), whole);
    }

    #[test]
    fn bytes_become_the_same_text_however_they_are_cut(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut utf8 = Utf8::default();
        let mut cut: String = bytes.chunks(1).map(|byte| utf8.push(byte)).collect();
        cut.push_str(&utf8.finish());
        prop_assert_eq!(cut, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn lines_keep_every_byte(text in "[a-z\n]{0,60}", cut in 1..10_usize) {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for part in text.as_bytes().chunks(cut) {
            out.extend(lines.push(drawn(0, 1, part)));
        }
        out.extend(lines.finish());
        let joined: Vec<_> = out.iter().map(|line| line.data.clone()).collect();
        let joined = joined.join(&b'\n');
        prop_assert_eq!(String::from_utf8(joined).unwrap(), text.strip_suffix('\n').unwrap_or(&text));
    }
}
