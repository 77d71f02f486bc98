//! Programs that are languages: what they are given may run anything.

use super::Field;
use super::programs::has;

/// Languages, without their versions.
const LANGUAGES: &[&str] = &[
    "python",
    "pypy",
    "ipython",
    "perl",
    "ruby",
    "jruby",
    "irb",
    "node",
    "nodejs",
    "deno",
    "bun",
    "php",
    "lua",
    "luajit",
    "tclsh",
    "wish",
    "expect",
    "guile",
    "ghci",
    "runghc",
    "runhaskell",
    "r",
    "rscript",
    "julia",
    "gdb",
    "lldb",
    "osascript",
    "groovy",
    "scala",
    "jshell",
    "jrunscript",
    "java",
    "erl",
    "elixir",
    "iex",
    "ocaml",
    "sbcl",
    "clisp",
    "racket",
    "octave",
    "gnuplot",
    "m4",
    "dc",
    "ex",
    "ed",
    "emacs",
    "make",
    "gmake",
    "ninja",
    "npx",
    "npm",
    "yarn",
    "pnpm",
    "cargo",
    "go",
    "pip",
    "pipx",
    "uv",
    "uvx",
    "gem",
    "bundle",
    "composer",
    "ansible",
    "terraform",
    "puppet",
    "salt",
    "cpan",
    "easy_install",
    "ts-node",
    "tsx",
    "bpftrace",
    "stap",
    "dtrace",
    "sqlite",
    "nc",
    "ncat",
    "socat",
    "netcat",
    "telnet",
    "openvpn",
    "nmap",
    "zip",
    "capsh",
    "run-parts",
    "start-stop-daemon",
    "logsave",
    "busctl",
    "dbus-send",
    "gdbus",
    "ltrace",
    "valgrind",
    "perf",
    "rpm",
    "dpkg",
    "apt",
    "apt-get",
    "yum",
    "dnf",
    "apk",
    "snap",
    "brew",
];

/// Those of them that are a language only with such arguments.
fn needs(base: &str) -> Option<fn(&str) -> bool> {
    Some(match base {
        "make" | "gmake" | "ninja" => {
            |arg| arg.starts_with("--eval") || arg == "-f" || arg.contains('=')
        }
        "npm" | "yarn" | "pnpm" | "cargo" | "go" | "pip" | "pipx" | "uv" | "gem" | "bundle"
        | "composer" => |arg| matches!(arg, "exec" | "run" | "x" | "dlx" | "tool" | "explore"),
        "ansible" | "terraform" | "puppet" | "salt" | "cpan" => |_| false,
        "nc" | "ncat" | "netcat" => |arg| {
            let short = arg.starts_with('-') && !arg.starts_with("--");
            short && arg.contains(['e', 'c']) || arg.contains("-exec") || arg.contains("-lua")
        },
        "socat" => |arg| {
            let arg = arg.to_ascii_lowercase();
            arg.contains("exec") || arg.contains("system") || arg.contains("shell")
        },
        "nmap" => |arg| arg.contains("script") || arg.contains("interactive"),
        "zip" => |arg| arg.starts_with("-T") || arg.contains("unzip-command"),
        "sqlite" => {
            |arg| arg.contains(".shell") || arg.contains(".system") || arg.contains("edit(")
        }
        "rpm" => |arg| arg.contains("eval") || arg.contains("pipe") || arg == "-E",
        "dpkg" | "apt" | "apt-get" | "yum" | "dnf" | "apk" | "snap" | "brew" => |arg| {
            arg.starts_with("-o")
                || arg.contains("::")
                || arg.starts_with("--option")
                || arg.contains("hook")
                || arg == "changelog"
        },
        "telnet" | "openvpn" => |arg| arg.contains("script") || arg.contains("up"),
        "busctl" | "dbus-send" | "gdbus" => {
            |arg| arg.contains("Exec") || arg.contains("StartTransient")
        }
        _ => return None,
    })
}

/// Whether a program may run what it is given.
pub(super) fn runs_code(base: &str, args: &[Field]) -> bool {
    let bare = base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let bare = match LANGUAGES.contains(&base) {
        true => base,
        false => bare,
    };
    match bare {
        "awk" | "gawk" | "mawk" | "nawk" | "original-awk" => awk(args),
        "sed" | "gsed" => sed(args),
        "vi" | "vim" | "nvim" | "view" | "vimdiff" | "rvim" | "gvim" | "nano" | "less" | "more"
        | "man" | "most" => {
            // Beyond what a person may type into them.
            has(args, |arg| {
                arg.starts_with('+')
                    || [
                        "-c", "-S", "-u", "-e", "-E", "-s", "--cmd", "-P", "--pager", "-H",
                    ]
                    .iter()
                    .any(|option| arg.starts_with(option))
            })
        }
        "psql" | "mysql" | "mariadb" => has(args, |arg| {
            arg.contains("\\!")
                || arg.contains("system")
                || arg.contains("PROGRAM")
                || arg.contains("program")
                || arg.starts_with("-f")
                || arg.contains("pager")
        }),
        bare if LANGUAGES.contains(&bare) => match needs(bare) {
            Some(needs) => has(args, needs),
            None => !asks_version(args),
        },
        _ => false,
    }
}

fn asks_version(args: &[Field]) -> bool {
    let version = |arg: &str| matches!(arg, "--version" | "-V" | "--help" | "-version");
    matches!(args, [Some(arg)] if version(arg))
}

/// A program of awk that neither calls one, nor opens a pipe or a file, nor is
/// read from elsewhere.
fn awk(args: &[Field]) -> bool {
    let mut rest = args.iter();
    loop {
        let Some(Some(arg)) = rest.next() else {
            return true;
        };
        match arg.as_str() {
            "-F" | "-v" => {
                if !matches!(rest.next(), Some(Some(_))) {
                    return true;
                }
            }
            "--" => {}
            _ if arg.starts_with("-F") => {}
            _ if arg.starts_with('-') => return true,
            code => {
                let comparing = code.replace(">=", "");
                return code.contains("system")
                    || comparing.contains(['|', '>', '@', '`'])
                    || code.contains("getline");
            }
        }
    }
}

/// A script of sed that neither runs nor writes.
fn sed(args: &[Field]) -> bool {
    let mut rest = args.iter();
    let mut script = false;
    loop {
        let Some(arg) = rest.next() else {
            return !script && !args.is_empty() && !asks_version(args);
        };
        let Some(arg) = arg.as_deref() else {
            return true;
        };
        match arg {
            "-n" | "-E" | "-r" | "-i" | "-s" | "-u" | "-z" | "-ne" | "-nE" | "-nr" | "-ie"
            | "-Ei" | "-ri" | "-e" | "--quiet" | "--silent" | "--in-place"
            | "--regexp-extended" | "--expression" => {
                if arg.ends_with('e') && arg.len() < 4 || arg == "--expression" {
                    match rest.next() {
                        Some(Some(code)) if is_plain(code) => script = true,
                        _ => return true,
                    }
                }
            }
            _ if arg.starts_with("-i") && !arg.contains(['e', 'f']) => {}
            _ if arg.starts_with('-') => return true,
            // Behind the script are files, and options, of which there may be more.
            code if script => {
                let _file = code;
            }
            code if is_plain(code) => script = true,
            _ => return true,
        }
    }
}

/// One command of sed that is `s/…/…/`, `p`, `d`, `q` or `=`, with an address
/// in numbers or a pattern.
fn is_plain(code: &str) -> bool {
    if code.contains(['\n', ';', '{', '}']) {
        return false;
    }
    let address = |c: char| c.is_ascii_digit() || matches!(c, ',' | '$' | '~' | '!' | ' ');
    let mut rest = code.trim_start_matches(address);
    while let Some(pattern) = rest.strip_prefix('/') {
        let Some((_, after)) = cut(pattern, '/') else {
            return false;
        };
        rest = after.trim_start_matches(address);
    }
    let mut letters = rest.chars();
    match letters.next() {
        Some('p' | 'd' | 'q' | '=') => letters.as_str().trim().is_empty(),
        Some(kind @ ('s' | 'y')) => {
            let Some(by) = letters
                .next()
                .filter(|c| !c.is_alphanumeric() && *c != '\\')
            else {
                return false;
            };
            let parts = cut(letters.as_str(), by).and_then(|(_, rest)| cut(rest, by));
            parts.is_some_and(|(_, flags)| {
                flags
                    .chars()
                    .all(|c| kind == 's' && (c.is_ascii_digit() || "gpIi".contains(c)))
            })
        }
        _ => false,
    }
}

/// Up to a separator that is not escaped, and what follows it.
fn cut(text: &str, by: char) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (true, _) => escaped = false,
            (false, '\\') => escaped = true,
            // A separator in brackets is none to some.
            (false, '[') => return None,
            (false, c) if c == by => {
                return Some((text.get(..at)?, text.get(at + c.len_utf8()..)?));
            }
            _ => {}
        }
    }
    None
}
