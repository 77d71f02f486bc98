//! Where a message ends, and for whom a request is.
//!
//! One answer or none: wherever RFC 9112, section 6.3, tells a recipient which
//! of two contradicting fields to believe, the message is refused, since the
//! next recipient may have been told otherwise.
//!
//! Spec: RFC 9112, sections 3.2, 6 and 7; RFC 9110, sections 6.5, 7.2 and 9.3.6.

use super::error::HttpError;
use super::head::{Field, RequestHead, ResponseHead, Version, trim};

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 where there is no body.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Up to the connection's end (responses only).
    UntilClose,
}

/// What comes behind a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next message.
    Message,
    /// Another protocol, if the server agrees.
    Switch,
}

/// Names that mean a framing field to whoever takes `_` for `-`, as gateways
/// that make environment variables of fields do.
const DISGUISED: [(&str, &str); 2] = [
    ("content_length", "Content-Length"),
    ("transfer_encoding", "Transfer-Encoding"),
];

/// Fields that say where a message ends or goes, what it is, or who sends it:
/// behind the body it is too late for them.
const HEAD_ONLY: [&str; 23] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-forwarded-for",
];

/// Whether this field may not be a trailer.
pub(super) fn is_head_only(field: &Field<'_>) -> bool {
    HEAD_ONLY.iter().any(|name| field.is(name)) || DISGUISED.iter().any(|(name, _)| field.is(name))
}

fn one<'a>(fields: &[Field<'a>], name: &'static str) -> Result<Option<&'a [u8]>, HttpError> {
    let mut found = fields.iter().filter(|field| field.is(name));
    let first = found.next().map(|field| field.value);
    match found.count() {
        0 => Ok(first),
        more => Err(HttpError::Repeated {
            name,
            count: more + 1,
        }),
    }
}

fn content_length(value: &[u8]) -> Result<u64, HttpError> {
    // As far as a signed number goes: some take it for one.
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let read = std::str::from_utf8(value).ok().filter(|_| digits);
    read.and_then(|text| text.parse::<i64>().ok())
        .and_then(|length| u64::try_from(length).ok())
        .ok_or(HttpError::ContentLength)
}

/// What the fields say of the body, where they say anything.
fn declared(fields: &[Field<'_>], version: Version) -> Result<Option<Framing>, HttpError> {
    for (disguised, name) in DISGUISED {
        if fields.iter().any(|field| field.is(disguised)) {
            return Err(HttpError::Forbidden { name });
        }
    }
    let coding = one(fields, "Transfer-Encoding")?;
    let lengths = fields.iter().any(|field| field.is("Content-Length"));
    match coding {
        Some(_) if lengths => Err(HttpError::TwoFramings),
        Some(_) if version == Version::Http10 => Err(HttpError::OldTransferCoding),
        Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        Some(_) => Err(HttpError::TransferCoding),
        None => one(fields, "Content-Length")?
            .map(|length| content_length(length).map(Framing::Length))
            .transpose(),
    }
}

/// Whether a list has this element.
fn lists(fields: &[Field<'_>], name: &str, element: &str) -> bool {
    fields
        .iter()
        .filter(|field| field.is(name))
        .flat_map(|field| field.value.split(|byte| *byte == b','))
        .any(|one| trim(one).eq_ignore_ascii_case(element.as_bytes()))
}

impl RequestHead<'_> {
    /// How long the body is, and what comes behind it.
    ///
    /// # Errors
    /// Where two readers could differ in that.
    pub fn framing(&self) -> Result<(Framing, Next), HttpError> {
        self.check_target()?;
        let framing = declared(&self.fields, self.version)?;
        if self.method == b"CONNECT" {
            return match framing {
                None | Some(Framing::Length(0)) => Ok((Framing::Length(0), Next::Switch)),
                Some(Framing::Chunked) => Err(HttpError::Forbidden {
                    name: "Transfer-Encoding",
                }),
                Some(_) => Err(HttpError::Forbidden {
                    name: "Content-Length",
                }),
            };
        }
        let asks = self.version == Version::Http11
            && lists(&self.fields, "Connection", "upgrade")
            && self.fields.iter().any(|field| field.is("Upgrade"));
        let next = if asks { Next::Switch } else { Next::Message };
        Ok((framing.unwrap_or(Framing::Length(0)), next))
    }

    fn check_target(&self) -> Result<(), HttpError> {
        let host = one(&self.fields, "Host")?;
        if host.is_none() && self.version == Version::Http11 {
            return Err(HttpError::Missing { name: "Host" });
        }
        let host = match host {
            Some(host) => Some(Authority::parse(host).ok_or(HttpError::Host)?),
            None => None,
        };
        match self.target {
            _ if self.target.contains(&b'#') => Err(HttpError::Target),
            target if self.method == b"CONNECT" => {
                let authority = Authority::parse(target).ok_or(HttpError::Target)?;
                let port = authority.port.ok_or(HttpError::Target)?;
                match host {
                    // Without a port, it is the target's that is meant.
                    Some(host)
                        if !host.name.eq_ignore_ascii_case(authority.name)
                            || host.port.is_some_and(|other| other != port) =>
                    {
                        Err(HttpError::HostMismatch)
                    }
                    _ => Ok(()),
                }
            }
            b"*" if self.method == b"OPTIONS" => Ok(()),
            [b'/', ..] => Ok(()),
            target => {
                let (authority, default) = absolute(target).ok_or(HttpError::Target)?;
                let authority = Authority::parse(authority).ok_or(HttpError::Target)?;
                match host {
                    Some(host) if !host.same(&authority, default) => Err(HttpError::HostMismatch),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// The authority of an absolute target, and its scheme's port.
fn absolute(target: &[u8]) -> Option<(&[u8], u16)> {
    let after = |scheme: &str| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then_some(rest)
    };
    let (rest, port) = after("http://")
        .map(|rest| (rest, 80))
        .or_else(|| after("https://").map(|rest| (rest, 443)))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    Some((rest.get(..end.unwrap_or(rest.len()))?, port))
}

/// A host with an optional port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name or address; an IPv6 one in its brackets.
    pub name: &'a [u8],
    /// The port.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads one; without a user's name, which no HTTP authority has any more
    /// (RFC 9110, section 4.2.4), and without percent-encoding, which resolvers
    /// and servers disagree about.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (name, rest) = if text.first() == Some(&b'[') {
            let end = text.iter().position(|byte| *byte == b']')?;
            let (name, rest) = text.split_at_checked(end + 1)?;
            let inside = name.get(1..end)?;
            let fits = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            (!inside.is_empty() && inside.iter().all(fits)).then_some((name, rest))?
        } else {
            let end = text.iter().position(|byte| *byte == b':');
            let (name, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
            (!name.is_empty() && name.iter().all(fits)).then_some((name, rest))?
        };
        let port = match rest {
            [] => None,
            [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { name, port })
    }

    fn same(&self, other: &Authority<'_>, default: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// What a response's framing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `HEAD`: the answer has no body, whatever it says.
    Head,
    /// `CONNECT`: behind a success comes the tunnel.
    Connect,
    /// Anything else.
    Other,
}

/// What comes behind a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The body, and behind it the answer to the next request.
    Body(Framing),
    /// Another response to the same request.
    Response,
    /// Another protocol.
    Switch,
}

impl ResponseHead<'_> {
    /// How long the body is.
    ///
    /// # Errors
    /// Where two readers could differ in that.
    pub fn after(&self, asked: Asked) -> Result<After, HttpError> {
        let declared = declared(&self.fields, self.version)?;
        let bodiless = matches!(self.status, 100..=199 | 204);
        if bodiless && declared == Some(Framing::Chunked) {
            return Err(HttpError::Forbidden {
                name: "Transfer-Encoding",
            });
        }
        Ok(match self.status {
            101 => After::Switch,
            100..=199 => After::Response,
            200..=299 if asked == Asked::Connect => After::Switch,
            204 | 304 => After::Body(Framing::Length(0)),
            _ if asked == Asked::Head => After::Body(Framing::Length(0)),
            _ => After::Body(declared.unwrap_or(Framing::UntilClose)),
        })
    }
}
