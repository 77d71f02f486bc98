//! The `ssh` fields of a match.

use super::reader::{Reader, shown};
use super::yaml::{Key, Node, Value};
use crate::matcher::Matcher;
use crate::matcher::ssh::{Asks, ForwardMatch, Program, SftpMatch, SshField, SshMatch};
use crate::matcher::text::{Stars, Text};
use crate::operation::ssh::{SftpOperation, SshKind, SshStdin};

const SSH: &[&str] = &[
    "user",
    "kind",
    "program",
    "arguments",
    "command",
    "stdin",
    "opaque",
    "reads",
    "writes",
    "sftp",
    "forward",
    "env",
    "subsystem",
];
const SFTP: &[&str] = &["operation", "path"];
const FORWARD: &[&str] = &["host", "port", "socket"];

impl<'a> Reader<'a> {
    pub(super) fn ssh(&mut self, node: &'a Node) -> Option<SshMatch> {
        let mut fields = Some(Vec::new());
        for (key, value) in self.mapping(node, "`ssh`")? {
            match self.ssh_field(key, value) {
                Some((name, asks)) => {
                    if let Some(fields) = &mut fields {
                        fields.push(SshField {
                            name,
                            shown: shown(value),
                            asks,
                        });
                    }
                }
                None => fields = None,
            }
        }
        let fields = fields?;
        self.of_one_kind(node, &fields);
        Some(SshMatch::new(fields))
    }

    fn ssh_field(&mut self, key: &'a Key, node: &'a Node) -> Option<(&'static str, Asks)> {
        Some(match key.text.as_str() {
            "user" => (
                "ssh.user",
                Asks::User(self.texts(node, "`user`", Stars::Free)?),
            ),
            "kind" => {
                let kinds = self.matcher(node, "`kind`", &mut |reader, node| {
                    reader.word(node, "`kind`", SshKind::NAMES)
                })?;
                ("ssh.kind", Asks::Kind(kinds))
            }
            "program" => {
                let programs = self.matcher(node, "`program`", &mut |r, n| r.program(n))?;
                ("ssh.program", Asks::Program(programs))
            }
            "arguments" => (
                "ssh.arguments",
                Asks::Arguments(self.texts(node, "`arguments`", Stars::Free)?),
            ),
            "command" => (
                "ssh.command",
                Asks::Command(self.texts(node, "`command`", Stars::Free)?),
            ),
            "stdin" => {
                let stdin = self.matcher(node, "`stdin`", &mut |reader, node| {
                    reader.word(node, "`stdin`", SshStdin::NAMES)
                })?;
                ("ssh.stdin", Asks::Stdin(stdin))
            }
            "opaque" => ("ssh.opaque", Asks::Opaque(self.boolean(node, "`opaque`")?)),
            "reads" => ("ssh.reads", Asks::Reads(self.files(node, "`reads`")?)),
            "writes" => ("ssh.writes", Asks::Writes(self.files(node, "`writes`")?)),
            "sftp" => ("ssh.sftp", Asks::Sftp(self.sftp(node)?)),
            "forward" => ("ssh.forward", Asks::Forward(self.forward(node)?)),
            "env" => (
                "ssh.env",
                Asks::Env(self.texts(node, "`env`", Stars::Free)?),
            ),
            "subsystem" => (
                "ssh.subsystem",
                Asks::Subsystem(self.texts(node, "`subsystem`", Stars::Free)?),
            ),
            _ => {
                self.unknown(key, "`ssh`", SSH);
                return None;
            }
        })
    }

    /// A program's name, or its path where there is a slash in the pattern.
    fn program(&mut self, node: &'a Node) -> Option<Program> {
        let is_path = match &node.value {
            Value::Text(text) => text.contains('/'),
            _ => false,
        };
        Some(match is_path {
            true => Program::Path(self.text_leaf(node, "`program`", Stars::Path)?),
            false => {
                if let Value::Text(text) = &node.value
                    && text.contains(char::is_whitespace)
                {
                    self.report.warning(
                        node.at,
                        format!("`{text}` can never hold: `program` is a name or a path, without arguments"),
                        Some("write `arguments` beside it".to_owned()),
                    );
                }
                Program::Name(self.text_leaf(node, "`program`", Stars::Free)?)
            }
        })
    }

    fn files(&mut self, node: &'a Node, what: &str) -> Option<Matcher<Text>> {
        self.matcher(node, what, &mut |reader, node| {
            reader.text_leaf(node, what, Stars::Path)
        })
    }

    fn sftp(&mut self, node: &'a Node) -> Option<SftpMatch> {
        let mut read = SftpMatch::default();
        for (key, value) in self.mapping(node, "`sftp`")? {
            match key.text.as_str() {
                "operation" => {
                    let operations = self.matcher(value, "`operation`", &mut |reader, node| {
                        reader.word(node, "`operation`", SftpOperation::NAMES)
                    });
                    read.operation = Some(operations?);
                }
                "path" => read.path = Some(self.files(value, "`path`")?),
                _ => {
                    self.unknown(key, "`sftp`", SFTP);
                    return None;
                }
            }
        }
        Some(read)
    }

    fn forward(&mut self, node: &'a Node) -> Option<ForwardMatch> {
        let mut read = ForwardMatch::default();
        for (key, value) in self.mapping(node, "`forward`")? {
            match key.text.as_str() {
                "host" => read.host = Some(self.texts(value, "`host`", Stars::Free)?),
                "port" => read.port = Some(self.numbers(value, "`port`", u64::from(u16::MAX))?),
                "socket" => read.socket = Some(self.files(value, "`socket`")?),
                _ => {
                    self.unknown(key, "`forward`", FORWARD);
                    return None;
                }
            }
        }
        if read.socket.is_some() && (read.host.is_some() || read.port.is_some()) {
            let message = "this can never hold: a forward is of a host or of a socket";
            self.report.warning(node.at, message, None);
        }
        Some(read)
    }

    /// Fields of different kinds of requests never hold together.
    fn of_one_kind(&mut self, node: &'a Node, fields: &[SshField]) {
        let can_be = |kind: SshKind| {
            fields.iter().all(|field| match &field.asks {
                Asks::Kind(kinds) => {
                    kinds.holds(crate::matcher::Mode::May, &|leaf, _| *leaf == kind)
                }
                Asks::User(_) => true,
                Asks::Sftp(_) => kind == SshKind::Sftp,
                Asks::Forward(_) => {
                    matches!(kind, SshKind::LocalForward | SshKind::RemoteForward)
                }
                Asks::Env(_) => kind == SshKind::Env,
                Asks::Subsystem(_) => kind == SshKind::Subsystem,
                _ => matches!(kind, SshKind::Shell | SshKind::Exec),
            })
        };
        if !SshKind::NAMES.iter().any(|(_, kind)| can_be(*kind)) {
            self.report.warning(
                node.at,
                "this can never hold: no request has all of these fields",
                Some("write a rule for each kind".to_owned()),
            );
        }
    }
}
