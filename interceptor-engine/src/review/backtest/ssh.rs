//! Requests of SSH, read again from their record and judged.

use std::sync::Arc;

use interceptor_policy::operation::ssh::{
    SftpOperation, SftpRequest, SshForward, SshKind, SshLine, SshRequest,
};
use interceptor_policy::{Operation, Scope, Standing};
use serde_json::Value;

use super::{Judged, METADATA, Opened, Outcome, Unjudged, words};
use crate::replay::Entry;
use crate::replay::entry::{is_cut, is_hidden};
use crate::ssh::command;

/// Judges one session's requests.
#[derive(Debug)]
pub(super) struct Judge {
    scope: Scope,
    standing: Standing,
}

impl Judge {
    pub(super) fn new(scope: Scope, standing: Standing) -> Self {
        Self { scope, standing }
    }

    pub(super) fn entry(&mut self, entry: &Entry, opened: &Opened) -> Outcome {
        let (Some(exchange), Some(was)) = (entry.exchange, entry.meta_text("verdict")) else {
            return Outcome::Nothing;
        };
        if entry.kind != "command" {
            return Outcome::Nothing;
        }
        if entry.meta.get("rules").is_none() {
            return Unjudged::of(entry, "the target's configuration refused it, and no rule");
        }
        let request = match request(entry) {
            Ok(request) => request,
            Err(why) => return Unjudged::of(entry, why),
        };
        let now = opened.at.after(entry.at.0);
        let judgement = self
            .scope
            .judge(&Operation::Ssh(&request), &mut self.standing, now);
        let (would, would_by) = words(&judgement.verdict);
        Outcome::Judged(Box::new(Judged {
            exchange,
            line: entry.line.clone(),
            was: was.to_owned(),
            was_by: None,
            would,
            would_by,
            applied: judgement.applied.iter().map(ToString::to_string).collect(),
            masked: judgement.masks.is_some(),
        }))
    }
}

/// What was asked for; or why that is not known.
fn request(entry: &Entry) -> Result<SshRequest, &'static str> {
    let kind = entry.meta_text("ssh").unwrap_or_default();
    let kind = SshKind::NAMES.iter().find(|(name, _)| *name == kind);
    let Some((name, kind)) = kind else {
        return Err("it is of a kind that this program does not know");
    };
    let mut request = SshRequest {
        user: entry.meta_text("user").unwrap_or_default().into(),
        kind: *kind,
        env: entry.meta_text("env").map(Arc::from),
        subsystem: entry.meta_text("subsystem").map(Arc::from),
        ..SshRequest::default()
    };
    let said = entry.meta_text("command");
    if said.is_some_and(is_hidden) {
        return Err("a value in it is hidden on record");
    }
    match kind {
        SshKind::Shell | SshKind::Exec => match said {
            Some(text) => request.line = Some(line(*kind, text, entry)?),
            // A shell's opening has no line; what has only metadata says its kind alone.
            None if *kind == SshKind::Shell && entry.line != *name => {}
            None => return Err(METADATA),
        },
        SshKind::Sftp => match entry.meta.get("operation") {
            Some(operations) => request.sftp = Some(files(operations, entry)),
            None if entry.line == *name => return Err(METADATA),
            None => {}
        },
        SshKind::LocalForward | SshKind::RemoteForward => {
            let place = entry.line.rsplit_once(' ').map(|(_, place)| place);
            request.forward = Some(place.and_then(forward).ok_or(METADATA)?);
        }
        SshKind::Env if request.env.is_none() => return Err(METADATA),
        _ => {}
    }
    Ok(request)
}

/// A command line, read as it was read when it came.
fn line(kind: SshKind, text: &str, entry: &Entry) -> Result<SshLine, &'static str> {
    if is_cut(text) {
        return Err("its text is cut on record");
    }
    let sure = entry.meta.get("sure").and_then(Value::as_bool);
    Ok(match (kind, sure) {
        (SshKind::Exec, _) => command::read(text.as_bytes()),
        (_, Some(true)) => command::read_entered(text.as_bytes()),
        _ => SshLine::unsure(text),
    })
}

fn files(operations: &Value, entry: &Entry) -> SftpRequest {
    let texts = |list: Option<&Value>| -> Vec<String> {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let of_name = |name: String| {
        let mut names = SftpOperation::NAMES.iter();
        names.find(|(one, _)| *one == name).map(|(_, one)| *one)
    };
    SftpRequest {
        operations: texts(Some(operations))
            .into_iter()
            .filter_map(of_name)
            .collect(),
        paths: texts(entry.meta.get("paths"))
            .into_iter()
            .map(Arc::from)
            .collect(),
    }
}

fn forward(place: &str) -> Option<SshForward> {
    if place.starts_with('/') {
        return Some(SshForward::Socket(place.into()));
    }
    let (host, port) = place.rsplit_once(':')?;
    Some(SshForward::Tcp {
        host: host.into(),
        port: port.parse().ok()?,
    })
}
