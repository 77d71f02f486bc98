//! A target's `credentials`, checked: what belongs together, and to which protocol.

use http::HeaderName;
use serde_saphyr::{Location, Spanned};

use super::check::Check;
use super::written;
use super::{
    Aws, ClientCertificate, Credentials, HttpCredentials, OAuth, RequestCredentials,
    SshCredentials, SshTarget,
};

impl Check<'_, '_> {
    /// For PostgreSQL, or for HTTP.
    pub(super) fn credentials(
        &mut self,
        raw: &Spanned<written::Credentials>,
        protocol: Option<written::Protocol>,
    ) -> (Option<Credentials>, Option<HttpCredentials>) {
        let Spanned {
            value: raw,
            referenced,
            ..
        } = raw;
        let logs_on = raw.user.is_some() || raw.password.is_some();
        let sends = raw.header.is_some()
            || raw.value.is_some()
            || raw.aws.is_some()
            || raw.oauth.is_some()
            || raw.certificate.is_some()
            || raw.key.is_some();
        match (logs_on, sends) {
            (false, false) => self.error(
                *referenced,
                "credentials without `user` and `password` are none",
                "for HTTP: `header` with `value`, `aws`, `oauth`, or `certificate` with `key`",
            ),
            (true, true) => self.error(
                *referenced,
                "`user` and `password` log on to PostgreSQL, the others are for HTTP: not both",
                "",
            ),
            (false, true) if !matches!(protocol, Some(written::Protocol::Http)) => self.error(
                *referenced,
                "these credentials are for HTTP, and the target does not say that it speaks it",
                "add `protocol: http`",
            ),
            (true, false) if matches!(protocol, Some(written::Protocol::Http)) => self.error(
                *referenced,
                "`user` and `password` log on to PostgreSQL, and the target speaks HTTP",
                "for example `header: Authorization` with `value: { file: PATH }`",
            ),
            _ => {}
        }
        if sends {
            return (None, Some(self.http_credentials(raw, *referenced)));
        }
        if let Some(user) = &raw.user
            && (user.value.is_empty() || user.value.contains('\0'))
        {
            self.error(user.referenced, "this is no user's name", "");
        }
        let credentials = Credentials {
            user: raw.user.as_ref().map(|user| user.value.clone()),
            password: raw
                .password
                .as_ref()
                .and_then(|password| self.secret(password)),
        };
        (Some(credentials), None)
    }

    /// What of a target is for SSH alone.
    pub(super) fn ssh(&mut self, raw: &written::Target, is_ssh: bool) -> SshTarget {
        let only = [
            raw.known_hosts
                .as_ref()
                .map(|one| (one.referenced, "known_hosts")),
            raw.unknown_host_key
                .as_ref()
                .map(|one| (one.referenced, "unknown_host_key")),
            raw.shell.as_ref().map(|one| (one.referenced, "shell")),
            raw.authorized_keys
                .as_ref()
                .map(|one| (one.referenced, "authorized_keys")),
        ];
        for (at, key) in only.into_iter().flatten().filter(|_| !is_ssh) {
            let message =
                format!("`{key}` is for SSH, and the target does not say that it speaks it");
            self.error(at, message, "add `protocol: ssh`");
        }
        let credentials = raw
            .credentials
            .as_ref()
            .filter(|_| is_ssh)
            .map(|raw| self.ssh_credentials(&raw.value, raw.referenced));
        if let Some(keys) = &raw.authorized_keys
            && is_ssh
            && credentials.is_none()
        {
            self.error(
                keys.referenced,
                "`authorized_keys` says who may use the target's `credentials`, and it has none",
                "an agent's own key cannot be passed on: give the target `credentials`",
            );
        }
        SshTarget {
            credentials,
            known_hosts: raw.known_hosts.as_ref().map(|path| self.path(path)),
            authorized_keys: raw.authorized_keys.as_ref().map(|path| self.path(path)),
            accept_new: raw
                .unknown_host_key
                .as_ref()
                .is_some_and(|one| matches!(one.value, written::UnknownHostKey::AcceptNew)),
            shell: raw.shell.as_ref().is_none_or(|shell| shell.value),
        }
    }

    fn ssh_credentials(&mut self, raw: &written::Credentials, at: Location) -> SshCredentials {
        let others = raw.header.is_some()
            || raw.value.is_some()
            || raw.aws.is_some()
            || raw.oauth.is_some()
            || raw.certificate.is_some();
        if others {
            let message = "SSH logs on with `user` and `key`, `authority` or `password`; the others are for HTTP";
            self.error(at, message, "");
        }
        if raw.key.is_some() && raw.authority.is_some() {
            let message = "a session has the target's `key`, or one that `authority` signs";
            self.error(at, message, "leave one of them out");
        }
        if raw.key.is_none() && raw.password.is_none() && raw.authority.is_none() {
            let message = "credentials without `key`, `authority` and `password` are none";
            self.error(at, message, "for example `key: { file: PATH }`");
        }
        if let Some(user) = &raw.user
            && (user.value.is_empty() || user.value.contains('\0'))
        {
            self.error(user.referenced, "this is no user's name", "");
        }
        SshCredentials {
            user: raw.user.as_ref().map(|user| user.value.clone()),
            key: raw.key.as_ref().and_then(|key| self.secret(key)),
            password: raw
                .password
                .as_ref()
                .and_then(|password| self.secret(password)),
            authority: raw
                .authority
                .as_ref()
                .and_then(|authority| self.secret(authority)),
        }
    }

    fn http_credentials(&mut self, raw: &written::Credentials, at: Location) -> HttpCredentials {
        let ways = [raw.header.is_some(), raw.aws.is_some(), raw.oauth.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            let message = "a request is sent with one of `header`, `aws` and `oauth`";
            self.error(at, message, "");
        }
        if raw.header.is_some() != raw.value.is_some() {
            let message = "`header` and `value` belong together";
            self.error(
                at,
                message,
                "the header's name, and a reference to its value",
            );
        }
        if raw.certificate.is_some() != raw.key.is_some() {
            let message = "`certificate` and `key` belong together";
            self.error(
                at,
                message,
                "the certificate's file, and a reference to its key",
            );
        }
        let header = match (&raw.header, &raw.value) {
            (Some(name), Some(value)) => match (self.header(name), self.secret(value)) {
                (Some(name), Some(value)) => Some(RequestCredentials::Header { name, value }),
                _ => None,
            },
            _ => None,
        };
        let aws = raw.aws.as_ref().and_then(|raw| self.aws(&raw.value));
        let oauth = raw.oauth.as_ref().and_then(|raw| self.oauth(&raw.value));
        let certificate = match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(key)) => self.secret(key).map(|key| ClientCertificate {
                certificate: self.path(certificate),
                key,
            }),
            _ => None,
        };
        HttpCredentials {
            request: header
                .or(aws.map(RequestCredentials::Aws))
                .or(oauth.map(RequestCredentials::OAuth)),
            certificate,
        }
    }

    fn header(&mut self, name: &Spanned<String>) -> Option<HeaderName> {
        // These frame the message or say who it is for; setting them is no credential.
        const FRAMING: [&str; 6] = [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
        ];
        match name.value.parse::<HeaderName>() {
            Ok(parsed) if !FRAMING.contains(&parsed.as_str()) => Some(parsed),
            Ok(_) => {
                let message = format!("`{}` is not a header that carries credentials", name.value);
                self.error(name.referenced, message, "for example Authorization");
                None
            }
            Err(_) => {
                let message = "this is no name of a header";
                self.error(name.referenced, message, "for example Authorization");
                None
            }
        }
    }

    fn aws(&mut self, raw: &written::Aws) -> Option<Aws> {
        for word in [&raw.region, &raw.service] {
            let plain = |one: char| one.is_ascii_alphanumeric() || one == '-';
            if word.value.is_empty() || !word.value.chars().all(plain) {
                self.error(
                    word.referenced,
                    "this names no region or service of AWS",
                    "for example eu-central-1, s3",
                );
            }
        }
        let access_key_id = self.secret(&raw.access_key_id);
        let secret_access_key = self.secret(&raw.secret_access_key);
        let session_token = raw.session_token.as_ref().map(|token| self.secret(token));
        Some(Aws {
            region: raw.region.value.clone(),
            service: raw.service.value.clone(),
            access_key_id: access_key_id?,
            secret_access_key: secret_access_key?,
            session_token: match session_token {
                None => None,
                Some(token) => Some(token?),
            },
        })
    }

    fn oauth(&mut self, raw: &written::OAuth) -> Option<OAuth> {
        let url = raw.token_url.value.parse::<http::Uri>().ok().filter(|url| {
            matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some()
        });
        if url.is_none() {
            self.error(
                raw.token_url.referenced,
                "this is no address of a token endpoint",
                "for example https://login.example.com/oauth/token",
            );
        }
        if raw.client_id.value.is_empty() {
            self.error(raw.client_id.referenced, "the client's id is empty", "");
        }
        let client_secret = self.secret(&raw.client_secret);
        Some(OAuth {
            token_url: url?,
            client_id: raw.client_id.value.clone(),
            client_secret: client_secret?,
            scope: raw.scope.as_ref().map(|scope| scope.value.clone()),
        })
    }
}
