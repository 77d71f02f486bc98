//! Whether an agent's own SCRAM can pass through a flow of two legs.
//!
//! SCRAM-SHA-256-PLUS binds the exchange to the certificate of the TLS leg that
//! the agent sees. That is the local authority's, and the server compares it
//! with its own: with TLS on both legs it can never fit. Taking `-PLUS` off the
//! server's list does not help either, for then a client that knows channel
//! binding says so (`y`), and the server reads that as an attack. So:
//!
//! | agent's leg | service's leg | the server offers `-PLUS` |
//! | --- | --- | --- |
//! | plain | plain | never happens |
//! | plain | TLS | taken off: an agent without TLS cannot bind, and libpq breaks off at the sight of it |
//! | TLS | plain | never happens |
//! | TLS | TLS | shown; refused when the agent takes it up, in words that say what to do |
//!
//! The refusal comes as an `ErrorResponse` at the point where libpq with
//! `sslmode=prefer` tries again without TLS. Everything else is the two ends'
//! own business and passes untouched.
//!
//! Format: PostgreSQL manual, page `sasl-authentication`; RFC 5802, section 6.

/// The mechanism that binds.
const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
/// What the name of every binding mechanism ends with (RFC 5802, section 4).
const PLUS_SUFFIX: &[u8] = b"-PLUS";
/// `AuthenticationSASL`.
const AUTHENTICATION_SASL: u32 = 10;
/// `invalid_authorization_specification`.
const INVALID_AUTHORIZATION: &str = "28000";
/// `protocol_violation`.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Watches the choice of a mechanism.
#[derive(Clone, Copy, Debug)]
pub struct SaslGuard {
    downstream_tls: bool,
    upstream_tls: bool,
}

/// What is done with a message of the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaslVerdict {
    /// It passes as it is.
    Pass,
    /// This message passes in its place: whole, with tag and length.
    Rewrite(Vec<u8>),
    /// The session ends with this error.
    Refuse(SaslRefusal),
}

/// A refusal, for a FATAL `ErrorResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslRefusal {
    /// SQLSTATE.
    pub code: &'static str,
    /// What is wrong.
    pub message: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

impl SaslGuard {
    /// For a flow whose legs are encrypted like this.
    #[must_use]
    pub const fn new(downstream_tls: bool, upstream_tls: bool) -> Self {
        Self {
            downstream_tls,
            upstream_tls,
        }
    }

    /// The server's `AuthenticationSASL`: its body after the code 10, which is a
    /// list of mechanisms.
    #[must_use]
    pub fn offer(&self, mechanisms: &[u8]) -> SaslVerdict {
        let Some(offered) = list(mechanisms) else {
            return SaslVerdict::Refuse(SaslRefusal {
                code: PROTOCOL_VIOLATION,
                message: "the server's list of SASL mechanisms is malformed",
                hint: "The server does not speak PostgreSQL's protocol as documented.",
            });
        };
        let binds = offered.iter().any(|one| one.ends_with(PLUS_SUFFIX));
        if self.downstream_tls || !self.upstream_tls || !binds {
            return SaslVerdict::Pass;
        }
        let kept: Vec<&[u8]> = offered
            .into_iter()
            .filter(|one| !one.ends_with(PLUS_SUFFIX))
            .collect();
        if kept.is_empty() {
            return SaslVerdict::Refuse(SaslRefusal {
                code: INVALID_AUTHORIZATION,
                message: "the server accepts nothing but channel binding, which an agent without TLS cannot do",
                hint: "Configure `credentials` for this target, so that the proxy logs on itself.",
            });
        }
        SaslVerdict::Rewrite(encode(&kept))
    }

    /// The agent's `SASLInitialResponse`: its body.
    #[must_use]
    pub fn answer(&self, body: &[u8]) -> SaslVerdict {
        let Some(end) = memchr::memchr(0, body) else {
            return SaslVerdict::Refuse(SaslRefusal {
                code: PROTOCOL_VIOLATION,
                message: "the answer to the SASL mechanisms is malformed",
                hint: "The client does not speak PostgreSQL's protocol as documented.",
            });
        };
        let mechanism = body.get(..end).unwrap_or_default();
        if mechanism == PLUS && self.downstream_tls && self.upstream_tls {
            return SaslVerdict::Refuse(SaslRefusal {
                code: INVALID_AUTHORIZATION,
                message: "SCRAM channel binding cannot pass through Interceptor, which opens TLS on both sides",
                hint: "Configure `credentials` for this target, so that the proxy logs on itself, \
                       or connect with channel_binding=disable or sslmode=disable.",
            });
        }
        SaslVerdict::Pass
    }
}

/// Names, each ended by a zero byte, and an empty one as the last.
fn list(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names = Vec::new();
    loop {
        let end = memchr::memchr(0, bytes)?;
        let name = bytes.get(..end)?;
        bytes = bytes.get(end + 1..)?;
        if name.is_empty() {
            return bytes.is_empty().then_some(names);
        }
        names.push(name);
    }
}

fn encode(names: &[&[u8]]) -> Vec<u8> {
    let body: usize = names.iter().map(|one| one.len() + 1).sum();
    // Length field, code, names, the empty name. They came out of one message,
    // so their sum fits its length field.
    let length = u32::try_from(4 + 4 + body + 1).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(body + 10);
    out.push(b'R');
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&AUTHENTICATION_SASL.to_be_bytes());
    for name in names {
        out.extend_from_slice(name);
        out.push(0);
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const ONE: &[u8] = b"SCRAM-SHA-256\0\0";
    const TAKES_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS\0\0\0\0\x01x";
    const TAKES_PLAIN: &[u8] = b"SCRAM-SHA-256\0\0\0\0\x01x";

    #[test]
    fn an_agent_without_tls_is_not_shown_what_it_cannot_do() {
        let SaslVerdict::Rewrite(frame) = SaslGuard::new(false, true).offer(BOTH) else {
            panic!("the list should have been rewritten");
        };
        let expected = [b"R\0\0\0\x17\0\0\0\x0a".as_slice(), ONE].concat();
        assert_eq!(frame, expected);
    }

    #[test]
    fn with_tls_on_both_legs_binding_is_refused_with_the_way_out() {
        let guard = SaslGuard::new(true, true);
        assert_eq!(guard.offer(BOTH), SaslVerdict::Pass);
        let SaslVerdict::Refuse(refusal) = guard.answer(TAKES_PLUS) else {
            panic!("binding should have been refused");
        };
        assert_eq!(refusal.code, "28000");
        assert!(refusal.hint.contains("credentials"));
        assert!(refusal.hint.contains("channel_binding=disable"));
    }

    #[test]
    fn whatever_does_not_bind_passes_untouched() {
        for (down, up) in [(false, false), (false, true), (true, false), (true, true)] {
            let guard = SaslGuard::new(down, up);
            assert_eq!(guard.offer(ONE), SaslVerdict::Pass);
            assert_eq!(
                guard.offer(b"OAUTHBEARER\0SCRAM-SHA-256\0\0"),
                SaslVerdict::Pass
            );
            assert_eq!(guard.answer(TAKES_PLAIN), SaslVerdict::Pass);
        }
    }

    #[test]
    fn a_list_that_is_nothing_but_binding_leaves_nothing_to_offer() {
        let verdict = SaslGuard::new(false, true).offer(b"SCRAM-SHA-256-PLUS\0\0");
        assert!(matches!(verdict, SaslVerdict::Refuse(refusal) if refusal.code == "28000"));
    }

    #[test]
    fn a_malformed_choice_is_refused() {
        let guard = SaslGuard::new(true, true);
        for offer in [
            &b""[..],
            b"SCRAM-SHA-256",
            b"SCRAM-SHA-256\0",
            b"SCRAM-SHA-256\0\0x",
        ] {
            assert!(
                matches!(guard.offer(offer), SaslVerdict::Refuse(refusal) if refusal.code == "08P01"),
                "{offer:?}"
            );
        }
        assert!(matches!(guard.answer(b"SCRAM"), SaslVerdict::Refuse(_)));
    }
}
