//! Letting the agent in.
//!
//! Who the agent is the kernel says. So where the target has credentials, whatever
//! the agent offers is as good as nothing, and the proxy logs on for it, unless the
//! target lists agents' keys: then one of those has to be shown as well. Where it
//! has none, passwords and answers to the server's questions are passed through, and
//! the server decides; an agent's own key cannot be passed through two legs, since
//! what it signs names the first one's keys.
//!
//! Nothing that is secret is recorded, logged, or kept.

use std::sync::Arc;

use russh::client::{Handle, KeyboardInteractiveAuthResponse as Answer};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::server::Auth;
use russh::{MethodKind, MethodSet, client};
use tracing::warn;

use super::Connection;
use super::agent::Origin;
use super::{origin, own_keys};
use crate::config::SshCredentials;
use crate::secrets;

/// The agent's way in.
pub(super) struct Logon {
    pub(super) handle: Option<Handle<origin::Handler>>,
    pub(super) credentials: Option<SshCredentials>,
    /// Agents' own keys, of which one is asked for.
    pub(super) listed: Option<Vec<PublicKey>>,
    /// What the server takes; known after the first attempt.
    pub(super) methods: Option<MethodSet>,
    pub(super) asked: usize,
}

impl Logon {
    /// The origin's connection, which is the agent's from now on.
    pub(super) fn take_origin(&mut self) -> Option<Origin> {
        self.handle.take().map(Arc::new)
    }

    fn reject(&self) -> Auth {
        Auth::Reject {
            proceed_with_methods: self.methods.clone(),
            partial_success: false,
        }
    }

    /// A key that the agent offers: good for nothing, and not needed, unless there is a
    /// list.
    pub(super) fn offered(&self, key: &PublicKey) -> Auth {
        match self.credentials {
            Some(_) if self.takes(Some(key)) => Auth::Accept,
            _ => self.reject(),
        }
    }

    /// Whether an agent that has shown this key may use the target's credentials.
    fn takes(&self, key: Option<&PublicKey>) -> bool {
        self.listed.as_ref().is_none_or(|listed| {
            key.is_some_and(|key| listed.iter().any(|one| one.key_data() == key.key_data()))
        })
    }

    /// Says that a key of the list is asked for.
    fn wants_listed(&mut self, connection: &Connection, user: &str, method: &str) -> Auth {
        self.methods = Some(MethodSet::from([MethodKind::PublicKey].as_slice()));
        if method != "none" {
            let _ =
                connection.call(|session, now, out| session.logon(now, user, method, None, out));
        }
        self.reject()
    }

    pub(super) async fn none(&mut self, connection: &Connection, user: &str) -> Auth {
        if self.credentials.is_some() {
            return self.by_credentials(connection, user, "none", None).await;
        }
        let Some(handle) = &mut self.handle else {
            return Auth::reject();
        };
        let result = handle.authenticate_none(user).await;
        self.settle(connection, user, "none", result)
    }

    pub(super) async fn key(
        &mut self,
        connection: &Connection,
        user: &str,
        key: &PublicKey,
    ) -> Auth {
        if self.credentials.is_some() {
            return self
                .by_credentials(connection, user, "publickey", Some(key))
                .await;
        }
        self.reject()
    }

    pub(super) async fn password(
        &mut self,
        connection: &Connection,
        user: &str,
        password: &str,
    ) -> Auth {
        if self.credentials.is_some() {
            return self
                .by_credentials(connection, user, "password", None)
                .await;
        }
        let Some(handle) = &mut self.handle else {
            return Auth::reject();
        };
        let result = handle.authenticate_password(user, password).await;
        self.settle(connection, user, "password", result)
    }

    pub(super) async fn interactive(
        &mut self,
        connection: &Connection,
        user: &str,
        submethods: &str,
        response: Option<Vec<String>>,
    ) -> Auth {
        if self.credentials.is_some() {
            return self
                .by_credentials(connection, user, "keyboard-interactive", None)
                .await;
        }
        let asked = self.asked;
        let Some(handle) = &mut self.handle else {
            return Auth::reject();
        };
        let answer = match response {
            None => {
                let submethods = (!submethods.is_empty()).then(|| submethods.to_owned());
                handle
                    .authenticate_keyboard_interactive_start(user, submethods)
                    .await
            }
            Some(response) if response.len() == asked => {
                handle
                    .authenticate_keyboard_interactive_respond(response)
                    .await
            }
            Some(_) => return Auth::reject(),
        };
        let result = match answer {
            Ok(Answer::InfoRequest {
                name,
                instructions,
                prompts,
            }) => {
                self.asked = prompts.len();
                return Auth::Partial {
                    name: name.into(),
                    instructions: instructions.into(),
                    prompts: prompts
                        .into_iter()
                        .map(|one| (one.prompt.into(), one.echo))
                        .collect::<Vec<_>>()
                        .into(),
                };
            }
            Ok(Answer::Success) => Ok(client::AuthResult::Success),
            Ok(Answer::Failure {
                remaining_methods,
                partial_success,
            }) => Ok(client::AuthResult::Failure {
                remaining_methods,
                partial_success,
            }),
            Err(error) => Err(error),
        };
        self.settle(connection, user, "keyboard-interactive", result)
    }

    /// What the server said to something that was passed through.
    fn settle(
        &mut self,
        connection: &Connection,
        user: &str,
        method: &str,
        result: Result<client::AuthResult, russh::Error>,
    ) -> Auth {
        let (accepted, partial) = match result {
            Ok(client::AuthResult::Success) => (true, false),
            Ok(client::AuthResult::Failure {
                remaining_methods,
                partial_success,
            }) => {
                let passable: Vec<MethodKind> = remaining_methods
                    .iter()
                    .copied()
                    .filter(|kind| {
                        matches!(kind, MethodKind::Password | MethodKind::KeyboardInteractive)
                    })
                    .collect();
                self.methods = Some(MethodSet::from(passable.as_slice()));
                (false, partial_success)
            }
            Err(error) => {
                warn!(%error, "a server broke off a logon");
                (false, false)
            }
        };
        // To ask which ways there are is no attempt.
        if accepted || method != "none" {
            let upstream = accepted.then_some((user, method));
            let _ = connection
                .call(|session, now, out| session.logon(now, user, method, upstream, out));
        }
        match accepted {
            true => Auth::Accept,
            false => Auth::Reject {
                proceed_with_methods: self.methods.clone(),
                partial_success: partial,
            },
        }
    }

    /// Logs on with the target's credentials.
    async fn by_credentials(
        &mut self,
        connection: &Connection,
        user: &str,
        method: &str,
        shown: Option<&PublicKey>,
    ) -> Auth {
        if !self.takes(shown) {
            return self.wants_listed(connection, user, method);
        }
        let (Some(handle), Some(credentials)) = (&mut self.handle, &self.credentials) else {
            return Auth::reject();
        };
        let name = credentials.user.as_deref().unwrap_or(user).to_owned();
        let flow = &connection.flow;
        let session = format!("{} in {}", flow.identity.principal.agent, flow.session);
        let (by, result) = with(handle, credentials, &name, &session).await;
        let upstream = match result {
            Ok(true) => Some((name.as_str(), by)),
            Ok(false) => {
                warn!(target = %connection.flow.origin, by, "a server does not take the target's credentials");
                None
            }
            Err(error) => {
                warn!(target = %connection.flow.origin, %error, "the target's credentials cannot be used");
                None
            }
        };
        let _ =
            connection.call(|session, now, out| session.logon(now, user, method, upstream, out));
        match upstream {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        }
    }
}

async fn with(
    handle: &mut Handle<origin::Handler>,
    credentials: &SshCredentials,
    user: &str,
    session: &str,
) -> (&'static str, anyhow::Result<bool>) {
    if let Some(authority) = &credentials.authority {
        let tried = by_certificate(handle, authority, user, session).await;
        if credentials.password.is_none() || !matches!(tried, Ok(false)) {
            return ("certificate", tried);
        }
    }
    if let Some(key) = &credentials.key {
        let tried = by_key(handle, key, user).await;
        if credentials.password.is_none() || !matches!(tried, Ok(false)) {
            return ("publickey", tried);
        }
    }
    if let Some(password) = &credentials.password {
        return ("password", by_password(handle, password, user).await);
    }
    ("none", Ok(false))
}

async fn by_key(
    handle: &mut Handle<origin::Handler>,
    key: &secrets::SecretRef,
    user: &str,
) -> anyhow::Result<bool> {
    let key = private_key(key).await?;
    // RSA without SHA-1, whatever the server says of itself.
    let hash = key.algorithm().is_rsa().then_some(HashAlg::Sha512);
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
    Ok(handle.authenticate_publickey(user, key).await?.success())
}

async fn by_certificate(
    handle: &mut Handle<origin::Handler>,
    authority: &secrets::SecretRef,
    user: &str,
    session: &str,
) -> anyhow::Result<bool> {
    let authority = private_key(authority).await?;
    let (key, certificate) = own_keys::for_session(&authority, user, session)?;
    let tried = handle.authenticate_openssh_cert(user, Arc::new(key), certificate);
    Ok(tried.await?.success())
}

async fn private_key(key: &secrets::SecretRef) -> anyhow::Result<PrivateKey> {
    let secret = secrets::resolve(key).await?;
    russh::keys::decode_secret_key(secret.expose(), None)
        .map_err(|_| anyhow::anyhow!("it is no private key, or one with a passphrase"))
}

async fn by_password(
    handle: &mut Handle<origin::Handler>,
    password: &secrets::SecretRef,
    user: &str,
) -> anyhow::Result<bool> {
    let secret = secrets::resolve(password).await?;
    let first = handle.authenticate_password(user, secret.expose()).await?;
    if first.success() {
        return Ok(true);
    }
    // Many servers ask for it as a question.
    let mut answer = handle
        .authenticate_keyboard_interactive_start(user, None)
        .await?;
    for _ in 0..4 {
        answer = match answer {
            Answer::Success => return Ok(true),
            Answer::Failure { .. } => return Ok(false),
            Answer::InfoRequest { prompts, .. } => {
                // A password goes where nothing is shown, and nowhere else.
                let replies = prompts.iter().map(|one| match one.echo {
                    false => secret.expose().to_owned(),
                    true => String::new(),
                });
                handle
                    .authenticate_keyboard_interactive_respond(replies.collect())
                    .await?
            }
        };
    }
    Ok(false)
}
