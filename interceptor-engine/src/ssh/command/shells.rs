//! Shells that are run with code of their own.

use interceptor_policy::operation::ssh::SshStdin;

use super::programs::Input;
use super::{Field, Found};

/// Shells whose code is read here.
const READ: &[&str] = &[
    "sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "lksh", "zsh", "rbash", "posh", "yash",
    "pdksh", "rksh", "rzsh", "sh4", "hush",
];
/// Shells whose code is another language.
const OTHER: &[&str] = &[
    "fish",
    "csh",
    "tcsh",
    "rc",
    "es",
    "elvish",
    "nu",
    "xonsh",
    "pwsh",
    "powershell",
    "ion",
    "oil",
    "osh",
    "ysh",
    "scsh",
    "rsh",
];

/// What the words behind a shell's name say.
enum Says<'a> {
    /// `-c CODE`
    Code(&'a str),
    /// Nothing: it reads what it is given.
    Input,
    /// It was only asked who it is.
    Version,
    Unclear,
}

impl Found {
    /// A shell; whether it is one.
    pub(super) fn shell(&mut self, base: &str, args: &[Field], input: Input<'_>) -> bool {
        if OTHER.contains(&base) {
            self.opaque();
            return true;
        }
        if !READ.contains(&base) {
            return false;
        }
        match said(args) {
            Says::Code(code) => self.code(code, input.stdin),
            Says::Input => self.code_from(input),
            Says::Version => {}
            Says::Unclear => self.opaque(),
        }
        true
    }

    /// A shell that runs what it reads.
    pub(super) fn code_from(&mut self, input: Input<'_>) {
        match (input.stdin, input.document) {
            (SshStdin::Document, Some(text)) => self.code(text, SshStdin::Document),
            (SshStdin::Empty, _) => {}
            _ => self.opaque(),
        }
    }
}

fn said(args: &[Field]) -> Says<'_> {
    let mut at = 0;
    let mut takes_code = false;
    let mut reads_input = false;
    while let Some(arg) = args.get(at) {
        let Some(arg) = arg.as_deref() else {
            return Says::Unclear;
        };
        match arg {
            "--version" | "--help" if args.len() == 1 => return Says::Version,
            "--login" | "--posix" | "--norc" | "--noprofile" | "--noediting" => {}
            "-" | "--" => {
                at += 1;
                break;
            }
            _ if arg.starts_with("--") => return Says::Unclear,
            _ if arg.len() > 1 && arg.starts_with(['-', '+']) => {
                let letters = arg.get(1..).unwrap_or_default();
                if !letters
                    .chars()
                    .all(|c| "abcefhklmnpstuvxBCEHPTo".contains(c))
                {
                    return Says::Unclear;
                }
                takes_code |= arg.starts_with('-') && letters.contains('c');
                reads_input |= arg.starts_with('-') && letters.contains('s');
                if letters.contains('o') {
                    let option = args.get(at + 1).and_then(Option::as_deref);
                    if !matches!(option, Some("pipefail" | "errexit" | "nounset" | "xtrace")) {
                        return Says::Unclear;
                    }
                    at += 1;
                }
            }
            _ => break,
        }
        at += 1;
    }
    match (args.get(at), takes_code) {
        (Some(Some(code)), true) => Says::Code(code),
        (None, false) => Says::Input,
        _ if reads_input && !takes_code => Says::Input,
        // A script in a file, or nothing where there has to be code.
        _ => Says::Unclear,
    }
}
