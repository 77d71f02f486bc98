//! The configuration as it is written, before any check.
//!
//! Values that a check may complain of carry their place. Keys that belong to
//! the format and cannot be done yet are read here, so that they are refused by
//! name and not as unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Something that is in the format and not done yet.
pub(super) type Later = Option<Spanned<IgnoredAny>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) intercept: Intercept,
    #[serde(default)]
    pub(super) targets: Vec<Spanned<Target>>,
    pub(super) rules: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) recorder: Recorder,
    #[serde(default)]
    pub(super) listeners: Vec<Listener>,
    #[serde(default)]
    pub(super) admin: Admin,
    #[serde(default)]
    pub(super) ca: Ca,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) approvals: Approvals,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
    pub(super) drain: Option<Spanned<String>>,
    pub(super) runtime_dir: Option<Spanned<String>>,
    pub(super) state_dir: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sandbox {
    pub(super) capabilities: Option<bool>,
    pub(super) seccomp: Option<bool>,
    pub(super) landlock: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ca {
    #[serde(default)]
    pub(super) permitted: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    #[serde(default)]
    pub(super) servers: Vec<Spanned<String>>,
    pub(super) names: Option<Vec<Spanned<String>>>,
    pub(super) longest: Option<usize>,
    pub(super) per_minute: Option<u32>,
    pub(super) below_domain: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intercept {
    pub(super) kernel: Option<bool>,
    pub(super) cgroup: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) agents: Vec<Spanned<Agent>>,
    pub(super) engines: Option<Vec<PathBuf>>,
    #[serde(default)]
    pub(super) exec: Exec,
    pub(super) default: Option<DefaultVerdict>,
    pub(super) uninspected: Option<Uninspected>,
    pub(super) when_down: Option<DefaultVerdict>,
    #[serde(default)]
    pub(super) unix: Unix,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    pub(super) allow: Option<Vec<Spanned<MayStart>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MayStart {
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) agents: Vec<Spanned<String>>,
    pub(super) labels: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unix {
    pub(super) default: Option<UnixDefault>,
    #[serde(default)]
    pub(super) allow: Vec<Spanned<String>>,
    pub(super) block: Option<Vec<Spanned<String>>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum UnixDefault {
    Own,
    Block,
    Record,
    Allow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) name: Spanned<String>,
    pub(super) cgroup: Option<Spanned<String>>,
    pub(super) unit: Option<Spanned<String>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) container: Option<Spanned<String>>,
    pub(super) pod: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DefaultVerdict {
    Allow,
    Block,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Uninspected {
    Allow,
    Record,
    Block,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) name: Spanned<String>,
    pub(super) host: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) socket: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<u16>>,
    pub(super) via: Option<Spanned<String>>,
    pub(super) protocol: Option<Spanned<Protocol>>,
    #[serde(default)]
    pub(super) tls: Tls,
    pub(super) credentials: Option<Spanned<Credentials>>,
    pub(super) grpc: Option<Grpc>,
    pub(super) default: Option<DefaultVerdict>,
    pub(super) known_hosts: Option<Spanned<String>>,
    pub(super) unknown_host_key: Option<Spanned<UnknownHostKey>>,
    pub(super) authorized_keys: Option<Spanned<String>>,
    pub(super) shell: Option<Spanned<bool>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UnknownHostKey {
    Refuse,
    AcceptNew,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grpc {
    pub(super) descriptor_set: Spanned<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    Postgres,
    Http,
    Ssh,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) upstream: Option<TlsMode>,
    pub(super) ca: Option<Spanned<String>>,
    pub(super) server_name: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TlsMode {
    Disable,
    Mirror,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    pub(super) user: Option<Spanned<String>>,
    pub(super) password: Option<Spanned<SecretRef>>,
    pub(super) header: Option<Spanned<String>>,
    pub(super) value: Option<Spanned<SecretRef>>,
    pub(super) aws: Option<Spanned<Aws>>,
    pub(super) oauth: Option<Spanned<OAuth>>,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<SecretRef>>,
    pub(super) authority: Option<Spanned<SecretRef>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Aws {
    pub(super) region: Spanned<String>,
    pub(super) service: Spanned<String>,
    pub(super) access_key_id: Spanned<SecretRef>,
    pub(super) secret_access_key: Spanned<SecretRef>,
    pub(super) session_token: Option<Spanned<SecretRef>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OAuth {
    pub(super) token_url: Spanned<String>,
    pub(super) client_id: Spanned<String>,
    pub(super) client_secret: Spanned<SecretRef>,
    pub(super) scope: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorder {
    pub(super) redis: Option<Spanned<String>>,
    pub(super) prefix: Option<Spanned<String>>,
    pub(super) queue_bytes: Option<Spanned<Amount>>,
    pub(super) stall: Option<Spanned<String>>,
    pub(super) live_entries: Option<Spanned<u64>>,
    #[serde(default)]
    pub(super) evidence: Evidence,
    pub(super) durability: Option<Spanned<super::Durability>>,
    pub(super) credentials: Option<RedisCredentials>,
    pub(super) tls: Option<Spanned<RedisTls>>,
    #[serde(default)]
    pub(super) spool: Spool,
    pub(super) retention: Option<Retention>,
    pub(super) compress: Option<Spanned<super::Compress>>,
    pub(super) seal_to: Option<Spanned<String>>,
    pub(super) search_index: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    pub(super) heads_every: Option<Spanned<String>>,
    pub(super) trusted_keys: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) age: Option<Spanned<String>>,
    pub(super) bytes: Option<Spanned<Amount>>,
    #[serde(default)]
    pub(super) targets: BTreeMap<String, TargetRetention>,
    pub(super) archive_to: Option<Spanned<String>>,
    pub(super) s3: Option<Spanned<S3>>,
    pub(super) every: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisCredentials {
    pub(super) user: Option<Spanned<String>>,
    pub(super) password: Spanned<SecretRef>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetRetention {
    pub(super) age: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3 {
    pub(super) endpoint: Option<Spanned<String>>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) access_key_id: Option<Spanned<SecretRef>>,
    pub(super) secret_access_key: Option<Spanned<SecretRef>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisTls {
    pub(super) ca: Option<Spanned<String>>,
    pub(super) cert: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spool {
    pub(super) dir: Option<Spanned<String>>,
    pub(super) max_bytes: Option<Spanned<Amount>>,
    pub(super) on_full: Option<Spanned<super::OnFull>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) listen: Spanned<String>,
    pub(super) target: Spanned<String>,
    pub(super) agent: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) socket: Option<Spanned<String>>,
    pub(super) console: Later,
    pub(super) oidc: Later,
    pub(super) metrics: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approvals {
    pub(super) key: Option<Spanned<SecretRef>>,
    #[serde(default)]
    pub(super) groups: BTreeMap<String, Vec<String>>,
}

/// A number, or a number with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Amount {
    Number(u64),
    Text(String),
}

/// A reference to a secret, or what somebody wrote in its place.
pub(super) enum SecretRef {
    File(String),
    Env(String),
    Command(Vec<String>),
    /// A kind that is not done yet.
    Later(&'static str),
    /// The value itself.
    Literal,
    /// Not exactly one key.
    Keys(usize),
    /// A key that names no kind.
    Unknown(String),
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reference to a secret, such as { file: /etc/interceptor/password }")
    }

    // Whatever stands there, it is not kept and so not printed.
    fn visit_str<E>(self, _: &str) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_i64<E>(self, _: i64) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_u64<E>(self, _: u64) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_i128<E>(self, _: i128) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_u128<E>(self, _: u128) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_f64<E>(self, _: f64) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_bool<E>(self, _: bool) -> Result<SecretRef, E> {
        Ok(SecretRef::Literal)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<SecretRef, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom(
            "a reference to a secret is a mapping such as { command: [cat, /run/secret] }",
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<SecretRef, A::Error> {
        let mut found = None;
        let mut keys = 0;
        while let Some(key) = access.next_key::<String>()? {
            keys += 1;
            found = Some(match key.as_str() {
                "file" => SecretRef::File(access.next_value()?),
                "env" => SecretRef::Env(access.next_value()?),
                "command" => SecretRef::Command(access.next_value()?),
                "vault" | "stored" => {
                    access.next_value::<IgnoredAny>()?;
                    SecretRef::Later(if key == "vault" { "vault" } else { "stored" })
                }
                _ => {
                    access.next_value::<IgnoredAny>()?;
                    SecretRef::Unknown(key)
                }
            });
        }
        match found {
            Some(found) if keys == 1 => Ok(found),
            _ => Ok(SecretRef::Keys(keys)),
        }
    }
}
