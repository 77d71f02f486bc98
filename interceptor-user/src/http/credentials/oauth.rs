//! Bearer tokens by client credentials (RFC 6749, section 4.4), fetched when they
//! are needed and again before they expire.
//!
//! One fetch at a time for a target: many exchanges that find no token wait for the
//! same one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;

use super::{CredentialError, value};
use crate::config::{OAuth, TlsMode};
use crate::http::body::Fed;
use crate::http::service::{self, Service};
use crate::net::{Dialer, Host};
use crate::secrets::Secret;
use crate::tls::upstream::Ask;

/// How long a token lives whose life is not told.
const UNTOLD: Duration = Duration::from_secs(300);
/// How long before its end a token is fetched again.
const EARLY: Duration = Duration::from_secs(30);
/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer.
const LONGEST: usize = 64 << 10;

/// A token, and until when it is used.
type Held = Arc<tokio::sync::Mutex<Option<(Arc<Secret>, Instant)>>>;

/// The tokens of all targets.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<Arc<str>, Held>>);

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

impl Tokens {
    /// A token for a target.
    ///
    /// # Errors
    /// When none can be fetched.
    pub async fn of(
        &self,
        target: &Arc<str>,
        oauth: &OAuth,
        dialer: &Dialer,
    ) -> Result<Arc<Secret>, CredentialError> {
        let held = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(Arc::clone(target)).or_default())
        };
        let mut held = held.lock().await;
        if let Some((token, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(Arc::clone(token));
        }
        let fetched = tokio::time::timeout(PATIENCE, fetch(oauth, dialer)).await;
        let answer = fetched.map_err(|_| failed("it took too long"))??;
        let lives = answer.expires_in.map_or(UNTOLD, Duration::from_secs);
        let token = Arc::new(Secret::new(answer.access_token));
        let until = Instant::now() + lives.saturating_sub(EARLY);
        *held = Some((Arc::clone(&token), until));
        Ok(token)
    }

    /// The next one is fetched.
    pub fn forget(&self, target: &Arc<str>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(target);
    }
}

fn failed(why: &str) -> CredentialError {
    CredentialError::Token(why.to_owned())
}

async fn fetch(oauth: &OAuth, dialer: &Dialer) -> Result<Answer, CredentialError> {
    let url = &oauth.token_url;
    let secret = value(&oauth.client_secret).await?;
    let host = url.host().ok_or_else(|| failed("it has no host"))?;
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|error| failed(&error.kind().to_string()))?
        .next()
        .ok_or_else(|| failed("its host has no address"))?;
    let tls = is_tls.then(|| Ask {
        mode: TlsMode::VerifyFull,
        ca: None,
        name: bare
            .parse::<std::net::IpAddr>()
            .is_err()
            .then(|| bare.to_owned()),
        host: Host::Address(address.ip()),
        alpn: &[],
        identity: None,
    });
    let mut form = zeroize::Zeroizing::new(String::from("grant_type=client_credentials"));
    if let Some(scope) = &oauth.scope {
        form.push_str("&scope=");
        escape(scope, &mut form);
    }
    let mut pair = zeroize::Zeroizing::new(String::new());
    escape(&oauth.client_id, &mut pair);
    pair.push(':');
    escape(secret.expose(), &mut pair);
    let basic = zeroize::Zeroizing::new(format!("Basic {}", base64(pair.as_bytes())));
    let target = url
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let mut authorization = http::HeaderValue::from_str(&basic)
        .map_err(|_| CredentialError::Value(header::AUTHORIZATION))?;
    authorization.set_sensitive(true);
    let request = Request::post(target.parse::<Uri>().map_err(|_| failed("its path"))?)
        .header(header::HOST, authority(url))
        .header(header::AUTHORIZATION, authorization)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Fed::whole(bytes::Bytes::copy_from_slice(form.as_bytes())))
        .map_err(|_| failed("the request cannot be made"))?;
    let service = Arc::new(Service::new(
        dialer.clone(),
        address.into(),
        tls,
        false,
        None,
    ));
    let sent = service.send(request).await;
    let (response, lease) = sent.map_err(|fault: service::Fault| failed(&fault.to_string()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST);
    let whole = body
        .collect()
        .await
        .map_err(|_| failed("its answer broke off"))?;
    lease.abort();
    if !status.is_success() {
        return Err(failed(&format!("it answered {}", status.as_u16())));
    }
    let answer: Answer = serde_json::from_slice(&whole.to_bytes())
        .map_err(|_| failed("its answer holds no access_token"))?;
    Ok(answer)
}

fn authority(url: &Uri) -> &str {
    url.authority().map_or("", |authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_, host)| host)
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// `application/x-www-form-urlencoded`.
fn escape(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_with_signs_of_its_own_is_escaped() {
        let mut out = String::new();
        escape("a b&c=d:ä*", &mut out);
        assert_eq!(out, "a+b%26c%3Dd%3A%C3%A4*");
    }
}
