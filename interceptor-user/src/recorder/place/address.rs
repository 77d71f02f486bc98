//! An address as an operator writes it, taken apart.

use redis::{ClientTlsConfig, RedisConnectionInfo, TlsCertificates};

/// What is wrong with an address. It may hold a password, so it is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It has no form that is known.
    #[error("this is no address of a Redis: {0}; for example redis://127.0.0.1:6379")]
    Form(&'static str),
    /// A file that it names cannot be read.
    #[error("reading {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The client does not take it.
    #[error("this is no address of a Redis ({0})")]
    Client(String),
}

impl From<redis::RedisError> for PlaceError {
    fn from(error: redis::RedisError) -> Self {
        Self::Client(error.category().to_owned())
    }
}

/// An address, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Address<'a> {
    pub(super) tls: bool,
    pub(super) kind: &'a str,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    hosts: Vec<(String, Option<u16>)>,
    pub(super) path: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Address<'a> {
    pub(super) fn read(url: &'a str) -> Result<Self, PlaceError> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or(PlaceError::Form("there is no scheme"))?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(PlaceError::Form("the scheme is unknown")),
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| PlaceError::Form("the credentials are no UTF-8"))
        };
        let (user, password) = match credentials {
            None => (None, None),
            Some(both) => match both.split_once(':') {
                Some(("", password)) => (None, Some(decoded(password)?)),
                Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
                None => (Some(decoded(both)?), None),
            },
        };
        let options = options
            .split('&')
            .filter(|option| !option.is_empty())
            .map(|option| option.split_once('=').unwrap_or((option, "")));
        Ok(Self {
            tls,
            kind,
            user,
            password,
            hosts: hosts.split(',').map(host).collect::<Result<_, _>>()?,
            path: path.split('/').filter(|part| !part.is_empty()).collect(),
            options: options.collect(),
        })
    }

    pub(super) fn settings(&self, db: i64) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default().set_db(db);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        settings
    }

    /// The files of the certificates, read.
    pub(super) fn certificates(&self) -> Result<Option<TlsCertificates>, PlaceError> {
        let mut files = [None, None, None];
        for (name, value) in &self.options {
            let [ca, cert, key] = &mut files;
            let place = match *name {
                "ca" => ca,
                "cert" => cert,
                "key" => key,
                _ => return Err(PlaceError::Form("options are `ca`, `cert` and `key`")),
            };
            let path = percent_encoding::percent_decode_str(value)
                .decode_utf8_lossy()
                .into_owned();
            let read = crate::looker::read(std::path::Path::new(&path))
                .map_err(|error| PlaceError::File { path, error })?;
            *place = Some(read);
        }
        let [root_cert, cert, key] = files;
        let client_tls = match (cert, key) {
            (None, None) => None,
            (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig {
                client_cert,
                client_key,
            }),
            _ => return Err(PlaceError::Form("`cert` and `key` go together")),
        };
        if (root_cert.is_some() || client_tls.is_some()) && !self.tls {
            return Err(PlaceError::Form("certificates are for rediss://"));
        }
        Ok(self.tls.then_some(TlsCertificates {
            client_tls,
            root_cert,
        }))
    }

    pub(super) fn db(text: Option<&&str>) -> Result<i64, PlaceError> {
        text.map_or(Ok(0), |text| {
            text.parse()
                .map_err(|_| PlaceError::Form("the database is a number"))
        })
    }

    pub(super) fn nodes(&self, port: u16) -> Vec<(String, u16)> {
        let hosts = self.hosts.iter();
        hosts
            .map(|(host, own)| (host.clone(), own.unwrap_or(port)))
            .collect()
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`.
fn host(text: &str) -> Result<(String, Option<u16>), PlaceError> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port
        .map(str::parse)
        .transpose()
        .map_err(|_| PlaceError::Form("a port is a number"))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let address = Address::read("rediss+cluster://bot:p%40ss@a:1,[::1]:2,c?ca=/x").unwrap();
        assert_eq!((address.tls, address.kind), (true, "cluster"));
        assert_eq!(address.user.as_deref(), Some("bot"));
        assert_eq!(address.password.as_deref(), Some("p@ss"));
        assert_eq!(
            address.nodes(6379),
            [("a".into(), 1), ("::1".into(), 2), ("c".into(), 6379)]
        );
        assert_eq!(address.options, [("ca", "/x")]);
        let address = Address::read("redis+sentinel://:pw@s1,s2:5/mymaster/3").unwrap();
        assert_eq!((address.user, address.password), (None, Some("pw".into())));
        assert_eq!(address.path, ["mymaster", "3"]);
    }
}
