//! Opens a flow that may be HTTP: from the agent's first bytes to two legs.
//!
//! Where the agent speaks TLS, the service's handshake comes first: what it agrees
//! on is what the agent is offered (ALPN mirrored), and a service that cannot be
//! opened is found before the agent is told anything. A service that is not the
//! right one still gets the agent answered: over our own certificate, in HTTP, with
//! the reason.
//!
//! Which name is verified: the target's, where it has one; otherwise the name that
//! the agent asks for, as the agent itself would have done. What the agent asks for
//! beyond that ([`mismatch`]) is compared for every exchange.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use interceptor_engine::http::host_of;
use interceptor_proto::detect::{Detection, Wire, detect};
use interceptor_proto::tls::client_hello::{ClientHello, client_hello};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt as _;
use tracing::warn;

use super::credentials::Injector;
use super::service::{self, Fault, Service};
use super::unopened::Why;
use super::{H2, HTTP_1_1};
use crate::config::{Target, TlsMode};
use crate::flow::serve::Flow;
use crate::flow::{DETECT_PATIENCE, House};
use crate::net::{Origin, Socket};
use crate::tls::stream::Rewind;
use crate::tls::upstream::Ask;
use crate::tls::{LegTls, Stream, downstream};

/// Two legs.
#[derive(Debug)]
pub struct Legs {
    /// The agent's.
    pub agent: Stream,
    /// What was read of it already.
    pub first: Vec<u8>,
    /// Whether the agent speaks HTTP/2.
    pub http2: bool,
    /// The service's.
    pub service: Arc<Service>,
    /// What requests are sent with.
    pub injector: Injector,
    /// How the agent's leg is encrypted.
    pub agent_tls: Option<LegTls>,
    /// How the service's leg is encrypted, where it was dialled.
    pub service_tls: Option<LegTls>,
    /// The name that the agent asked for in TLS.
    pub name: Option<String>,
    /// Why the service is not to be had, where that is known already.
    pub fault: Option<String>,
}

/// What came of opening a flow.
#[derive(Debug)]
pub enum Opened {
    /// HTTP on both sides.
    Http(Box<Legs>),
    /// Nothing was said yet, and nothing can be read: it goes by `uninspected`.
    Unopenable {
        /// The agent's connection.
        tcp: Socket,
        /// What was read of it.
        first: Vec<u8>,
        /// Why.
        why: Why,
    },
    /// TLS was opened, and what is inside is not HTTP.
    Inside {
        /// The agent's leg.
        agent: Stream,
        /// What was read of it.
        first: Vec<u8>,
        /// The service's leg, where there is one.
        service: Option<Stream>,
    },
    /// It ends here.
    Failed {
        /// Why.
        why: String,
        /// What the next flow like it is to be known by.
        unopened: Option<Why>,
    },
}

/// Opens a flow whose first bytes are HTTP in the clear.
pub async fn plain(house: &House, flow: &Flow, tcp: Socket, first: Vec<u8>, http2: bool) -> Legs {
    tcp.send_at_once();
    let target = flow.target.as_ref();
    let alpn: &[&[u8]] = if http2 { &[H2] } else { &[HTTP_1_1] };
    let dialer = flow.dialer.clone();
    let injector = Injector::of(target, &house.http.tokens, &dialer);
    let mut fault = None;
    let tls = match mode(target) {
        TlsMode::Disable | TlsMode::Mirror => None,
        _ => Some(Ask {
            identity: identity(&injector, &mut fault).await,
            ..ask(target, &flow.origin, None, alpn)
        }),
    };
    let failed = fault.map(|fault| {
        let words = fault.to_string();
        (Err(fault), words)
    });
    let (first_leg, fault) = failed.unzip();
    Legs {
        agent: Stream::Plain(tcp),
        first,
        http2,
        service: Arc::new(Service::new(
            dialer,
            flow.origin.clone(),
            tls,
            http2,
            first_leg,
        )),
        injector,
        agent_tls: None,
        service_tls: None,
        name: None,
        fault,
    }
}

/// Opens a flow whose first bytes are a ClientHello. With `dial` false the service
/// is left alone: nothing that the agent could ask of it is allowed.
pub async fn tls(house: &House, flow: &Flow, tcp: Socket, first: Vec<u8>, dial: bool) -> Opened {
    tcp.send_at_once();
    let hello = match client_hello(&first) {
        Ok((_, hello)) => hello,
        Err(_) => {
            return Opened::Failed {
                why: "its ClientHello cannot be read".to_owned(),
                unopened: None,
            };
        }
    };
    if let Some(why) = unopenable(house, flow, &hello) {
        return Opened::Unopenable { tcp, first, why };
    }
    let target = flow.target.as_ref();
    let name = hello.server_name.clone();
    let mut ask = match mode(target) {
        TlsMode::Disable => None,
        _ => {
            let offer = service::offer(&hello.alpn);
            Some(ask(target, &flow.origin, name.as_deref(), offer))
        }
    };
    let dialer = &flow.dialer;
    let injector = Injector::of(target, &house.http.tokens, dialer);
    let mut fault = None;
    if let Some(ask) = &mut ask {
        ask.identity = identity(&injector, &mut fault).await;
    }
    let dialled = match (dial, fault) {
        (false, _) => None,
        (true, Some(fault)) => Some(Err(fault)),
        (true, None) => Some(service::connect(dialer, &flow.origin, ask.as_ref()).await),
    };
    if let Some(Err(fault)) = &dialled
        && fault.wants_certificate()
    {
        let why = Why::ClientCertificate;
        let now = Instant::now();
        let principal = &flow.identity.principal;
        let unopened = &house.http.unopened;
        unopened.note(principal, &flow.origin, name.as_deref(), why, now);
        return Opened::Unopenable { tcp, first, why };
    }
    let (first_leg, service_tls, fault) = match dialled {
        None => (None, None, None),
        Some(Ok((stream, facts))) => (Some(Ok(stream)), facts, None),
        Some(Err(fault)) => {
            let words = fault.to_string();
            (Some(Err(fault)), None, Some(words))
        }
    };
    let service_http2 = match &first_leg {
        Some(Ok(stream)) => service::speaks_http2(stream),
        _ => false,
    };
    if let Some(ask) = &mut ask {
        // A connection that is made again speaks what the first one did.
        ask.alpn = match (service_http2, ask.alpn.is_empty()) {
            (true, _) => &[H2],
            (false, false) => &[HTTP_1_1],
            (false, true) => &[],
        };
    }
    let agents = to_agent(&hello, service_http2);
    let host = target.and_then(Target::host);
    let io = Rewind::new(first, tcp);
    let authority = &house.front.authority;
    let shaken = downstream::accept(authority, io, &flow.origin, host, agents);
    let (agent, agent_tls, agreed) = match tokio::time::timeout(DETECT_PATIENCE, shaken).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => {
            let unopened = error.is_about_certificate().then_some(Why::Pinned);
            if let Some(why) = unopened {
                let principal = &flow.identity.principal;
                let now = Instant::now();
                let known = &house.http.unopened;
                known.note(principal, &flow.origin, name.as_deref(), why, now);
            }
            return Opened::Failed {
                why: error.to_string(),
                unopened,
            };
        }
        Err(_) => {
            return Opened::Failed {
                why: "the agent did not finish the TLS handshake in time".to_owned(),
                unopened: None,
            };
        }
    };
    let mut agent = agent;
    let mut inside = Vec::new();
    let http2 = match agreed.as_deref() {
        Some(H2) => true,
        // What else comes than HTTP, the guard refuses.
        Some(_) => false,
        None => match first_bytes(&mut agent, &mut inside).await {
            Some(Wire::Http2) => true,
            Some(Wire::Http1) => false,
            _ => {
                return Opened::Inside {
                    agent,
                    first: inside,
                    service: first_leg.and_then(Result::ok),
                };
            }
        },
    };
    let service = Service::new(
        dialer.clone(),
        flow.origin.clone(),
        ask,
        service_http2,
        first_leg,
    );
    Opened::Http(Box::new(Legs {
        agent,
        first: inside,
        http2,
        service: Arc::new(service),
        injector,
        agent_tls: Some(agent_tls),
        service_tls,
        name,
        fault,
    }))
}

/// Whom to be in TLS; where that cannot be had, the fault.
async fn identity(injector: &Injector, fault: &mut Option<Fault>) -> Option<Arc<CertifiedKey>> {
    match injector.identity().await {
        Ok(identity) => identity,
        Err(error) => {
            warn!(%error, "a target's client certificate cannot be used");
            *fault = Some(Fault::Credentials);
            None
        }
    }
}

/// Why a ClientHello is not answered with our certificate, if so.
fn unopenable(house: &House, flow: &Flow, hello: &ClientHello) -> Option<Why> {
    // An encrypted ClientHello inside (ECH) is no reason: nobody sees it, since ours
    // is the only handshake, and it goes by the outer name. A client that offers it
    // for show (GREASE) goes on; one that means it ends the handshake, sends nothing,
    // and comes again without (RFC 9849, section 6.1.6).
    if !hello.alpn.is_empty() && service::offer(&hello.alpn).is_empty() {
        return Some(Why::NotHttp);
    }
    let principal = &flow.identity.principal;
    let name = hello.server_name.as_deref();
    house
        .http
        .unopened
        .why(principal, &flow.origin, name, Instant::now())
}

/// What the agent is offered: what the service agreed on, where the agent knows it.
fn to_agent(hello: &ClientHello, service_http2: bool) -> &'static [&'static [u8]] {
    match (service_http2, hello.offers(H2), hello.offers(HTTP_1_1)) {
        (true, true, _) => &[H2],
        (_, _, true) => &[HTTP_1_1],
        (false, true, false) => &[H2],
        (_, false, false) => &[],
    }
}

async fn first_bytes(agent: &mut Stream, first: &mut Vec<u8>) -> Option<Wire> {
    const FIRST_LIMIT: usize = 64 << 10;
    let looked = async {
        loop {
            match detect(first) {
                Detection::Certain(wire) => return Some(wire),
                Detection::Unknown => return None,
                Detection::NeedMore if first.len() >= FIRST_LIMIT => return None,
                Detection::NeedMore => {}
            }
            match agent.read_buf(first).await {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
    };
    tokio::time::timeout(DETECT_PATIENCE, looked).await.ok()?
}

fn mode(target: Option<&Target>) -> TlsMode {
    target.map_or_else(TlsMode::default, |target| target.tls.mode)
}

/// What is asked of the service's handshake.
///
/// An agent's own client would have verified the certificate; since ours takes its
/// place, nothing less is asked where nothing is configured.
fn ask(
    target: Option<&Target>,
    origin: &Origin,
    agents_name: Option<&str>,
    alpn: &'static [&'static [u8]],
) -> Ask {
    let mode = match mode(target) {
        TlsMode::Mirror => TlsMode::VerifyFull,
        other => other,
    };
    let configured = target.and_then(|target| {
        let own = target.tls.server_name.as_deref();
        own.or_else(|| target.host())
    });
    Ask {
        mode,
        ca: target.and_then(|target| target.tls.ca.clone()),
        name: configured.or(agents_name).map(str::to_owned),
        host: origin.host.clone(),
        alpn,
        identity: None,
    }
}

/// Whether a request's authority is not what the agent's connection was made for:
/// not the name that its TLS was opened for, or not the configured host.
///
/// Where neither is known, a name cannot be compared with an address, and only an
/// address is.
#[must_use]
pub fn mismatch(
    head: &http::request::Parts,
    name: Option<&str>,
    is_tls: bool,
    flow: &Flow,
) -> bool {
    let Some((host, _)) = host_of(head) else {
        // Missing or malformed: the engine refuses it by itself.
        return false;
    };
    let target = flow.target.as_ref();
    let expected = Expected {
        name,
        is_tls,
        address: flow.origin.address(),
        host: target.and_then(Target::host),
        server_name: target.and_then(|target| target.tls.server_name.as_deref()),
        is_redirected: flow.arrival == "redirect",
    };
    expected.is_contradicted_by(&host)
}

/// What is known of where a connection leads.
struct Expected<'a> {
    name: Option<&'a str>,
    is_tls: bool,
    address: Option<IpAddr>,
    host: Option<&'a str>,
    server_name: Option<&'a str>,
    /// An agent that was given a listener's address knows no other.
    is_redirected: bool,
}

impl Expected<'_> {
    fn is_contradicted_by(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let address = bare.unwrap_or(host).parse::<IpAddr>().ok();
        let same = |one: &str| one.trim_end_matches('.').eq_ignore_ascii_case(host);
        let is_targets = |name: &str| {
            let one = |configured: Option<&str>| {
                configured.is_some_and(|one| {
                    one.trim_end_matches('.')
                        .eq_ignore_ascii_case(name.trim_end_matches('.'))
                })
            };
            one(self.host) || one(self.server_name)
        };
        if let Some(name) = self.name {
            // With a target that has a name, the agent's must be that one.
            let known = self.host.is_none() || !self.is_redirected || is_targets(name);
            return !same(name) || !known;
        }
        match address {
            Some(address) if self.is_redirected => {
                Some(address.to_canonical()) != self.address.map(|own| own.to_canonical())
            }
            Some(_) => false,
            // TLS for no name was verified for the address.
            None if self.is_tls => !is_targets(host),
            None => self.host.is_some() && self.is_redirected && !is_targets(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected<'a>(name: Option<&'a str>, host: Option<&'a str>, is_tls: bool) -> Expected<'a> {
        Expected {
            name,
            is_tls,
            address: "10.0.0.7".parse().ok(),
            host,
            server_name: None,
            is_redirected: true,
        }
    }

    #[test]
    fn a_request_is_for_the_name_that_its_connection_was_opened_for() {
        // (SNI, target's host, TLS, authority): contradicted?
        let table = [
            (Some("a.test"), None, true, "a.test", false),
            (Some("a.test"), None, true, "A.test", false),
            (Some("a.test"), None, true, "b.test", true),
            (Some("a.test"), Some("a.test"), true, "a.test", false),
            (Some("b.test"), Some("a.test"), true, "b.test", true),
            (None, None, true, "10.0.0.7", false),
            (None, None, true, "10.0.0.8", true),
            (None, None, true, "b.test", true),
            (None, Some("a.test"), true, "a.test", false),
            (None, None, false, "anything.test", false),
            (None, Some("a.test"), false, "b.test", true),
            (None, Some("a.test"), false, "10.0.0.7", false),
            (None, None, false, "10.0.0.8", true),
        ];
        for (name, host, tls, authority, contradicted) in table {
            assert_eq!(
                expected(name, host, tls).is_contradicted_by(authority),
                contradicted,
                "{name:?} {host:?} {tls} {authority}"
            );
        }
    }

    #[test]
    fn an_agent_of_a_listener_knows_no_other_address() {
        let listener = Expected {
            is_redirected: false,
            ..expected(None, Some("a.test"), false)
        };
        assert!(!listener.is_contradicted_by("127.0.0.1"));
        assert!(!listener.is_contradicted_by("localhost"));
    }

    #[test]
    fn the_service_decides_what_the_agent_is_offered_of_what_it_knows() {
        let hello = |list: &[&[u8]]| ClientHello {
            alpn: list.iter().map(|one| one.to_vec()).collect(),
            ..ClientHello::default()
        };
        assert_eq!(to_agent(&hello(&[H2, HTTP_1_1]), true), [H2]);
        assert_eq!(to_agent(&hello(&[H2, HTTP_1_1]), false), [HTTP_1_1]);
        assert_eq!(to_agent(&hello(&[H2]), false), [H2]);
        assert_eq!(to_agent(&hello(&[HTTP_1_1]), true), [HTTP_1_1]);
        assert!(to_agent(&hello(&[]), true).is_empty());
    }
}
