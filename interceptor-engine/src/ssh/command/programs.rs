//! A command with its words, and what it runs beside itself.

use interceptor_policy::operation::ssh::{SshProgram, SshStdin};

use super::grammar::Redirects;
use super::{DEPTH_LIMIT, Field, Found, interpreters};

/// Where a program's input comes from, as far as its command says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'t> {
    pub(super) stdin: SshStdin,
    /// Whether that is what stands around the command.
    pub(super) inherits: bool,
    /// The text of a here-document, where it is certain.
    pub(super) document: Option<&'t str>,
}

/// Variables that change what runs under a name, or make a program run another.
const CHANGING: &[&str] = &[
    "PATH",
    "path",
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "PROMPT_COMMAND",
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "PROMPT",
    "RPROMPT",
    "FPATH",
    "fpath",
    "ZDOTDIR",
    "HOME",
    "XDG_CONFIG_HOME",
    "SHELL",
    "CDPATH",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "BROWSER",
    "LESSOPEN",
    "LESSCLOSE",
    "LESS",
    "TAR_OPTIONS",
    "RSYNC_RSH",
    "CVS_RSH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "GCONV_PATH",
    "MAKEFLAGS",
    "MAKEFILES",
    "CLASSPATH",
    "TERMINFO",
    "SUDO_ASKPASS",
    "SSH_ASKPASS",
    "SUDO_EDITOR",
    "FCEDIT",
    "aliases",
    "functions",
    "commands",
    "module_path",
    "psvar",
    "preexec_functions",
    "precmd_functions",
    "NULLCMD",
    "READNULLCMD",
    "BASH_ALIASES",
    "BASH_CMDS",
    "HISTFILE",
    "HISTCMD",
    "TMPDIR",
    "PERLIO",
];
const CHANGING_PREFIXES: &[&str] = &[
    "LD_",
    "DYLD_",
    "BASH_FUNC",
    "PYTHON",
    "PERL5",
    "RUBY",
    "GIT_",
    "JAVA_",
    "_JAVA",
    "MAVEN_",
    "GRADLE_",
    "LUA_",
    "PHP",
    "DOCKER_",
    "KUBECONFIG",
    "CARGO_",
    "RUSTC",
    "npm_config_",
    "GEM_",
];
/// Variables that a shell sets itself, whatever they are set to.
const LIVE: &[&str] = &[
    "RANDOM",
    "SRANDOM",
    "SECONDS",
    "LINENO",
    "EPOCHSECONDS",
    "EPOCHREALTIME",
    "BASHPID",
    "PWD",
    "OLDPWD",
    "_",
    "DIRSTACK",
    "FUNCNAME",
    "GROUPS",
    "UID",
    "EUID",
    "PPID",
    "REPLY",
    "OPTARG",
    "OPTIND",
    "PIPESTATUS",
    "status",
    "argv",
    "ARGC",
    "TTY",
    "USERNAME",
    "HOST",
    "COLUMNS",
    "LINES",
    "pipestatus",
    "cdpath",
    "manpath",
    "GID",
    "EGID",
];

/// The shell's own commands that change what others mean, or run what is said elsewhere.
const SHAPING: &[&str] = &[
    ".",
    "source",
    "bind",
    "bindkey",
    "complete",
    "compgen",
    "compctl",
    "compdef",
    "fc",
    "history",
    "enable",
    "shopt",
    "setopt",
    "unsetopt",
    "emulate",
    "autoload",
    "zmodload",
    "zle",
    "sched",
    "disable",
    "functions",
    "coproc",
    "repeat",
    "foreach",
    "always",
    "r",
    "hash",
    "newgrp",
    "sg",
    "rehash",
    "print",
    "vared",
    "zparseopts",
    "zformat",
    "zstyle",
    "abbr",
    "funced",
    "begin",
    "switch",
    "and",
    "or",
    "not",
    "if",
    "end",
    "string",
    "psub",
    "onintr",
    "setenv",
    "sh5",
];
/// Those that take names of variables, where a subscript may run code.
const NAMING: &[&str] = &[
    "declare",
    "typeset",
    "local",
    "export",
    "readonly",
    "unset",
    "read",
    "mapfile",
    "readarray",
    "getopts",
    "integer",
    "float",
    "private",
    "nameref",
];

pub(super) fn is_changing(name: &str) -> bool {
    CHANGING.contains(&name)
        || CHANGING_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

impl Found {
    /// A variable is set.
    pub(super) fn assigns(&mut self, name: &str) {
        self.known.remove(name);
        if is_changing(name) {
            self.opaque();
        }
    }

    pub(super) fn can_be_known(name: &str) -> bool {
        !LIVE.contains(&name) && !name.starts_with("BASH") && !name.starts_with("COMP")
    }

    /// A program of which nothing but the name is said.
    pub(super) fn plain(&mut self, name: &str) {
        let program = SshProgram {
            path: Some(name.into()),
            stdin: SshStdin::Unknown,
            ..SshProgram::default()
        };
        self.push(program, false);
    }

    /// The input of programs from a place on is what it is by now.
    pub(super) fn settle(&mut self, from: usize) {
        for inherits in self.inherits.iter_mut().skip(from) {
            *inherits = false;
        }
    }

    /// Redirections of a compound command, or of none.
    pub(super) fn redirect_all(&mut self, from: usize, redirects: &Redirects) {
        if redirects.is_empty() {
            return;
        }
        let nothing = self.programs.len() == from;
        if let Some(stdin) = redirects.stdin {
            let programs = self.programs.iter_mut().zip(&mut self.inherits);
            for (program, inherits) in programs.skip(from).filter(|(_, inherits)| **inherits) {
                program.stdin = stdin;
                *inherits = false;
            }
        }
        if redirects.reads.is_empty() && redirects.writes.is_empty() {
            return;
        }
        // The shell opens them, and some run a program of their own on them.
        let opens = SshProgram {
            path: Some(":".into()),
            reads: shared(&redirects.reads),
            writes: shared(&redirects.writes),
            ..SshProgram::default()
        };
        self.push(opens, false);
        if nothing {
            self.plain(if redirects.writes.is_empty() {
                "more"
            } else {
                "cat"
            });
        }
    }

    /// A simple command.
    pub(super) fn run(&mut self, fields: &[Field], stdin: SshStdin, redirects: Redirects) {
        let input = Input {
            stdin: redirects.stdin.unwrap_or(stdin),
            inherits: redirects.stdin.is_none(),
            document: redirects.document.as_deref(),
        };
        let first = self.programs.len();
        self.execute(fields, input);
        let files = (shared(&redirects.reads), shared(&redirects.writes));
        match self.programs.get_mut(first) {
            Some(program) => (program.reads, program.writes) = files,
            // It was said before that anything may run.
            None if !(files.0.is_empty() && files.1.is_empty()) => {
                let opens = SshProgram {
                    path: Some(":".into()),
                    reads: files.0,
                    writes: files.1,
                    ..SshProgram::default()
                };
                self.push(opens, false);
            }
            None => {}
        }
        let own = fields.first().and_then(Option::as_deref) == Some("exec");
        if own && redirects.stdin.is_some() {
            // The shell itself reads from there now.
            self.opaque();
        }
    }

    /// A program and its arguments, and what it runs.
    pub(super) fn execute(&mut self, fields: &[Field], input: Input<'_>) {
        let Some((name, args)) = fields.split_first() else {
            return;
        };
        let Some(path) = name else {
            return self.opaque();
        };
        if self.depth >= DEPTH_LIMIT {
            return self.opaque();
        }
        let program = SshProgram {
            path: Some(path.as_str().into()),
            arguments: shared(args),
            stdin: input.stdin,
            ..SshProgram::default()
        };
        self.push(program, input.inherits);
        let base = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        self.depth += 1;
        self.beside(&base, args, input);
        self.depth = self.depth.saturating_sub(1);
    }

    /// What a program runs beside itself.
    fn beside(&mut self, base: &str, args: &[Field], input: Input<'_>) {
        if self.own(base, args, input)
            || self.shell(base, args, input)
            || self.runner(base, args, input)
        {
            return;
        }
        if interpreters::runs_code(base, args) {
            self.opaque();
        }
    }

    /// The shell's own commands; whether it is one.
    fn own(&mut self, base: &str, args: &[Field], input: Input<'_>) -> bool {
        match base {
            "eval" => match joined(args) {
                Some(code) => self.within(&code, input.stdin),
                None => self.opaque(),
            },
            "trap" => {
                let rest = match args.first().and_then(Option::as_deref) {
                    Some("--") => args.get(1..).unwrap_or_default(),
                    _ => args,
                };
                match rest.first() {
                    None => {}
                    Some(None) => self.opaque(),
                    Some(Some(code)) if code.starts_with('-') && rest.len() == 1 => {}
                    Some(Some(code)) if self.entered && !matches!(code.as_str(), "" | "-") => {
                        self.opaque();
                    }
                    Some(Some(code)) if code == "-" => {}
                    Some(Some(code)) => self.within(code, SshStdin::Unknown),
                }
            }
            "alias" => {
                if args
                    .iter()
                    .any(|arg| arg.as_ref().is_none_or(|arg| arg.contains('=')))
                {
                    self.opaque();
                }
            }
            "set" => {
                // Options may change how the rest is read.
                let harmless = |arg: &Field| match arg.as_deref() {
                    Some("--") => true,
                    Some(arg) => {
                        let letters = arg.strip_prefix(['-', '+']);
                        letters.is_none_or(|letters| letters.chars().all(|c| "euxoCvn".contains(c)))
                            && !matches!(arg, "keyword" | "posix" | "histexpand" | "noglob")
                    }
                    None => false,
                };
                let flags = args
                    .iter()
                    .take_while(|arg| arg.as_deref() != Some("--"))
                    .all(harmless);
                if !flags {
                    self.opaque();
                }
            }
            // Whoever hides what is typed hides it from the terminal's state too.
            "stty" if self.entered => {
                let asks = ["size", "speed", "-a", "--all", "-g", "--save"];
                let only_asks = |arg: &Field| arg.as_deref().is_some_and(|arg| asks.contains(&arg));
                if !args.iter().all(only_asks) {
                    self.opaque();
                }
            }
            "reset" | "tset" if self.entered => self.opaque(),
            "let" | "((" => self.opaque(),
            "jobs" if has(args, |arg| arg.starts_with("-x")) => self.opaque(),
            "printf" if has(args, |arg| arg.starts_with("-v")) => self.opaque(),
            "[" | "test" | "[[" => {
                let arithmetic = ["-v", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"];
                let runs = |arg: &str| arg.contains("$(") || arg.contains('`') || arg == "-v";
                let compares = base == "[[" && has(args, |arg| arithmetic.contains(&arg));
                let certain = args.iter().all(Option::is_some);
                if args.iter().flatten().any(|arg| runs(arg)) || (compares && !certain) {
                    self.opaque();
                }
            }
            base if SHAPING.contains(&base) => self.opaque(),
            base if NAMING.contains(&base) => {
                for arg in args {
                    let Some(arg) = arg else {
                        self.opaque();
                        continue;
                    };
                    let name = arg.split('=').next().unwrap_or(arg);
                    let nameref = arg.starts_with('-') && arg.contains('n') && base != "unset";
                    let reads = base == "read" && arg.starts_with('-');
                    if name.contains(['$', '`', '[']) || (nameref && !reads) {
                        self.opaque();
                    }
                    self.assigns(name.trim_end_matches('+'));
                }
                if matches!(base, "mapfile" | "readarray") && has(args, |a| a.starts_with("-C")) {
                    self.opaque();
                }
            }
            _ => return false,
        }
        true
    }
}

/// Whether an argument is such, for all that is known.
pub(super) fn has(args: &[Field], is: impl Fn(&str) -> bool) -> bool {
    args.iter().any(|arg| arg.as_deref().is_none_or(&is))
}

/// All arguments with blanks between; `None` where one is not known.
pub(super) fn joined(args: &[Field]) -> Option<String> {
    let known: Option<Vec<&str>> = args.iter().map(Option::as_deref).collect();
    Some(known?.join(" "))
}

fn shared(fields: &[Field]) -> Vec<Option<std::sync::Arc<str>>> {
    let each = fields.iter();
    each.map(|field| field.as_deref().map(Into::into)).collect()
}
