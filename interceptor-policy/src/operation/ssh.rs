//! What one request of an SSH connection asks to do, as rules see it.
//!
//! A command line is what its programs are: each is judged by itself, and the
//! strictest verdict is the line's, so that to allow one of them is not to allow
//! the line. What cannot be known before the line runs is here as well, as a
//! program without a path or an argument without a text: it may be anything to a
//! rule that makes things stricter, and is nothing to one that makes them milder.

use std::sync::Arc;

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshRequest {
    /// The remote user.
    pub user: Arc<str>,
    /// What is asked for.
    pub kind: SshKind,
    /// Of an `exec`, and of a line entered in a `shell`: the command line. `None`
    /// for the opening of a shell, and for every other kind.
    pub line: Option<SshLine>,
    /// Of `sftp`: one operation; `None` for the opening of the subsystem.
    pub sftp: Option<SftpRequest>,
    /// Of `local_forward` and `remote_forward`: where to, or where it listens.
    pub forward: Option<SshForward>,
    /// Of `env`: the variable's name.
    pub env: Option<Arc<str>>,
    /// Of `subsystem`: its name.
    pub subsystem: Option<Arc<str>>,
}

impl SshRequest {
    /// Whether it gives the agent a shell to type into: a `shell`, or a command
    /// that runs one on what the agent sends.
    #[must_use]
    pub fn opens_shell(&self) -> bool {
        match (self.kind, &self.line) {
            (SshKind::Shell, _) => true,
            (SshKind::Exec, Some(line)) => {
                let from_agent = |program: &SshProgram| program.stdin == SshStdin::Inherited;
                let mut programs = line.programs.iter();
                line.is_opaque()
                    && programs.any(|program| {
                        let name = program.name().unwrap_or_default();
                        from_agent(program) && SHELLS.contains(&name)
                    })
            }
            _ => false,
        }
    }
}

/// A request as a person writes it down, for tests and explanations of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshSample {
    /// All of it but the command line.
    pub request: SshRequest,
    /// The command line's text.
    pub command: Option<String>,
}

impl SshSample {
    /// The request, its line read by `read`.
    #[must_use]
    pub fn read(&self, read: impl Fn(&str) -> SshLine) -> SshRequest {
        SshRequest {
            line: self.command.as_deref().map(read),
            ..self.request.clone()
        }
    }
}

/// Programs that read commands from their input.
pub const SHELLS: &[&str] = &[
    "sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "zsh", "fish", "csh", "tcsh", "rbash",
    "posh", "yash", "lksh", "pdksh", "su", "sudo", "doas", "tmux", "screen", "script",
];

/// What kind of request it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SshKind {
    /// An interactive shell: its opening, and each line that is entered in it.
    #[default]
    Shell,
    /// A command.
    Exec,
    /// The file transfer protocol: its opening, and each operation.
    Sftp,
    /// `direct-tcpip`, `direct-streamlocal`: a connection from the server on.
    LocalForward,
    /// `tcpip-forward`, `streamlocal-forward`: the server listens.
    RemoteForward,
    /// The agent's keys, lent to the server.
    AgentForward,
    /// X11, from the server back.
    X11,
    /// A variable of the environment.
    Env,
    /// A subsystem other than `sftp`.
    Subsystem,
}

impl SshKind {
    /// Every kind, with the name that rules use.
    pub const NAMES: &'static [(&'static str, SshKind)] = &[
        ("shell", SshKind::Shell),
        ("exec", SshKind::Exec),
        ("sftp", SshKind::Sftp),
        ("local_forward", SshKind::LocalForward),
        ("remote_forward", SshKind::RemoteForward),
        ("agent_forward", SshKind::AgentForward),
        ("x11", SshKind::X11),
        ("env", SshKind::Env),
        ("subsystem", SshKind::Subsystem),
    ];

    /// The name that rules use.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, kind)| *kind == self);
        found.map_or("", |(name, _)| name)
    }
}

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshLine {
    /// As it was sent, or as it stands in the terminal.
    pub text: Arc<str>,
    /// Whether that is certainly what the shell gets. Where it is not, `programs`
    /// has one that may be any.
    pub sure: bool,
    /// Every program that it may run, those of other programs' arguments
    /// (`sudo`, `xargs`, `sh -c`) and the shell's own commands (`cd`) included,
    /// in the order in which they are written. None for an empty line, a comment
    /// or a mere assignment.
    pub programs: Vec<SshProgram>,
}

impl SshLine {
    /// A line of which nobody can say what it is, only what it looks like.
    #[must_use]
    pub fn unsure(text: impl Into<Arc<str>>) -> Self {
        Self {
            text: text.into(),
            sure: false,
            programs: vec![SshProgram::opaque()],
        }
    }

    /// One program with its arguments, where the text is nothing but words that
    /// every shell takes as they are; otherwise a line of which nothing is known.
    /// The reader of command lines stands elsewhere.
    #[must_use]
    pub fn of_words(text: &str) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || " /._,:@-".contains(c);
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        if !text.chars().all(plain) {
            return Self::unsure(text);
        }
        let program = words.next().map(|path| SshProgram {
            path: Some(path.into()),
            arguments: words.map(|word| Some(word.into())).collect(),
            ..SshProgram::default()
        });
        Self {
            text: text.into(),
            sure: true,
            programs: program.into_iter().collect(),
        }
    }

    /// Whether it may run what is not known before it runs.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.programs.iter().any(SshProgram::is_opaque)
    }
}

/// A program that a line may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshProgram {
    /// As the line names it once quotes and expansions are done with: `rm`,
    /// `/bin/rm`. `None`: it may be any.
    pub path: Option<Arc<str>>,
    /// Its arguments, in order; `None` for what may be any number of any.
    pub arguments: Vec<Option<Arc<str>>>,
    /// Where its input comes from.
    pub stdin: SshStdin,
    /// Files that the line has the shell open for it to read; `None` for any.
    pub reads: Vec<Option<Arc<str>>>,
    /// Files that the line has the shell open for it to write; `None` for any.
    pub writes: Vec<Option<Arc<str>>>,
}

impl SshProgram {
    /// One that may be any, with any arguments.
    #[must_use]
    pub fn opaque() -> Self {
        Self {
            path: None,
            arguments: vec![None],
            stdin: SshStdin::Unknown,
            ..Self::default()
        }
    }

    /// Whether it may be any.
    #[must_use]
    pub const fn is_opaque(&self) -> bool {
        self.path.is_none()
    }

    /// Its path's last part.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let path = self.path.as_deref()?;
        Some(path.rsplit('/').next().unwrap_or(path))
    }

    /// Its arguments as one text, with a space between; `None` where one of them
    /// is not known.
    #[must_use]
    pub fn joined(&self) -> Option<String> {
        let known: Option<Vec<&str>> = self.arguments.iter().map(Option::as_deref).collect();
        Some(known?.join(" "))
    }
}

/// Where a program's input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SshStdin {
    /// What the agent sends: its terminal, or the channel's data.
    #[default]
    Inherited,
    /// Another program's output.
    Piped,
    /// A file.
    File,
    /// A here-document or a here-string.
    Document,
    /// Nothing: closed, or `/dev/null`.
    Empty,
    /// Any of these.
    Unknown,
}

impl SshStdin {
    /// Those that rules may ask for, with the name that they use.
    pub const NAMES: &'static [(&'static str, SshStdin)] = &[
        ("inherited", SshStdin::Inherited),
        ("piped", SshStdin::Piped),
        ("file", SshStdin::File),
        ("document", SshStdin::Document),
        ("empty", SshStdin::Empty),
    ];

    /// The name that rules use; `unknown` has none there.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, stdin)| *stdin == self);
        found.map_or("unknown", |(name, _)| name)
    }
}

/// One operation of the file transfer protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SftpRequest {
    /// What it does; of an `open`, what the file is opened for: both where it is
    /// to be read and written.
    pub operations: Vec<SftpOperation>,
    /// The paths that it names, two for a rename or a link, each as it was sent
    /// and as a server resolves it, where that is another text.
    pub paths: Vec<Arc<str>>,
}

/// What an operation of the file transfer protocol does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SftpOperation {
    /// Opens a file to read it.
    Read,
    /// Opens a file to write, extend, create or empty it.
    Write,
    /// Lists a directory.
    List,
    /// Asks for attributes.
    Stat,
    /// Sets attributes: mode, owner, size, times.
    Setstat,
    /// Removes a file.
    Remove,
    /// Makes a directory.
    Mkdir,
    /// Removes a directory.
    Rmdir,
    /// Renames.
    Rename,
    /// Makes a link, symbolic or hard.
    Link,
    /// Reads a symbolic link.
    Readlink,
    /// Resolves a path.
    Realpath,
    /// An extension that is none of these.
    Extended,
}

impl SftpOperation {
    /// Every operation, with the name that rules use.
    pub const NAMES: &'static [(&'static str, SftpOperation)] = &[
        ("read", SftpOperation::Read),
        ("write", SftpOperation::Write),
        ("list", SftpOperation::List),
        ("stat", SftpOperation::Stat),
        ("setstat", SftpOperation::Setstat),
        ("remove", SftpOperation::Remove),
        ("mkdir", SftpOperation::Mkdir),
        ("rmdir", SftpOperation::Rmdir),
        ("rename", SftpOperation::Rename),
        ("link", SftpOperation::Link),
        ("readlink", SftpOperation::Readlink),
        ("realpath", SftpOperation::Realpath),
        ("extended", SftpOperation::Extended),
    ];

    /// The name that rules use.
    #[must_use]
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, operation)| *operation == self);
        found.map_or("", |(name, _)| name)
    }
}

/// The far end of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshForward {
    /// A host, as it was asked for, and a port.
    Tcp {
        /// A name or an address; empty for every address.
        host: Arc<str>,
        /// The port; 0 for one that the server chooses.
        port: u16,
    },
    /// A socket in the file system.
    Socket(Arc<str>),
}
