use std::path::Path;

use interceptor_policy::operation::ssh::SshLine;
use proptest::prelude::*;

use super::*;
use crate::ssh::command::read_entered;

const PROMPT: &str = "host:~$ ";
const PATIENCE: Patience = Patience {
    settle: 40_000,
    most: 1_000_000,
};

/// A terminal at a prompt, and a clock in milliseconds.
struct Desk {
    terminal: Terminal,
    now: u64,
    sent: Vec<u8>,
    told: Vec<u8>,
    entered: Vec<Entered>,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self {
            terminal: Terminal::new(24, 40, PATIENCE, FlowTime(0)),
            now: 0,
            sent: Vec::new(),
            told: Vec::new(),
            entered: Vec::new(),
        };
        desk.shows(PROMPT);
        desk.later(100);
        desk
    }

    fn at(&self) -> FlowTime {
        FlowTime(self.now * 1000)
    }

    fn drain(&mut self) {
        while let Some(act) = self.terminal.poll() {
            match act {
                Act::Upstream(bytes) => self.sent.extend(bytes),
                Act::Downstream(bytes) => self.told.extend(bytes),
                Act::Entered(entered) => self.entered.push(entered),
            }
        }
    }

    fn shows(&mut self, text: &str) {
        self.terminal.shown(self.at(), text.as_bytes());
        self.drain();
    }

    fn types(&mut self, text: &str) {
        self.terminal.typed(self.at(), text.as_bytes());
        self.drain();
    }

    /// Typed, and shown at once.
    fn echoes(&mut self, text: &str) {
        self.types(text);
        self.shows(text);
    }

    fn later(&mut self, by: u64) {
        self.now += by;
        self.terminal.tick(self.at());
        self.drain();
    }

    fn passes(&mut self, line: &str) {
        let line = read_entered(line.as_bytes());
        self.terminal.let_pass(self.at(), Some(&line));
        self.drain();
    }

    fn last(&self) -> (&str, bool) {
        let last = self.entered.last().expect("a line was entered");
        (&last.line, last.sure)
    }
}

#[test]
fn a_line_is_told_before_its_end_is_sent() {
    let mut desk = Desk::new();
    desk.echoes("rm x");
    desk.types("\r");
    assert_eq!(desk.last(), ("rm x", true));
    assert_eq!(desk.sent, b"rm x");
    desk.passes("rm x");
    assert_eq!(desk.sent, b"rm x\r");
}

#[test]
fn every_key_that_enters_a_line_is_kept_back() {
    for key in ["\r", "\n", "\u{f}", "\u{4}"] {
        let mut desk = Desk::new();
        desk.echoes("rm x");
        desk.types(key);
        assert_eq!(desk.last(), ("rm x", true), "{key:?}");
        assert_eq!(desk.sent, b"rm x", "{key:?}");
    }
}

#[test]
fn a_line_waits_for_its_echo_and_for_no_longer_than_it_may() {
    let mut desk = Desk::new();
    desk.types("ls\r");
    assert!(desk.entered.is_empty());
    desk.later(200);
    assert!(desk.entered.is_empty());
    desk.shows("ls");
    assert_eq!(desk.last(), ("ls", true));
    let mut desk = Desk::new();
    desk.types("ls\r");
    desk.shows("l");
    desk.later(1000);
    assert_eq!(desk.last(), ("ls", false));
}

#[test]
fn what_is_shown_otherwise_than_typed_is_not_sure() {
    let mut desk = Desk::new();
    desk.types("ls\r");
    desk.shows("rm");
    desk.later(1000);
    assert_eq!(desk.last(), ("ls", false));
}

#[test]
fn a_line_that_is_refused_is_taken_back_and_the_agent_told() {
    let mut desk = Desk::new();
    desk.echoes("rm x");
    desk.types("\rls\r");
    desk.terminal.refuse(desk.at(), "no\x1b[31m removing");
    desk.drain();
    // Not while the shell may still draw.
    assert_eq!(desk.sent, b"rm x");
    desk.later(40);
    assert_eq!(desk.sent, b"rm x\x03");
    let told = String::from_utf8(desk.told.clone()).unwrap();
    assert!(
        told.contains("interceptor: no [31m removing\r\n"),
        "{told:?}"
    );
    desk.shows("^C\r\nhost:~$ ");
    desk.later(100);
    desk.echoes("ls");
    desk.types("\r");
    assert_eq!(desk.last(), ("ls", true));
    assert_eq!(desk.entered.len(), 2);
}

#[test]
fn what_is_typed_ahead_waits_for_the_prompt() {
    let mut desk = Desk::new();
    desk.echoes("one");
    desk.types("\rtwo\r");
    desk.passes("one");
    assert_eq!(desk.sent, b"one\r");
    desk.shows("\r\noutput\r\n");
    desk.shows(PROMPT);
    desk.later(40);
    assert_eq!(desk.sent, b"one\rtwo");
    desk.shows("two");
    assert_eq!(desk.last(), ("two", true));
}

#[test]
fn an_interrupt_waits_for_nothing() {
    let mut desk = Desk::new();
    desk.echoes("one");
    desk.types("\r");
    desk.passes("one");
    desk.types("\u{3}");
    assert_eq!(desk.sent, b"one\r\x03");
}

#[test]
fn an_empty_line_passes_whatever_is_shown() {
    let mut desk = Desk::new();
    desk.types("\r");
    assert_eq!(desk.last(), ("", true));
}

#[test]
fn a_secret_is_told_without_its_text_and_only_where_one_is_asked_for() {
    let mut desk = Desk::new();
    desk.echoes("sudo ls");
    desk.types("\r");
    desk.passes("sudo ls");
    desk.shows("\r\n[sudo] password for me: ");
    desk.later(100);
    desk.types("hunter2\r");
    desk.later(1000);
    let hidden = desk.entered.last().unwrap();
    assert!(hidden.hidden && hidden.line.is_empty());
    let mut desk = Desk::new();
    desk.types("rm x\r");
    desk.later(1000);
    assert_eq!(desk.entered.last(), Some(&Entered::default()));
}

#[test]
fn a_paste_with_a_line_end_is_judged_before_any_of_it_goes() {
    let mut desk = Desk::new();
    desk.types("\x1b[200~ls\nrm x\x1b[20");
    assert!(desk.entered.is_empty());
    assert_eq!(desk.sent, b"\x1b[200~");
    desk.types("1~");
    assert_eq!(desk.last(), ("ls\nrm x", true));
    assert_eq!(desk.sent, b"\x1b[200~");
    desk.passes("ls\nrm x");
    assert_eq!(desk.sent, b"\x1b[200~ls\nrm x\x1b[201~");
}

#[test]
fn a_paste_that_does_not_end_is_not_sure() {
    let mut desk = Desk::new();
    desk.types("\x1b[200~ls\nrm x");
    desk.later(1000);
    assert_eq!(desk.last(), ("ls\nrm x", false));
}

#[test]
fn a_key_that_may_run_what_is_not_shown_is_not_sure() {
    let mut desk = Desk::new();
    desk.echoes("ls");
    desk.types("\u{18}\u{5}");
    assert_eq!(desk.last(), ("ls", false));
    assert_eq!(desk.sent, b"ls");
}

#[test]
fn a_program_with_all_of_the_screen_is_not_judged_by_line_and_a_printed_sequence_is() {
    let mut desk = Desk::new();
    desk.echoes("vim x");
    desk.types("\r");
    desk.passes("vim x");
    desk.shows("\x1b[?1049h\x1b[2J");
    desk.later(100);
    assert!(desk.terminal.is_full_screen());
    desk.types("irm x\r");
    assert_eq!(desk.entered.len(), 1);
    desk.shows("\x1b[?1049l");
    desk.shows(PROMPT);
    assert!(!desk.terminal.is_full_screen());
    // Once left, it is not entered again without a program that draws.
    desk.shows("\x1b[?1049h");
    assert!(!desk.terminal.is_full_screen());

    for line in ["printf x", "vim x; printf y", "ls"] {
        let mut desk = Desk::new();
        desk.echoes(line);
        desk.types("\r");
        desk.passes(line);
        desk.shows("\r\n\x1b[?1049h");
        desk.shows(PROMPT);
        desk.later(100);
        desk.echoes("rm x");
        desk.types("\r");
        assert_eq!(desk.last(), ("rm x", true), "{line}");
    }
}

/// A terminal in which this line was entered and let pass.
fn ran(line: &str) -> Desk {
    let mut desk = Desk::new();
    desk.echoes(line);
    desk.types("\r");
    desk.passes(line);
    desk.shows("\r\n");
    desk.sent.clear();
    desk
}

#[test]
fn a_pager_on_the_shells_own_screen_has_its_keys_and_the_next_line_is_known() {
    let mut desk = ran("git log");
    desk.shows("commit 1\r\n:");
    desk.later(100);
    // Each key when what the one before made was shown.
    desk.types("j\x1b[Bqrm x");
    assert_eq!(desk.sent, b"j");
    desk.shows("\rcommit 2\r\n:");
    desk.later(40);
    assert_eq!(desk.sent, b"j\x1b[B");
    desk.shows("\rcommit 3\r\n:");
    desk.later(40);
    assert_eq!(desk.sent, b"j\x1b[Bq");
    desk.shows("\r\x1b[K");
    desk.later(30);
    desk.shows(PROMPT);
    desk.later(40);
    assert_eq!(desk.sent, b"j\x1b[Bqrm x");
    desk.shows("rm x");
    desk.types("\r");
    assert_eq!(desk.last(), ("rm x", true));
}

#[test]
fn a_line_behind_a_prompt_that_has_changed_is_known_as_well() {
    let mut desk = ran("git checkout x");
    desk.shows("host:~ (x)$ ");
    desk.later(100);
    for key in ["l", "s"] {
        desk.echoes(key);
        desk.later(40);
    }
    desk.types("\r");
    assert_eq!(desk.last(), ("ls", true));
}

#[test]
fn what_may_have_been_typed_to_the_shell_is_not_forgotten() {
    // Echoed, and then a prompt as before.
    let mut desk = ran("git log");
    desk.shows("other$ ");
    desk.later(100);
    desk.echoes("r");
    desk.later(100);
    desk.echoes("m");
    desk.later(100);
    desk.shows("\r\n");
    desk.shows(PROMPT);
    desk.later(100);
    desk.types("\r");
    desk.later(1000);
    assert!(!desk.entered.last().unwrap().sure);
    // Sent when nothing had come for too long.
    let mut desk = ran("git log");
    desk.later(100);
    desk.types("rm");
    desk.later(1000);
    assert_eq!(desk.sent, b"rm");
    desk.shows(PROMPT);
    desk.later(100);
    desk.types("\r");
    desk.later(1000);
    assert!(!desk.entered.last().unwrap().sure);
    // Behind a prompt that was there before something else was.
    let mut desk = ran("git log");
    desk.shows(PROMPT);
    desk.shows("\r\nmore");
    desk.later(100);
    desk.types("r");
    desk.shows("\r\n");
    desk.shows(PROMPT);
    desk.later(100);
    desk.types("\r");
    desk.later(1000);
    assert!(!desk.entered.last().unwrap().sure);
}

#[test]
fn an_alternate_screen_that_is_switched_on_behind_the_prompt_hides_no_line() {
    let mut desk = ran("git status");
    desk.shows(PROMPT);
    desk.shows("\x1b[?1049h");
    desk.shows(PROMPT);
    assert!(!desk.terminal.is_full_screen());
    desk.later(100);
    desk.echoes("rm x");
    desk.types("\r");
    assert_eq!(desk.last(), ("rm x", true));
}

#[test]
fn a_line_that_changes_while_it_is_judged_is_judged_again() {
    let mut desk = Desk::new();
    desk.types("\x1b[A");
    desk.shows("ls");
    desk.types("\r");
    desk.later(100);
    assert_eq!(desk.last(), ("ls", true));
    desk.shows("\rhost:~$ rm x");
    desk.passes("ls");
    assert_eq!(desk.sent, b"\x1b[A");
    desk.later(100);
    assert_eq!(desk.last(), ("rm x", true));
}

#[test]
fn what_waits_is_bounded() {
    let mut desk = Desk::new();
    desk.types("ls\r");
    assert!(desk.terminal.wants_input());
    desk.types(&"x".repeat(INPUT_LIMIT));
    assert!(!desk.terminal.wants_input());
}

/// One event of a recorded session.
enum Recorded {
    Typed(u64, Vec<u8>),
    Shown(u64, Vec<u8>),
    Size(u32, u32),
}

fn recorded(name: &str) -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/terminal");
    let text = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
    let events = text.lines().skip(1).map(|line| {
        let mut parts = line.splitn(3, ' ');
        let at: u64 = parts.next().unwrap().parse().unwrap();
        let kind = parts.next().unwrap();
        let bytes = unescaped(parts.next().unwrap_or_default());
        match kind {
            ">" => Recorded::Typed(at, bytes),
            "<" => Recorded::Shown(at, bytes),
            _ => {
                let size = String::from_utf8(bytes).unwrap();
                let (rows, columns) = size.split_once(' ').unwrap();
                Recorded::Size(rows.parse().unwrap(), columns.parse().unwrap())
            }
        }
    });
    events.collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.push(c as u8);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            other => other as u8,
        });
    }
    bytes
}

/// The lines entered in a recorded session, every one let pass, with its bytes in
/// pieces of so many.
fn lines(events: &[Recorded], piece: usize) -> Vec<Entered> {
    let mut terminal = Terminal::new(24, 40, PATIENCE, FlowTime(0));
    let mut entered = Vec::new();
    let mut settle = |terminal: &mut Terminal, now: FlowTime| {
        while let Some(act) = terminal.poll() {
            if let Act::Entered(line) = act {
                let read = match line.sure {
                    true => read_entered(line.line.as_bytes()),
                    false => SshLine::unsure(line.line.as_str()),
                };
                entered.push(line);
                terminal.let_pass(now, Some(&read));
            }
        }
    };
    for event in events {
        let (at, bytes, typed) = match event {
            Recorded::Size(rows, columns) => {
                terminal.resize(*rows, *columns);
                continue;
            }
            Recorded::Typed(at, bytes) => (*at, bytes, true),
            Recorded::Shown(at, bytes) => (*at, bytes, false),
        };
        let now = FlowTime(at * 1000);
        while let Some(due) = terminal.deadline().filter(|due| *due < now) {
            terminal.tick(due);
            settle(&mut terminal, due);
        }
        for piece in bytes.chunks(piece) {
            match typed {
                true => terminal.typed(now, piece),
                false => terminal.shown(now, piece),
            }
            settle(&mut terminal, now);
        }
    }
    while let Some(due) = terminal.deadline() {
        terminal.tick(due);
        settle(&mut terminal, due);
    }
    entered
}

fn sure(name: &str) -> Vec<String> {
    let entered = lines(&recorded(name), usize::MAX);
    let each = entered.into_iter();
    each.map(|line| match (line.sure, line.hidden) {
        (true, _) => line.line,
        (false, true) => "hidden".to_owned(),
        (false, false) => format!("? {}", line.line),
    })
    .collect()
}

#[test]
fn the_lines_of_real_shells_are_those_that_they_ran() {
    let long = format!("echo {}", "abcdefghij ".repeat(6));
    for shell in ["bash", "dash", "zsh"] {
        let of = |name: &str| sure(&format!("{shell}-{name}"));
        assert_eq!(of("plain"), ["echo one", "echo two", ""], "{shell}");
        assert_eq!(of("wrapped"), [long.as_str(), "echo two"], "{shell}");
        assert_eq!(of("cleared"), ["echo right", "echo kept"], "{shell}");
    }
    for shell in ["bash", "zsh"] {
        let of = |name: &str| sure(&format!("{shell}-{name}"));
        assert_eq!(
            of("history"),
            ["echo one", "echo two", "echo one", "X=1 echo one"],
            "{shell}"
        );
        assert_eq!(of("completion"), ["cat completed.txt"], "{shell}");
        assert_eq!(
            of("search"),
            ["echo needle", "echo other", "echo needle"],
            "{shell}"
        );
        assert_eq!(of("middle"), ["echo abc"], "{shell}");
    }
}

#[test]
fn what_a_real_shell_hides_pastes_and_draws_is_told_as_that() {
    assert_eq!(
        sure("bash-secret"),
        ["read -s -p \"Password: \" x", "hidden", "echo after"]
    );
    assert_eq!(
        sure("bash-alternate"),
        ["printf '\\033[?1049h'", "echo hidden"]
    );
    assert_eq!(sure("bash-vim"), ["vi", "echo after"]);
    assert_eq!(sure("bash-unicode"), ["echo äöü 漢字", "echo x"]);
    for shell in ["bash", "zsh"] {
        let pasted = sure(&format!("{shell}-paste"));
        assert_eq!(
            pasted.get(..2),
            Some(&["echo pasted".to_owned(), "echo a\necho b".to_owned()][..]),
            "{shell}"
        );
    }
}

#[test]
fn no_cut_of_the_bytes_changes_what_is_entered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/terminal");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let events = recorded(&name);
        let whole = lines(&events, usize::MAX);
        assert!(!whole.is_empty(), "{name}");
        for piece in [1, 2, 3, 7] {
            assert_eq!(lines(&events, piece), whole, "{name} by {piece}");
        }
    }
}

proptest! {
    #[test]
    fn no_key_that_enters_a_line_goes_before_the_line_was_let_pass(
        steps in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 1..12), 0_u64..300), 1..20),
    ) {
        let mut desk = Desk::new();
        for (typed, bytes, wait) in steps {
            match typed {
                true => desk.terminal.typed(desk.at(), &bytes),
                false => desk.terminal.shown(desk.at(), &bytes),
            }
            desk.drain();
            desk.later(wait);
            // Nobody lets any pass.
            let enters = |byte: &u8| matches!(keys::Key::of(*byte), Key::Enter);
            prop_assert!(!desk.sent.iter().any(enters), "{:?}", desk.sent);
        }
    }
}
