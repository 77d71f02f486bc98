//! The written form, checked.
//!
//! A check notes what is wrong and goes on with something in its place, so that
//! an operator reads all faults in one go; nothing of it is used then.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};

use super::faults::Report;
use super::written::{self, Amount, SecretRef as WrittenSecret};
use super::{
    Admin, Approvals, Config, DefaultVerdict, Dns, Evidence, Intercept, Listener, Named, Place,
    Recorder, RedisAddress, Referred, Sandbox, Spool, Target, TlsMode, Uninspected, UpstreamTls,
    units,
};
use crate::secrets::SecretRef;
use interceptor_engine::http::grpc::Schemas;

/// Checks one file; `folder` is what relative paths in it are relative to.
pub(super) fn config(raw: written::Config, folder: &Path, report: &mut Report<'_>) -> Config {
    let mut check = Check {
        folder,
        report,
        referred: Referred::default(),
    };
    let fallback = Config::default();
    let runtime_dir = check.path_or(raw.runtime_dir.as_ref(), fallback.runtime_dir);
    let targets = check.targets(raw.targets);
    let intercept = check.intercept(raw.intercept, fallback.intercept);
    Config {
        dns: check.dns(raw.dns, intercept.default),
        intercept,
        listeners: check.listeners(raw.listeners, &targets),
        recorder: check.recorder(raw.recorder, fallback.recorder, &targets),
        targets,
        rules: match raw.rules {
            Some(rules) => rules.iter().map(|path| check.path(path)).collect(),
            None => fallback.rules,
        },
        admin: check.admin(raw.admin, &runtime_dir),
        permitted: check.permitted(&raw.ca),
        approvals: Approvals {
            key: raw.approvals.key.as_ref().and_then(|key| check.secret(key)),
            groups: raw.approvals.groups,
        },
        sandbox: Sandbox {
            capabilities: raw
                .sandbox
                .capabilities
                .unwrap_or(fallback.sandbox.capabilities),
            seccomp: raw.sandbox.seccomp.unwrap_or(fallback.sandbox.seccomp),
            landlock: raw.sandbox.landlock.unwrap_or(fallback.sandbox.landlock),
        },
        drain: match &raw.drain {
            Some(drain) => check.duration(drain).unwrap_or(fallback.drain),
            None => fallback.drain,
        },
        state_dir: check.path_or(raw.state_dir.as_ref(), fallback.state_dir),
        runtime_dir,
        referred: check.referred,
    }
}

pub(super) struct Check<'a, 'r> {
    folder: &'a Path,
    report: &'a mut Report<'r>,
    referred: Referred,
}

impl Check<'_, '_> {
    pub(super) fn error(&mut self, at: Location, message: impl Into<String>, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.report.error(at, message, help);
    }

    /// Refuses what is in the format and not done yet.
    fn later(&mut self, value: &written::Later, key: &str) {
        if let Some(value) = value {
            self.unsupported(value.referenced, key);
        }
    }

    fn unsupported(&mut self, at: Location, what: &str) {
        self.error(
            at,
            format!("`{what}` is not supported yet"),
            "take it out: accepting it would promise what is not done",
        );
    }

    pub(super) fn path(&mut self, path: &Spanned<String>) -> PathBuf {
        if path.value.is_empty() {
            self.error(path.referenced, "the path is empty", "");
        }
        let path = self.folder.join(&path.value);
        self.referred.files.insert(path.clone());
        path
    }

    fn path_or(&mut self, path: Option<&Spanned<String>>, fallback: PathBuf) -> PathBuf {
        path.map_or(fallback, |path| self.path(path))
    }

    /// A name that can stand in keys, file names and messages.
    pub(super) fn name(&mut self, name: &Spanned<String>, what: &str) -> String {
        let plain = |one: char| one.is_ascii_alphanumeric() || "._-".contains(one);
        if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(plain) {
            self.error(
                name.referenced,
                format!("this is no name for {what}"),
                "1 to 64 letters, digits, dots, underscores and hyphens",
            );
        }
        name.value.clone()
    }

    fn dns(&mut self, raw: written::Dns, default: DefaultVerdict) -> Dns {
        let fallback = Dns::default();
        let servers: Vec<_> = raw
            .servers
            .iter()
            .filter_map(|one| {
                let address = one
                    .value
                    .parse::<IpAddr>()
                    .map(|ip| SocketAddr::new(ip, 53));
                let address = address.or_else(|_| one.value.parse());
                if address.is_err() {
                    let message = format!("{:?} is no address of a name server", one.value);
                    self.error(
                        one.referenced,
                        message,
                        "an address, with a port where it is not 53",
                    );
                }
                address.ok()
            })
            .collect();
        let names = match (raw.names, default) {
            (Some(names), _) => names.iter().filter_map(|name| self.named(name)).collect(),
            (None, DefaultVerdict::Block) => fallback.names,
            (None, DefaultVerdict::Allow) => vec![Named::Any],
        };
        Dns {
            servers,
            names,
            longest: raw.longest.unwrap_or(fallback.longest),
            per_minute: raw.per_minute.unwrap_or(fallback.per_minute),
            below_domain: raw.below_domain.unwrap_or(fallback.below_domain),
        }
    }

    fn named(&mut self, name: &Spanned<String>) -> Option<Named> {
        let text = name.value.to_ascii_lowercase();
        match text.as_str() {
            "any" => return Some(Named::Any),
            "targets" => return Some(Named::Targets),
            _ => {}
        }
        let bare = text.strip_prefix("*.").unwrap_or(&text);
        if !is_host(bare) {
            let message = format!("{:?} is no name", name.value);
            let help = "`targets`, `any`, a name, or `*.domain` for every name below one";
            self.error(name.referenced, message, help);
            return None;
        }
        Some(match bare.len() == text.len() {
            true => Named::Name(text),
            false => Named::Below(bare.to_owned()),
        })
    }

    fn intercept(&mut self, raw: written::Intercept, fallback: Intercept) -> Intercept {
        let cgroup = match &raw.cgroup {
            Some(cgroup) => self.name(cgroup, "a cgroup"),
            None => fallback.cgroup,
        };
        Intercept {
            kernel: raw.kernel.unwrap_or(fallback.kernel),
            agents: self.agents(raw.agents, raw.kernel.unwrap_or(fallback.kernel)),
            engines: raw.engines.unwrap_or(fallback.engines),
            exec: self.exec(raw.exec),
            cgroup,
            default: raw.default.map_or(fallback.default, verdict),
            when_down: raw.when_down.map_or(fallback.when_down, verdict),
            uninspected: match raw.uninspected {
                Some(written::Uninspected::Allow) => Uninspected::Allow,
                Some(written::Uninspected::Record) => Uninspected::Record,
                Some(written::Uninspected::Block) => Uninspected::Block,
                None => fallback.uninspected,
            },
            unix: self.unix(raw.unix, fallback.unix),
        }
    }

    fn targets(&mut self, raw: Vec<Spanned<written::Target>>) -> Vec<Target> {
        let mut names = HashSet::new();
        let mut places: Vec<(Place, Option<u16>, Option<String>, String)> = Vec::new();
        let mut vias = Vec::new();
        let mut targets = Vec::new();
        for Spanned {
            value: raw,
            referenced,
            ..
        } in raw
        {
            let name_at = raw.name.referenced;
            vias.extend(
                raw.via
                    .as_ref()
                    .map(|via| (via.referenced, via.value.clone())),
            );
            let target = self.target(raw, referenced);
            if !names.insert(target.name.clone()) {
                self.error(
                    name_at,
                    format!("there are two targets named {:?}", target.name),
                    "",
                );
            }
            // Two that claim the same destinations with equal right.
            let twin = places.iter().find(|(place, port, via, _)| {
                same(place, &target.place) && *port == target.port && *via == target.via
            });
            if let Some((_, _, _, first)) = twin {
                self.error(
                    name_at,
                    format!("the target is for the same destinations as {first:?}"),
                    "give them different ports, hosts or networks",
                );
            }
            let place = target.place.clone();
            places.push((place, target.port, target.via.clone(), target.name.clone()));
            targets.push(target);
        }
        for (at, via) in vias {
            let leads = targets.iter().any(|target| {
                target.name == via && target.protocol == Some(interceptor_policy::Protocol::Ssh)
            });
            if !leads {
                self.error(
                    at,
                    format!("`via` names {via:?}, and there is no such target that speaks SSH"),
                    "the name of a target with `protocol: ssh`, inside whose connections this one is reached",
                );
            }
        }
        targets
    }

    fn target(&mut self, raw: written::Target, at: Location) -> Target {
        let name = self.name(&raw.name, "a target");
        let place = match (&raw.host, &raw.address) {
            (None, None) if raw.socket.is_some() => self.socket(&raw).unwrap_or_else(nowhere),
            (Some(host), None) => self.host(host),
            (None, Some(address)) => self.network(address),
            (Some(_), Some(address)) => {
                self.error(
                    address.referenced,
                    "a target has a `host` or an `address`, not both",
                    "",
                );
                nowhere()
            }
            (None, None) => {
                self.error(
                    at,
                    format!("target {name:?} has neither `host` nor `address` nor `socket`"),
                    "for example `host: orders.internal`, `address: 10.0.0.0/24` or `socket: /run/postgresql/.s.PGSQL.5432`",
                );
                nowhere()
            }
        };
        if let Some(socket) = &raw.socket
            && (raw.host.is_some() || raw.address.is_some())
        {
            self.error(
                socket.referenced,
                "a target with a `socket` has neither `host` nor `address`",
                "",
            );
        }
        if let Some(port) = &raw.port
            && port.value == 0
        {
            self.error(
                port.referenced,
                "there is no port 0",
                "leave `port` out for any",
            );
        }
        let protocol = raw.protocol.as_ref().map(|protocol| protocol.value);
        let is_ssh = matches!(protocol, Some(written::Protocol::Ssh));
        let (credentials, http) = match &raw.credentials {
            Some(raw) if !is_ssh => self.credentials(raw, protocol),
            _ => (None, None),
        };
        let ssh = self.ssh(&raw, is_ssh);
        let grpc = raw.grpc.as_ref().and_then(|raw| self.grpc(raw, protocol));
        Target {
            name,
            place,
            port: raw.port.map(|port| port.value),
            via: raw.via.map(|via| via.value),
            protocol: protocol.map(|protocol| match protocol {
                written::Protocol::Http => interceptor_policy::Protocol::Http,
                written::Protocol::Postgres => interceptor_policy::Protocol::Postgres,
                written::Protocol::Ssh => interceptor_policy::Protocol::Ssh,
            }),
            tls: self.tls(&raw.tls),
            credentials,
            http,
            ssh,
            grpc,
            default: raw.default.map(verdict),
        }
    }

    fn host(&mut self, host: &Spanned<String>) -> Place {
        // An address is welcome where a host is expected.
        if let Ok(address) = host.value.parse::<IpAddr>() {
            return Place::Network(IpNet::from(address.to_canonical()));
        }
        if !is_host(&host.value) {
            self.error(
                host.referenced,
                format!("{:?} is no host name", host.value),
                "a name that resolves to addresses, without port, scheme or wildcard",
            );
        }
        Place::Host(host.value.to_ascii_lowercase())
    }

    fn network(&mut self, address: &Spanned<String>) -> Place {
        let text = &address.value;
        if let Ok(address) = text.parse::<IpAddr>() {
            return Place::Network(IpNet::from(address.to_canonical()));
        }
        match text.parse::<IpNet>() {
            Ok(network) if network.addr() == network.network() => Place::Network(network),
            Ok(network) => {
                self.error(
                    address.referenced,
                    format!("{text} has bits beyond its mask"),
                    &format!(
                        "the network is {}, the address {}",
                        network.trunc(),
                        network.addr()
                    ),
                );
                nowhere()
            }
            Err(_) => {
                self.error(
                    address.referenced,
                    format!("{text:?} is no address and no network"),
                    "for example 10.0.0.7, 10.0.0.0/24, 2001:db8::/32",
                );
                nowhere()
            }
        }
    }

    fn tls(&mut self, raw: &written::Tls) -> UpstreamTls {
        let mode = match raw.upstream {
            None | Some(written::TlsMode::Mirror) => TlsMode::Mirror,
            Some(written::TlsMode::Disable) => TlsMode::Disable,
            Some(written::TlsMode::Require) => TlsMode::Require,
            Some(written::TlsMode::VerifyCa) => TlsMode::VerifyCa,
            Some(written::TlsMode::VerifyFull) => TlsMode::VerifyFull,
        };
        for (value, key) in [(&raw.ca, "ca"), (&raw.server_name, "server_name")] {
            if let Some(value) = value
                && mode == TlsMode::Disable
            {
                self.error(
                    value.referenced,
                    format!("`{key}` has no effect with `upstream: disable`"),
                    "",
                );
            }
        }
        if let Some(name) = &raw.server_name
            && !is_host(&name.value)
            && name.value.parse::<IpAddr>().is_err()
        {
            self.error(
                name.referenced,
                format!(
                    "{:?} is not a name that a certificate can carry",
                    name.value
                ),
                "",
            );
        }
        UpstreamTls {
            mode,
            ca: raw.ca.as_ref().map(|ca| self.path(ca)),
            server_name: raw.server_name.as_ref().map(|name| name.value.clone()),
        }
    }

    /// What messages of gRPC are made of.
    fn grpc(
        &mut self,
        raw: &written::Grpc,
        protocol: Option<written::Protocol>,
    ) -> Option<std::sync::Arc<Schemas>> {
        let at = raw.descriptor_set.referenced;
        if protocol.is_some_and(|protocol| !matches!(protocol, written::Protocol::Http)) {
            let message = "`grpc` is of targets that speak HTTP";
            self.error(at, message, "set `protocol: http`");
            return None;
        }
        let path = self.path(&raw.descriptor_set);
        let read = std::fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Schemas::read(&bytes).map_err(|error| error.to_string()));
        match read {
            Ok(schemas) => Some(std::sync::Arc::new(schemas)),
            Err(why) => {
                let message = format!("the descriptor set cannot be used: {why}");
                let help = "write one with `protoc --include_imports --descriptor_set_out=FILE`";
                self.error(at, message, help);
                None
            }
        }
    }

    pub(super) fn secret(&mut self, raw: &Spanned<WrittenSecret>) -> Option<SecretRef> {
        let at = raw.referenced;
        match &raw.value {
            WrittenSecret::File(path) if !path.is_empty() => {
                let path = self.folder.join(path);
                self.referred.files.insert(path.clone());
                return Some(SecretRef::File(path));
            }
            WrittenSecret::Env(name) if !name.is_empty() && !name.contains(['=', '\0']) => {
                return Some(SecretRef::Env(name.clone()));
            }
            WrittenSecret::Command(line) if line.first().is_some_and(|one| !one.is_empty()) => {
                self.referred.commands.insert(line.clone());
                return Some(SecretRef::Command(line.clone()));
            }
            WrittenSecret::File(_) => self.error(at, "the file's path is empty", ""),
            WrittenSecret::Env(_) => self.error(at, "this is no name of a variable", ""),
            WrittenSecret::Command(_) => self.error(
                at,
                "the command is empty",
                "a list: the program, and its arguments",
            ),
            WrittenSecret::Later(kind) => self.unsupported(at, kind),
            WrittenSecret::Literal => {
                self.report.hide(at);
                self.error(
                at,
                "a secret is not written into this file, which is read by more people, copied and kept in repositories",
                "refer to it: { file: PATH }, { env: NAME } or { command: [PROGRAM, …] }",
            );
            }
            WrittenSecret::Keys(keys) => self.error(
                at,
                format!("a reference has one key, and this has {keys}"),
                "{ file: PATH }, { env: NAME } or { command: [PROGRAM, …] }",
            ),
            WrittenSecret::Unknown(key) => self.error(
                at,
                format!("a secret cannot be referred to by `{key}`"),
                "{ file: PATH }, { env: NAME } or { command: [PROGRAM, …] }",
            ),
        }
        None
    }

    fn recorder(
        &mut self,
        raw: written::Recorder,
        fallback: Recorder,
        targets: &[Target],
    ) -> Recorder {
        let redis = self.redis(&raw).or(fallback.redis);
        let prefix = match &raw.prefix {
            Some(prefix) => self.name(prefix, "the first part of keys"),
            None => fallback.prefix,
        };
        let queue_bytes = match &raw.queue_bytes {
            Some(size) => self.size(size).unwrap_or(fallback.queue_bytes),
            None => fallback.queue_bytes,
        };
        let stall = match &raw.stall {
            Some(stall) => self.duration(stall).unwrap_or(fallback.stall),
            None => fallback.stall,
        };
        if let Some(entries) = &raw.live_entries
            && entries.value == 0
        {
            self.error(entries.referenced, "`live_entries` is at least 1", "");
        }
        let evidence = self.evidence(raw.evidence);
        let seal_to = raw.seal_to.and_then(|text| {
            let parsed = text.value.trim().parse();
            parsed
                .map_err(|_| {
                    self.error(
                        text.referenced,
                        "`seal_to` is no recipient of age",
                        "age1…, as `age-keygen` prints it; the secret key stays with whoever opens",
                    );
                })
                .ok()
        });
        Recorder {
            evidence,
            compress: raw
                .compress
                .map_or(fallback.compress, |compress| compress.value),
            seal_to,
            search_index: raw.search_index.unwrap_or(fallback.search_index),
            redis,
            prefix,
            queue_bytes,
            stall,
            live_entries: raw
                .live_entries
                .map_or(fallback.live_entries, |entries| entries.value),
            retention: self.retention(raw.retention, targets),
            durability: raw
                .durability
                .map_or(fallback.durability, |durability| durability.value),
            spool: self.spool(&raw.spool, fallback.spool),
        }
    }

    fn evidence(&mut self, raw: written::Evidence) -> Evidence {
        let fallback = Evidence::default();
        let heads_every = match &raw.heads_every {
            Some(every) => self.duration(every).unwrap_or(fallback.heads_every),
            None => fallback.heads_every,
        };
        Evidence {
            heads_every: heads_every.max(Duration::from_millis(10)),
            trusted_keys: raw.trusted_keys.as_ref().map(|path| self.path(path)),
        }
    }

    fn spool(&mut self, raw: &written::Spool, fallback: Spool) -> Spool {
        let max_bytes = raw.max_bytes.as_ref().and_then(|size| self.size(size));
        Spool {
            dir: raw.dir.as_ref().map(|dir| self.path(dir)),
            max_bytes: max_bytes.map_or(fallback.max_bytes, |bytes| bytes as u64),
            on_full: raw
                .on_full
                .as_ref()
                .map_or(fallback.on_full, |one| one.value),
        }
    }

    fn redis(&mut self, raw: &written::Recorder) -> Option<RedisAddress> {
        let Some(url) = &raw.redis else {
            let beside = raw.credentials.as_ref().map(|one| one.password.referenced);
            if let Some(at) = beside.or(raw.tls.as_ref().map(|tls| tls.referenced)) {
                self.error(
                    at,
                    "this is for a Redis that `redis` names, and it names none",
                    "for example redis: rediss://redis.internal:6379",
                );
            }
            return None;
        };
        self.redis_url(url);
        let credentials = raw.credentials.as_ref().and_then(|credentials| {
            let user = credentials.user.as_ref().map(|user| user.value.clone());
            Some((user, self.secret(&credentials.password)?))
        });
        let mut files = Vec::new();
        if let Some(tls) = &raw.tls {
            if !url.value.starts_with("rediss") {
                self.error(
                    tls.referenced,
                    "`tls` is for an address that begins with rediss",
                    "for example rediss://redis.internal:6379",
                );
            }
            let tls = &tls.value;
            if tls.cert.is_some() != tls.key.is_some() {
                self.error(url.referenced, "`cert` and `key` go together", "");
            }
            for (name, file) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
                if let Some(file) = file {
                    files.push((name, self.path(file)));
                }
            }
        }
        Some(RedisAddress {
            url: url.value.clone(),
            credentials,
            files,
        })
    }

    fn redis_url(&mut self, url: &Spanned<String>) {
        let at = url.referenced;
        let options = url.value.split_once('?').map_or("", |(_, options)| options);
        for (_, path) in options.split('&').filter_map(|one| one.split_once('=')) {
            let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
            self.referred.files.insert(PathBuf::from(path.as_ref()));
        }
        let Some((scheme, rest)) = url.value.split_once("://") else {
            self.error(
                at,
                "this is no address of a Redis",
                "for example redis://127.0.0.1:6379",
            );
            return;
        };
        match scheme {
            "redis" | "rediss" | "redis+unix" | "unix" | "redis+sentinel" | "rediss+sentinel"
            | "redis+cluster" | "rediss+cluster" => {}
            _ => self.error(
                at,
                format!("{scheme:?} is no scheme of a Redis"),
                "redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://",
            ),
        }
        let password = rest
            .split(['/', '?'])
            .next()
            .and_then(|authority| authority.rsplit_once('@'))
            .is_some_and(|(user, _)| user.contains(':'));
        if password || rest.contains("pass=") {
            self.report.hide(at);
            self.error(
                at,
                "the address holds a password, and a secret is not written into this file",
                "credentials: { user: interceptor, password: { file: /etc/interceptor/redis.password } }",
            );
        }
    }

    fn size(&mut self, size: &Spanned<Amount>) -> Option<usize> {
        let bytes = match &size.value {
            Amount::Number(number) => Some(*number),
            Amount::Text(text) => units::bytes(text),
        };
        // Less could not hold one event with its data.
        let fits = bytes
            .filter(|bytes| *bytes >= 1 << 20)
            .and_then(|bytes| usize::try_from(bytes).ok());
        if fits.is_none() {
            self.error(
                size.referenced,
                "this is no size of at least 1 MiB",
                "for example 64MiB",
            );
        }
        fits
    }

    pub(super) fn duration(&mut self, text: &Spanned<String>) -> Option<Duration> {
        let duration = units::duration(&text.value);
        if duration.is_none() {
            self.error(
                text.referenced,
                format!("{:?} is no duration", text.value),
                "for example 250ms, 30s, 5m",
            );
        }
        duration
    }

    fn listeners(&mut self, raw: Vec<written::Listener>, targets: &[Target]) -> Vec<Listener> {
        let mut taken = HashSet::new();
        let mut listeners = Vec::new();
        for one in raw {
            let Ok(listen) = one.listen.value.parse::<SocketAddr>() else {
                self.error(
                    one.listen.referenced,
                    format!("{:?} is no address with a port", one.listen.value),
                    "for example 127.0.0.1:15432",
                );
                continue;
            };
            if listen.port() != 0 && !taken.insert(listen) {
                self.error(
                    one.listen.referenced,
                    format!("there are two listeners on {listen}"),
                    "",
                );
            }
            match targets
                .iter()
                .find(|target| target.name == one.target.value)
            {
                None => self.error(
                    one.target.referenced,
                    format!("there is no target named {:?}", one.target.value),
                    "a listener needs a target to lead to",
                ),
                Some(target) if !is_one_address(target) => self.error(
                    one.target.referenced,
                    format!("target {:?} is not one address and port", target.name),
                    "a listener leads to one: a host or a single address, and a port",
                ),
                Some(_) => {}
            }
            listeners.push(Listener {
                listen,
                target: one.target.value,
                agent: match &one.agent {
                    Some(agent) => self.name(agent, "an agent"),
                    None => "listener".to_owned(),
                },
                labels: one.labels.into_iter().collect::<BTreeMap<_, _>>(),
            });
        }
        listeners
    }

    fn permitted(&mut self, raw: &written::Ca) -> crate::tls::Permitted {
        let mut permitted = crate::tls::Permitted::default();
        for one in &raw.permitted {
            if !permitted.add(&one.value) {
                let message = "this is neither a name nor a network";
                self.error(one.referenced, message, "for example internal, 10.0.0.0/8");
            }
        }
        permitted
    }

    fn admin(&mut self, raw: written::Admin, runtime_dir: &Path) -> Admin {
        self.later(&raw.console, "admin: console");
        self.later(&raw.oidc, "admin: oidc");
        let metrics = raw.metrics.as_ref().and_then(|metrics| {
            let address = metrics.value.parse().ok();
            if address.is_none() {
                let message = format!("{:?} is no address with a port", metrics.value);
                self.error(metrics.referenced, message, "for example 127.0.0.1:9464");
            }
            address
        });
        Admin {
            metrics,
            socket: self.path_or(raw.socket.as_ref(), runtime_dir.join("admin.sock")),
        }
    }
}

fn verdict(raw: written::DefaultVerdict) -> DefaultVerdict {
    match raw {
        written::DefaultVerdict::Allow => DefaultVerdict::Allow,
        written::DefaultVerdict::Block => DefaultVerdict::Block,
    }
}

/// Stands in for a place that could not be read; never used.
fn nowhere() -> Place {
    Place::Host(String::new())
}

fn same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Host(one), Place::Host(other)) => !one.is_empty() && one == other,
        (Place::Network(one), Place::Network(other)) => one == other,
        (Place::Socket(one), Place::Socket(other)) => one == other,
        _ => false,
    }
}

fn is_one_address(target: &Target) -> bool {
    let single = match &target.place {
        Place::Host(_) => true,
        Place::Network(network) => network.prefix_len() == network.max_prefix_len(),
        Place::Socket(_) => false,
    };
    single && target.port.is_some()
}

/// RFC 1123, with the underscores that names in the wild have.
fn is_host(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|one| one.is_ascii_alphanumeric() || one == '-' || one == '_')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}
