//! SSH requests as the inline tests of rule files write them.

use super::reader::Reader;
use super::yaml::{Node, Value};
use crate::operation::ssh::{
    SftpOperation, SftpRequest, SshForward, SshKind, SshRequest, SshSample,
};

const SAMPLE: &[&str] = &[
    "user",
    "kind",
    "command",
    "sftp",
    "forward",
    "env",
    "subsystem",
];

impl<'a> Reader<'a> {
    /// A command line, or `{ kind: sftp, sftp: { operation: read, path: /x } }`.
    pub(super) fn ssh_sample(&mut self, node: &'a Node) -> Option<SshSample> {
        let mut sample = SshSample {
            request: SshRequest {
                user: "agent".into(),
                kind: SshKind::Exec,
                ..SshRequest::default()
            },
            command: None,
        };
        if !matches!(node.value, Value::Map(_)) {
            sample.command = Some(self.text(node, "`ssh`")?.to_owned());
            return Some(sample);
        }
        let mut kind = None;
        for (key, value) in self.mapping(node, "`ssh`")? {
            let what = format!("`{}`", key.text);
            let request = &mut sample.request;
            match key.text.as_str() {
                "user" => request.user = self.text(value, &what)?.into(),
                "kind" => kind = Some(self.word(value, &what, SshKind::NAMES)?),
                "command" => sample.command = Some(self.text(value, &what)?.to_owned()),
                "sftp" => request.sftp = Some(self.sftp_sample(value)?),
                "forward" => request.forward = Some(self.forward_sample(value)?),
                "env" => request.env = Some(self.text(value, &what)?.into()),
                "subsystem" => request.subsystem = Some(self.text(value, &what)?.into()),
                _ => self.unknown(key, "`ssh`", SAMPLE),
            }
        }
        let request = &mut sample.request;
        // What it is of tells what it is, where there is no choice.
        request.kind = match kind {
            Some(kind) => kind,
            None if request.sftp.is_some() => SshKind::Sftp,
            None if request.env.is_some() => SshKind::Env,
            None if request.subsystem.is_some() => SshKind::Subsystem,
            None => SshKind::Exec,
        };
        let lacks = match request.kind {
            SshKind::Exec => sample.command.is_none().then_some("command"),
            SshKind::LocalForward | SshKind::RemoteForward => {
                request.forward.is_none().then_some("forward")
            }
            SshKind::Env => request.env.is_none().then_some("env"),
            SshKind::Subsystem => request.subsystem.is_none().then_some("subsystem"),
            _ => None,
        };
        if let Some(word) = lacks {
            let kind = request.kind.name();
            self.error(node.at, format!("the `{kind}` has no `{word}`"));
            return None;
        }
        Some(sample)
    }

    fn sftp_sample(&mut self, node: &'a Node) -> Option<SftpRequest> {
        let mut request = SftpRequest::default();
        for (key, value) in self.mapping(node, "`sftp`")? {
            match key.text.as_str() {
                "operation" => {
                    for item in self.flat(value, "`operation`")? {
                        let operation = self.word(item, "`operation`", SftpOperation::NAMES)?;
                        request.operations.push(operation);
                    }
                }
                "path" => {
                    for item in self.flat(value, "`path`")? {
                        request.paths.push(self.text(item, "`path`")?.into());
                    }
                }
                _ => self.unknown(key, "`sftp`", &["operation", "path"]),
            }
        }
        Some(request)
    }

    fn forward_sample(&mut self, node: &'a Node) -> Option<SshForward> {
        let (mut host, mut port, mut socket) = ("", 0, None);
        for (key, value) in self.mapping(node, "`forward`")? {
            match key.text.as_str() {
                "host" => host = self.text(value, "`host`")?,
                "port" => port = self.number(value, "`port`", u64::from(u16::MAX))?,
                "socket" => socket = Some(self.text(value, "`socket`")?),
                _ => self.unknown(key, "`forward`", &["host", "port", "socket"]),
            }
        }
        Some(match socket {
            Some(path) => SshForward::Socket(path.into()),
            None => SshForward::Tcp {
                host: host.into(),
                port: u16::try_from(port).unwrap_or(0),
            },
        })
    }
}
