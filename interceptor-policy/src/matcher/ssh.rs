//! The fields of `ssh`: what a request asks to do.
//!
//! Fields of a line (`program`, `arguments`, `stdin`, …) are asked of one and the
//! same program of it, so that `{ program: sh, stdin: piped }` never takes the
//! name of one and the input of another. What nobody can know before the line
//! runs may be anything to a rule that makes things stricter, and is certainly
//! nothing to one that makes them milder.
//!
//! A field of a line holds for no request without one, a field of `sftp` for
//! none but those, negated or not: "any program but `rm`" is no forward.

use std::sync::Arc;

use super::key::needed;
use super::session::Number;
use super::text::Text;
use super::{Matcher, Mode};
use crate::matcher::http::key::lower;
use crate::operation::ssh::{
    SftpOperation, SftpRequest, SshForward, SshKind, SshLine, SshProgram, SshRequest, SshStdin,
};

/// Where what is named without a path is found on a system that is as it should be.
const FOLDERS: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
];

/// A leaf of `program`.
#[derive(Debug)]
pub(crate) enum Program {
    /// Of the name; of a path, of its last part.
    Name(Text),
    /// Of the path: the pattern has a slash.
    Path(Text),
}

impl Program {
    fn holds(&self, program: &SshProgram, mode: Mode) -> bool {
        let (Some(path), Some(name)) = (program.path.as_deref(), program.name()) else {
            return mode == Mode::May;
        };
        match (self, mode) {
            (Self::Name(text), Mode::May) => text.loose(name) || text.loose(path),
            (Self::Name(text), Mode::Must) => {
                let folder = path.strip_suffix(name).and_then(|f| f.strip_suffix('/'));
                let known = match folder {
                    Some(folder) => FOLDERS.contains(&folder),
                    None => true,
                };
                known && text.exact(name)
            }
            (Self::Path(text), _) => path_holds(text, path, mode),
        }
    }

    /// The one name that it holds for, in lower case.
    fn key(&self) -> Option<String> {
        let (Self::Name(text) | Self::Path(text)) = self;
        let text = text.exact_text().filter(|text| text.is_ascii())?;
        let name = text.rsplit('/').next().unwrap_or(text);
        Some(lower(name).into_owned())
    }
}

/// A path and what it comes to; where a server may read it as another, it is
/// certain only if that matches too.
fn path_holds(text: &Text, path: &str, mode: Mode) -> bool {
    let resolved = resolved(path);
    match mode {
        Mode::May => text.loose(path) || text.loose(&resolved),
        Mode::Must => text.exact(path) && text.exact(&resolved),
    }
}

/// Without `.`, `..` and empty segments.
fn resolved(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if path.starts_with('/') || parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match path.starts_with('/') {
        true => format!("/{joined}"),
        false => joined,
    }
}

/// What one field asks for. In the order of what it costs to ask.
#[derive(Debug)]
pub(crate) enum Asks {
    Kind(Matcher<SshKind>),
    Opaque(bool),
    Stdin(Matcher<SshStdin>),
    User(Matcher<Text>),
    Program(Matcher<Program>),
    Subsystem(Matcher<Text>),
    Env(Matcher<Text>),
    Sftp(SftpMatch),
    Forward(ForwardMatch),
    Reads(Matcher<Text>),
    Writes(Matcher<Text>),
    Arguments(Matcher<Text>),
    Command(Matcher<Text>),
}

/// `sftp: { operation: …, path: … }`
#[derive(Debug, Default)]
pub(crate) struct SftpMatch {
    pub(crate) operation: Option<Matcher<SftpOperation>>,
    pub(crate) path: Option<Matcher<Text>>,
}

impl SftpMatch {
    fn holds(&self, mode: Mode, of: &SftpRequest) -> bool {
        let operation = self.operation.as_ref().is_none_or(|matcher| {
            matcher.holds_among(mode, &of.operations, |leaf, is, _| leaf == *is)
        });
        operation
            && self.path.as_ref().is_none_or(|matcher| {
                matcher.holds_among(mode, &of.paths, |text, is, mode| path_holds(text, is, mode))
            })
    }
}

/// `forward: { host: …, port: …, socket: … }`
#[derive(Debug, Default)]
pub(crate) struct ForwardMatch {
    pub(crate) host: Option<Matcher<Text>>,
    pub(crate) port: Option<Matcher<Number>>,
    pub(crate) socket: Option<Matcher<Text>>,
}

impl ForwardMatch {
    fn holds(&self, mode: Mode, of: &SshForward) -> bool {
        match of {
            SshForward::Tcp { host, port } => {
                let host = host.trim_end_matches('.');
                let host = (!host.is_empty()).then_some(host);
                self.socket.is_none()
                    && self.host.as_ref().is_none_or(|matcher| {
                        // Host names have no case; no host is every address.
                        match (host, mode) {
                            (None, Mode::May) => true,
                            _ => matcher.holds_for(mode, host, |text, is, _| text.loose(is)),
                        }
                    })
                    && self.port.as_ref().is_none_or(|matcher| {
                        // The server chooses.
                        match (port, mode) {
                            (0, Mode::May) => true,
                            _ => matcher.holds(mode, &|leaf, _| leaf.holds(u64::from(*port))),
                        }
                    })
            }
            SshForward::Socket(path) => {
                self.host.is_none()
                    && self.port.is_none()
                    && self.socket.as_ref().is_none_or(|matcher| {
                        matcher.holds(mode, &|text, mode| path_holds(text, path, mode))
                    })
            }
        }
    }
}

/// One field.
#[derive(Debug)]
pub(crate) struct SshField {
    /// `ssh.program`
    pub(crate) name: &'static str,
    /// What it asks for, as it was written.
    pub(crate) shown: String,
    pub(crate) asks: Asks,
}

/// Paths of redirections, some of which may be any.
fn among(matcher: &Matcher<Text>, mode: Mode, paths: &[Option<Arc<str>>]) -> bool {
    matcher.holds_among(mode, paths, |text, path, mode| match path {
        Some(path) => path_holds(text, path, mode),
        None => mode == Mode::May,
    })
}

/// The arguments as one text; to a stricter rule each by itself as well.
fn arguments(text: &Text, program: &SshProgram, mode: Mode) -> bool {
    match (program.joined(), mode) {
        (None, mode) => mode == Mode::May,
        (Some(joined), Mode::Must) => text.exact(&joined),
        (Some(joined), Mode::May) => {
            let mut each = program.arguments.iter().flatten();
            text.loose(&joined) || each.any(|argument| text.loose(argument))
        }
    }
}

fn command(text: &Text, line: &SshLine, mode: Mode) -> bool {
    match mode {
        Mode::May => !line.sure || text.loose(&line.text),
        Mode::Must => line.sure && text.exact(&line.text),
    }
}

impl SshField {
    pub(crate) fn holds(
        &self,
        mode: Mode,
        request: &SshRequest,
        program: Option<&SshProgram>,
    ) -> bool {
        match &self.asks {
            Asks::Kind(matcher) => matcher.holds(mode, &|kind, _| *kind == request.kind),
            Asks::User(matcher) => matcher.holds(mode, &|text, mode| match mode {
                Mode::May => text.loose(&request.user),
                Mode::Must => text.exact(&request.user),
            }),
            Asks::Opaque(is) => program.is_some_and(|program| program.is_opaque() == *is),
            Asks::Stdin(matcher) => program.is_some_and(|program| {
                matcher.holds(mode, &|stdin, mode| match program.stdin {
                    SshStdin::Unknown => mode == Mode::May,
                    known => *stdin == known,
                })
            }),
            Asks::Program(matcher) => program.is_some_and(|program| {
                matcher.holds(mode, &|leaf, mode| leaf.holds(program, mode))
            }),
            Asks::Arguments(matcher) => program.is_some_and(|program| {
                matcher.holds(mode, &|text, mode| arguments(text, program, mode))
            }),
            Asks::Reads(matcher) => {
                program.is_some_and(|program| among(matcher, mode, &program.reads))
            }
            Asks::Writes(matcher) => {
                program.is_some_and(|program| among(matcher, mode, &program.writes))
            }
            Asks::Command(matcher) => request
                .line
                .as_ref()
                .is_some_and(|line| matcher.holds(mode, &|text, mode| command(text, line, mode))),
            Asks::Sftp(sftp) => request
                .sftp
                .as_ref()
                .is_some_and(|request| sftp.holds(mode, request)),
            Asks::Forward(forward) => request
                .forward
                .as_ref()
                .is_some_and(|request| forward.holds(mode, request)),
            Asks::Env(matcher) => text(matcher, mode, request.env.as_deref()),
            Asks::Subsystem(matcher) => text(matcher, mode, request.subsystem.as_deref()),
        }
    }

    /// Whether it asks about a line or its programs.
    const fn is_of_lines(&self) -> bool {
        matches!(
            self.asks,
            Asks::Opaque(_)
                | Asks::Stdin(_)
                | Asks::Program(_)
                | Asks::Reads(_)
                | Asks::Writes(_)
                | Asks::Arguments(_)
                | Asks::Command(_)
        )
    }

    /// What the request has there, for a person.
    pub(crate) fn is(&self, request: &SshRequest, program: Option<&SshProgram>) -> String {
        let list = |all: Vec<String>| match all.is_empty() {
            true => "none".to_owned(),
            false => all.join(", "),
        };
        let quoted = |text: &Arc<str>| format!("`{text}`");
        let unknown = || "not known before it runs".to_owned();
        let paths = |paths: &[Option<Arc<str>>]| {
            let each = paths.iter();
            list(
                each.map(|path| path.as_ref().map_or_else(unknown, quoted))
                    .collect(),
            )
        };
        let of_program = |said: &dyn Fn(&SshProgram) -> String| match program {
            Some(program) => said(program),
            None => "not there".to_owned(),
        };
        let known = |text: &Option<Arc<str>>| match text {
            Some(text) => quoted(text),
            None => "not there".to_owned(),
        };
        match &self.asks {
            Asks::Kind(_) => request.kind.name().to_owned(),
            Asks::User(_) => quoted(&request.user),
            Asks::Opaque(_) => of_program(&|program| program.is_opaque().to_string()),
            Asks::Stdin(_) => of_program(&|program| program.stdin.name().to_owned()),
            Asks::Program(_) => {
                of_program(&|program| program.path.as_ref().map_or_else(unknown, quoted))
            }
            Asks::Arguments(_) => of_program(&|program| match program.joined() {
                Some(joined) => format!("`{joined}`"),
                None => unknown(),
            }),
            Asks::Reads(_) => of_program(&|program| paths(&program.reads)),
            Asks::Writes(_) => of_program(&|program| paths(&program.writes)),
            Asks::Command(_) => "the line as it was sent".to_owned(),
            Asks::Sftp(_) => match &request.sftp {
                None => "not there".to_owned(),
                Some(sftp) => {
                    let operations = sftp.operations.iter().map(|o| o.name().to_owned());
                    let paths = sftp.paths.iter().map(quoted);
                    list(operations.chain(paths).collect())
                }
            },
            Asks::Forward(_) => match &request.forward {
                None => "not there".to_owned(),
                Some(SshForward::Tcp { host, port }) => format!("`{host}` port {port}"),
                Some(SshForward::Socket(path)) => quoted(path),
            },
            Asks::Env(_) => known(&request.env),
            Asks::Subsystem(_) => known(&request.subsystem),
        }
    }

    const fn cost(&self) -> u8 {
        match self.asks {
            Asks::Kind(_) => 0,
            Asks::Opaque(_) => 1,
            Asks::Stdin(_) => 2,
            Asks::User(_) => 3,
            Asks::Program(_) => 4,
            Asks::Subsystem(_) => 5,
            Asks::Env(_) => 6,
            Asks::Sftp(_) => 7,
            Asks::Forward(_) => 8,
            Asks::Reads(_) => 9,
            Asks::Writes(_) => 10,
            Asks::Arguments(_) => 11,
            Asks::Command(_) => 12,
        }
    }
}

fn text(matcher: &Matcher<Text>, mode: Mode, is: Option<&str>) -> bool {
    is.is_some_and(|is| {
        matcher.holds(mode, &|text, mode| match mode {
            Mode::May => text.loose(is),
            Mode::Must => text.exact(is),
        })
    })
}

/// All of them, cheapest first.
#[derive(Debug, Default)]
pub(crate) struct SshMatch {
    pub(crate) fields: Vec<SshField>,
}

impl SshMatch {
    pub(crate) fn new(mut fields: Vec<SshField>) -> Self {
        fields.sort_by_key(SshField::cost);
        Self { fields }
    }

    pub(crate) fn holds(
        &self,
        mode: Mode,
        request: &SshRequest,
        program: Option<&SshProgram>,
    ) -> bool {
        self.against(mode, request, program).is_none()
    }

    /// The first thing that keeps it from holding.
    pub(crate) fn against(
        &self,
        mode: Mode,
        request: &SshRequest,
        program: Option<&SshProgram>,
    ) -> Option<Against<'_>> {
        // Each line, and each operation on files, is judged when it comes: who
        // says of which of them he speaks lets the shell or the subsystem be
        // opened.
        let opens = mode == Mode::Must && self.has(|asks| matches!(asks, Asks::Kind(_)));
        let later = |field: &SshField| match request.kind {
            SshKind::Shell => request.line.is_none() && field.is_of_lines(),
            SshKind::Sftp => request.sftp.is_none() && matches!(field.asks, Asks::Sftp(_)),
            _ => false,
        };
        let mut asked = self.fields.iter();
        let fails =
            |field: &&SshField| !(opens && later(field) || field.holds(mode, request, program));
        if let Some(field) = asked.find(fails) {
            return Some(Against::Field(field));
        }
        let program = program.filter(|_| mode == Mode::Must)?;
        // To speak of what a program is and does is not to speak of the files
        // that the shell opens for it.
        let of_arguments = self.has(|asks| matches!(asks, Asks::Arguments(_)));
        let of_programs = of_arguments || self.has(|asks| matches!(asks, Asks::Program(_)));
        let of_writes = self.has(|asks| matches!(asks, Asks::Writes(_)));
        let of_reads = self.has(|asks| matches!(asks, Asks::Reads(_)));
        if of_programs && !of_writes && !program.writes.is_empty() {
            return Some(Against::Writes);
        }
        (of_arguments && !of_reads && !program.reads.is_empty()).then_some(Against::Reads)
    }

    fn has(&self, is: impl Fn(&Asks) -> bool) -> bool {
        self.fields.iter().any(|field| is(&field.asks))
    }

    /// What a request has to have for it to hold, for the index of rules.
    pub(crate) fn key(&self) -> Option<Key> {
        let program = self.fields.iter().find_map(|field| match &field.asks {
            Asks::Program(of) => needed(of, &Program::key),
            _ => None,
        });
        if let Some(names) = program {
            return Some(Key::Programs(names));
        }
        let kinds = self.fields.iter().find_map(|field| match &field.asks {
            Asks::Kind(of) => Some(of),
            _ => None,
        })?;
        let holds = |kind: &SshKind| kinds.holds(Mode::May, &|leaf, _| leaf == kind);
        let all = SshKind::NAMES.iter().map(|(_, kind)| *kind);
        Some(Key::Kinds(all.filter(holds).collect()))
    }
}

/// What keeps a match from holding.
#[derive(Debug)]
pub(crate) enum Against<'m> {
    Field(&'m SshField),
    /// It names programs, and not the files that one writes, or reads.
    Writes,
    Reads,
}

/// One of these things, at least, in any mode.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A program of one of these names, in lower case, or one that is not known.
    Programs(Vec<String>),
    /// One of these kinds.
    Kinds(Vec<SshKind>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_as_a_system_does() {
        for (path, is) in [
            ("/a/./b//c", "/a/b/c"),
            ("/a/../../etc/passwd", "/etc/passwd"),
            ("a/../b", "b"),
            ("../b", "../b"),
            ("../../b", "../../b"),
            ("/", "/"),
        ] {
            assert_eq!(resolved(path), is, "{path}");
        }
    }
}
