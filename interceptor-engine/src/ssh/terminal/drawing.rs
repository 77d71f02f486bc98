//! Programs that draw on the screen until they end, and what is typed to them.
//!
//! Most have the alternate screen, and while they do nothing is judged. Some (`top`, a
//! pager that git or systemd started) draw on the screen that the shell has, and that
//! they have ended shows in nothing but the prompt. So behind a line that ran such
//! programs alone keys are sent one by one, each when what the one before it made has
//! come to rest; and where the cursor then stands behind the very prompt that the line
//! was entered at, with nothing else, a new line begins.
//!
//! Where that is not certain, nothing is forgotten: keys that were echoed, or sent when
//! nothing came for too long, or behind a prompt that was there before, belong to the
//! line, which then is not sure.

use interceptor_policy::operation::ssh::SshLine;

use super::keys::Key;
use super::screen::Shown;

/// What is known while such a program may run.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    /// What the line was entered behind.
    prompt: String,
    /// What stands there when the last key was echoed.
    echo: Option<String>,
    /// Whether that prompt was there since.
    seen: bool,
}

/// What a screen at rest says of a program that drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is over, and a line begins behind the prompt.
    Over,
    /// Nobody can say: what is typed belongs to the line.
    Lost,
    /// It may still run.
    Runs,
}

impl Drawing {
    /// Behind a line that was entered at `prompt`.
    pub(super) const fn behind(prompt: String) -> Self {
        Self {
            prompt,
            echo: None,
            seen: false,
        }
    }

    fn is_at_prompt(&self, shown: &Shown) -> bool {
        shown.before == self.prompt && shown.after.is_empty()
    }

    /// The screen changed; whether the prompt is there.
    pub(super) fn shown(&mut self, shown: &Shown) -> bool {
        let there = self.is_at_prompt(shown);
        self.seen |= there;
        there
    }

    /// The screen is at rest.
    pub(super) fn found(&self, shown: &Shown) -> Found {
        let echoed = self.echo.as_ref() == Some(&shown.before);
        match self.is_at_prompt(shown) {
            true => Found::Over,
            false if self.seen || echoed => Found::Lost,
            false => Found::Runs,
        }
    }

    /// A key is sent.
    pub(super) fn sent(&mut self, key: &[u8], shown: &Shown) {
        let text = key.iter().all(|byte| Key::of(*byte) == Key::Text);
        let text = text.then(|| String::from_utf8_lossy(key));
        self.echo = text.map(|text| format!("{}{text}", shown.before));
    }
}

/// How many bytes of `typed` are its first key.
pub(super) fn first_key<'a>(typed: impl IntoIterator<Item = &'a u8>) -> usize {
    let mut typed = typed.into_iter().copied();
    let mut rest = match typed.next() {
        Some(0x1b) => typed,
        // The other bytes of a letter.
        Some(_) => return 1 + typed.take_while(|byte| byte & 0xc0 == 0x80).count(),
        None => return 0,
    };
    match rest.next() {
        Some(b'[') => {
            let mut length = 2;
            for byte in rest {
                length += 1;
                if (0x40..=0x7e).contains(&byte) {
                    break;
                }
            }
            length
        }
        Some(b'O') => 2 + rest.take(1).count(),
        Some(_) => 2,
        None => 1,
    }
}

/// Programs that draw on all of the screen, and have it until they end.
const DRAWING: &[&str] = &[
    "vi",
    "vim",
    "nvim",
    "view",
    "vimdiff",
    "nano",
    "pico",
    "emacs",
    "mcedit",
    "mc",
    "less",
    "more",
    "most",
    "man",
    "info",
    "top",
    "htop",
    "btop",
    "atop",
    "iotop",
    "iftop",
    "nethogs",
    "glances",
    "ncdu",
    "watch",
    "tig",
    "lazygit",
    "k9s",
    "vipw",
    "vigr",
    "visudo",
    "sudoedit",
    "crontab",
    "dialog",
    "whiptail",
    "aptitude",
    "cfdisk",
    "cgdisk",
    "alsamixer",
    "nmtui",
    "journalctl",
    "systemctl",
    "git",
    "psql",
    "mysql",
    "ranger",
    "nnn",
    "fzf",
    "bat",
    "delta",
];
/// Programs that run another, which may be one of those.
const LENDING: &[&str] = &["sudo", "doas", "env", "nice", "command", "exec", "time"];

/// Whether a line runs such programs and nothing else.
pub(super) fn draws(line: &SshLine) -> bool {
    let mut one = false;
    let all = line.programs.iter().all(|program| {
        let name = program.name().unwrap_or_default();
        one |= DRAWING.contains(&name);
        DRAWING.contains(&name) || LENDING.contains(&name)
    });
    all && one
}
