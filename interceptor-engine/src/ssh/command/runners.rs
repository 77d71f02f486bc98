//! Programs that run another, given as their arguments.

use interceptor_policy::operation::ssh::SshStdin;

use super::programs::{Input, has, is_changing, joined};
use super::skip::Options;
use super::{Field, Found};

mod table;

use table::{FLOCK, OPAQUE, RUNNERS, Runner, SSH, SSH_SETTINGS, SUDO, WATCH, XARGS};

impl Found {
    /// A program that runs another; whether it is one.
    pub(super) fn runner(&mut self, base: &str, args: &[Field], input: Input<'_>) -> bool {
        if let Some(runner) = RUNNERS.iter().find(|runner| runner.name == base) {
            self.runs(runner, args, input);
            return true;
        }
        match base {
            "command" => match Options::default().skip(args) {
                Some(at) => self.behind(args, at, input),
                None if has(args.get(..1).unwrap_or_default(), |arg| {
                    matches!(arg, "-p" | "--")
                }) =>
                {
                    self.behind(args, 1, input);
                }
                // Only asks what it would be.
                None if is(args.first(), &["-v", "-V"]) => {}
                None => self.opaque(),
            },
            "sudo" => self.sudo(args, input),
            "su" | "runuser" => self.su(args, input),
            "script" | "sg" => {
                self.opaque();
            }
            "flock" => self.flock(args, input),
            "watch" => match WATCH.skip(args) {
                Some(at) => match joined(args.get(at..).unwrap_or_default()) {
                    Some(code) => self.code(&code, input.stdin),
                    None => self.opaque(),
                },
                None => self.opaque(),
            },
            "xargs" => self.xargs(args, input),
            "find" | "gfind" => self.find(args, input),
            "ssh" => self.ssh(args, input),
            "scp" | "sftp" => {
                let runs = |arg: &str| {
                    ["-S", "-o", "-F", "-D", "-b"]
                        .iter()
                        .any(|option| arg.starts_with(option))
                };
                let reads = base == "sftp" && input.stdin != SshStdin::Empty;
                if has(args, runs) || reads {
                    self.opaque();
                }
            }
            "rsync" => {
                let runs = |arg: &str| {
                    let letters = arg.starts_with('-') && !arg.starts_with("--");
                    letters && arg.contains('e') || arg.starts_with("--rs")
                };
                if has(args, runs) {
                    self.opaque();
                }
            }
            "tar" | "gtar" | "bsdtar" | "cpio" => self.tar(args),
            "git" => {
                if git_runs(args) {
                    self.opaque();
                }
            }
            "fd" | "fdfind" => {
                let runs = |arg: &str| {
                    arg.starts_with("--exec")
                        || arg.starts_with('-')
                            && !arg.starts_with("--")
                            && arg.contains(['x', 'X'])
                };
                if has(args, runs) {
                    self.opaque();
                }
            }
            "sort" => {
                if has(args, |arg| arg.starts_with("--co")) {
                    self.opaque();
                }
            }
            "split" => {
                if has(args, |arg| arg.starts_with("--f")) {
                    self.opaque();
                }
            }
            "docker" | "podman" | "nerdctl" | "kubectl" | "oc" | "lxc" | "incus" | "crictl"
            | "ctr" | "docker-compose" | "multipass" | "limactl" => {
                let runs = |arg: &str| {
                    matches!(
                        arg,
                        "exec"
                            | "run"
                            | "shell"
                            | "ssh"
                            | "debug"
                            | "build"
                            | "up"
                            | "x"
                            | "edit"
                            | "plugin"
                            | "tasks"
                            | "task"
                    )
                };
                if has(args, runs) {
                    self.opaque();
                }
            }
            "crontab" if is(args.first(), &["-l"]) && args.len() == 1 => {}
            "tmux" | "screen" if is(args.first(), &["ls", "-ls", "list-sessions"]) => {}
            base if OPAQUE.contains(&base) => self.opaque(),
            _ => return false,
        }
        true
    }

    fn behind(&mut self, args: &[Field], at: usize, input: Input<'_>) {
        self.execute(args.get(at..).unwrap_or_default(), input);
    }

    fn runs(&mut self, runner: &Runner, args: &[Field], input: Input<'_>) {
        // `taskset -p`, `chrt -p` and their kin are about what runs already.
        let Some(mut at) = runner.options.skip(args) else {
            return self.opaque();
        };
        if runner.assigns {
            while let Some(Some(arg)) = args.get(at) {
                // Alone it empties the environment.
                if arg != "-" && !self.is_assignment(arg) {
                    break;
                }
                at += 1;
            }
        }
        for _ in 0..runner.operands {
            match args.get(at) {
                Some(None) => return self.opaque(),
                Some(Some(_)) => at += 1,
                None => {}
            }
        }
        if runner.name == "doas" && args.get(at).is_none() {
            return self.code_from(input);
        }
        self.behind(args, at, input);
    }

    /// Whether it is `NAME=VALUE`, which is told.
    fn is_assignment(&mut self, arg: &str) -> bool {
        let Some((name, _)) = arg.split_once('=') else {
            return false;
        };
        if is_changing(name) {
            self.opaque();
        }
        !name.is_empty()
    }

    fn sudo(&mut self, args: &[Field], input: Input<'_>) {
        // `-s` and `-i` give what follows to a shell.
        let shell = |arg: &Field| {
            arg.as_deref().is_some_and(|arg| {
                matches!(arg, "-s" | "-i" | "--shell" | "--login" | "-si" | "-is")
            })
        };
        let first = args.iter().position(shell);
        let options: Vec<Field> = args
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != first)
            .map(|(_, arg)| arg.clone())
            .collect();
        let Some(mut at) = SUDO.skip(&options) else {
            // To list or edit, and what is not known here.
            return match is(args.first(), &["-l", "--list", "-ll"]) {
                true => {}
                false => self.opaque(),
            };
        };
        // Behind the program it is an argument of that.
        let to_shell = first.is_some_and(|first| first <= at);
        let rest = if to_shell { options.as_slice() } else { args };
        while let Some(Some(arg)) = rest.get(at) {
            if !self.is_assignment(arg) {
                break;
            }
            at += 1;
        }
        let rest = rest.get(at..).unwrap_or_default();
        if to_shell {
            self.plain("sh");
            return match (rest.is_empty(), joined(rest)) {
                (true, _) => self.code_from(input),
                (false, Some(code)) => {
                    self.execute(rest, input);
                    self.code(&code, input.stdin);
                }
                (false, None) => self.opaque(),
            };
        }
        self.execute(rest, input);
    }

    fn su(&mut self, args: &[Field], input: Input<'_>) {
        self.plain("sh");
        if args.iter().any(Option::is_none) {
            return self.opaque();
        }
        let position = |names: &[&str]| args.iter().position(|arg| is(Some(arg), names));
        let other = |arg: &str| {
            arg.starts_with("--")
                && !matches!(
                    arg,
                    "--command" | "--login" | "--" | "--user" | "--preserve-environment"
                )
                || arg.starts_with("-s")
                || arg.starts_with("--sh")
        };
        if has(args, other) {
            return self.opaque();
        }
        if let Some(at) = position(&["-c", "--command", "-lc"]) {
            return match args.get(at + 1) {
                Some(Some(code)) => self.code(code, input.stdin),
                _ => self.opaque(),
            };
        }
        if let Some(at) = position(&["-u", "--user"]) {
            let rest = args.get(at + 2..).unwrap_or_default();
            let skip = usize::from(is(rest.first(), &["--"]));
            return self.behind(rest, skip, input);
        }
        let plain = |arg: &str| {
            matches!(arg, "-" | "-l" | "--login" | "-m" | "-p") || !arg.starts_with('-')
        };
        match args.iter().flatten().all(|arg| plain(arg)) && args.len() < 3 {
            true => self.code_from(input),
            false => self.opaque(),
        }
    }

    fn flock(&mut self, args: &[Field], input: Input<'_>) {
        let Some(at) = FLOCK.skip(args) else {
            return self.opaque();
        };
        let rest = args.get(at + 1..).unwrap_or_default();
        match rest {
            [Some(option), code] if option == "-c" || option == "--command" => match code {
                Some(code) => {
                    self.plain("sh");
                    self.code(code, input.stdin);
                }
                None => self.opaque(),
            },
            rest => self.execute(rest, input),
        }
    }

    fn xargs(&mut self, args: &[Field], input: Input<'_>) {
        let Some(at) = XARGS.skip(args) else {
            return self.opaque();
        };
        let options = args.get(..at).unwrap_or_default().iter().flatten();
        let replaces = options
            .clone()
            .any(|arg| arg.starts_with("-I") || arg.starts_with("--rep") || is_cluster(arg, 'I'));
        let rest = args.get(at..).unwrap_or_default();
        let child = Input {
            stdin: SshStdin::Empty,
            inherits: false,
            document: None,
        };
        // What it reads is put behind them, or into any of them.
        let mut fields: Vec<Field> = match replaces {
            true => {
                let mark = replaced(args.get(..at).unwrap_or_default());
                let each = rest.iter();
                each.map(|arg| {
                    let arg = arg.as_ref()?;
                    let known = mark.as_deref().is_some_and(|mark| !arg.contains(mark));
                    known.then(|| arg.clone())
                })
                .collect()
            }
            false => rest.to_vec(),
        };
        if fields.is_empty() {
            fields.push(Some("echo".to_owned()));
        }
        if !replaces {
            fields.push(None);
        }
        let _ = input;
        self.execute(&fields, child);
    }

    fn find(&mut self, args: &[Field], input: Input<'_>) {
        let mut rest = args.iter();
        let mut unknown = false;
        while let Some(arg) = rest.next() {
            let Some(arg) = arg.as_deref() else {
                unknown = true;
                continue;
            };
            if !matches!(arg, "-exec" | "-execdir" | "-ok" | "-okdir") {
                continue;
            }
            let mut fields: Vec<Field> = Vec::new();
            loop {
                match rest.next() {
                    // It does not end.
                    None => return self.opaque(),
                    Some(None) => fields.push(None),
                    Some(Some(end)) if end == ";" => break,
                    Some(Some(end)) if end == "+" && fields.last() == Some(&None) => break,
                    Some(Some(field)) if field.contains("{}") => fields.push(None),
                    Some(Some(field)) => fields.push(Some(field.clone())),
                }
            }
            self.execute(&fields, input);
        }
        if unknown {
            // It may be an option that runs something: a path that begins with
            // a dash, or anything out of a variable.
            self.opaque();
        }
    }

    /// A command on another host, which this line has run there.
    fn ssh(&mut self, args: &[Field], input: Input<'_>) {
        let Some(host) = SSH.skip(args) else {
            return self.opaque();
        };
        let after = args.get(host + 1..).unwrap_or_default();
        let Some(command) = SSH.skip(after) else {
            return self.opaque();
        };
        let before = args.get(..host).unwrap_or_default().iter();
        let options: Vec<&Field> = before
            .chain(after.get(..command).unwrap_or_default())
            .collect();
        for (at, option) in options.iter().enumerate() {
            let Some(option) = option.as_deref() else {
                return self.opaque();
            };
            let setting = match option.strip_prefix("-o") {
                Some("") => options.get(at + 1).and_then(|next| next.as_deref()),
                Some(rest) => Some(rest),
                None if is_cluster(option, 'o') => return self.opaque(),
                None => continue,
            };
            let name = setting.unwrap_or_default();
            let name = name.split(['=', ' ']).next().unwrap_or_default();
            if !SSH_SETTINGS.contains(&name.to_ascii_lowercase().as_str()) {
                return self.opaque();
            }
        }
        if args.get(host).is_none_or(Option::is_none) {
            return self.opaque();
        }
        match after.get(command..).unwrap_or_default() {
            [] => self.code_from(input),
            rest => match joined(rest) {
                Some(code) => self.code(&code, input.stdin),
                None => self.opaque(),
            },
        }
    }

    fn tar(&mut self, args: &[Field]) {
        let long = [
            "--to",
            "--us",
            "--ch",
            "--rs",
            "--rm",
            "--ne",
            "--in",
            "--force-l",
        ];
        let runs = |arg: &str| {
            let letters = arg.starts_with('-') && !arg.starts_with("--");
            long.iter().any(|long| arg.starts_with(long)) || letters && arg.contains(['I', 'F'])
        };
        let first = args.first().and_then(Option::as_deref).unwrap_or_default();
        let known: Vec<Field> = args.iter().filter(|arg| arg.is_some()).cloned().collect();
        if has(&known, runs) || (!first.starts_with('-') && first.contains(['I', 'F'])) {
            self.opaque();
        }
    }
}

/// What git is told to run.
fn git_runs(args: &[Field]) -> bool {
    let mut before = args.iter();
    let mut at = 0;
    // Options before the subcommand.
    let subcommand = loop {
        let Some(arg) = before.next() else {
            return false;
        };
        at += 1;
        match arg.as_deref() {
            None => return true,
            Some("-C" | "--git-dir" | "--work-tree" | "--namespace") => {
                before.next();
                at += 1;
            }
            Some("--no-pager" | "-P" | "-p" | "--paginate" | "--bare" | "--version" | "--help") => {
            }
            Some(option) if option.starts_with('-') => return true,
            Some(subcommand) => break subcommand,
        }
    };
    let rest: Vec<Field> = args
        .iter()
        .skip(at)
        .filter(|arg| arg.is_some())
        .cloned()
        .collect();
    if matches!(
        subcommand,
        "filter-branch"
            | "difftool"
            | "mergetool"
            | "config"
            | "bisect"
            | "submodule"
            | "shell"
            | "instaweb"
            | "web--browse"
            | "send-email"
            | "daemon"
            | "fast-import"
            | "p4"
            | "cvsserver"
            | "credential"
            | "upload-pack"
            | "receive-pack"
            | "hook"
            | "maintenance"
    ) {
        return subcommand != "submodule" && subcommand != "bisect"
            || has(&rest, |arg| matches!(arg, "foreach" | "run"));
    }
    has(&rest, |arg| {
        let rebases = subcommand == "rebase" && (arg.starts_with("-x") || arg == "-i");
        arg.starts_with("--upload-pack")
            || arg.starts_with("--receive-pack")
            || arg.starts_with("--exec")
            || arg.starts_with("--config")
            || arg.starts_with("--open-files")
            || arg.starts_with("ext::")
            || arg.starts_with("--ext-diff")
            || arg.starts_with("--upl")
            || arg.starts_with("--rec")
            || (subcommand == "clone" && matches!(arg, "-c" | "-u"))
            || (subcommand == "grep" && arg.starts_with("-O"))
            || (subcommand == "archive" && arg.starts_with("--remote"))
            || rebases
    })
}

fn is(arg: Option<&Field>, names: &[&str]) -> bool {
    let arg = arg.and_then(Option::as_deref);
    arg.is_some_and(|arg| names.contains(&arg))
}

/// Whether a cluster of letters has this one.
fn is_cluster(arg: &str, letter: char) -> bool {
    arg.starts_with('-') && !arg.starts_with("--") && arg.contains(letter)
}

/// What `xargs` puts its input in the place of, where that is certain.
fn replaced(options: &[Field]) -> Option<String> {
    let at = options.iter().position(|arg| is(Some(arg), &["-I"]));
    match at {
        Some(at) => options.get(at + 1)?.clone(),
        None => {
            let glued = options
                .iter()
                .flatten()
                .find_map(|arg| arg.strip_prefix("-I"))?;
            Some(glued.to_owned())
        }
    }
}
