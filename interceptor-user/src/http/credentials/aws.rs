//! Signatures of AWS, version 4, in the `Authorization` header.
//!
//! Signed are the authority, the content type and every `x-amz-` header; S3 takes
//! the path as it is, all others normalised and encoded once more. Not here:
//! signatures in the query, bodies signed chunk by chunk, and the asymmetric
//! variant (4A).
//!
//! Spec: AWS IAM User Guide, "Create a signed AWS API request".

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{CredentialError, sensitive, value};
use crate::config::Aws;
use crate::secrets::Secret;

/// The hash of the body.
pub const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The headers that are set here.
pub const NAMES: [HeaderName; 3] = [AUTHORIZATION, DATE, TOKEN];

/// What is signed with.
#[derive(Debug)]
pub struct Keys {
    region: String,
    service: String,
    id: Secret,
    key: Secret,
    token: Option<Secret>,
}

impl Keys {
    /// Reads them.
    ///
    /// # Errors
    /// When one cannot be had.
    pub async fn of(aws: &Aws) -> Result<Self, CredentialError> {
        Ok(Self {
            region: aws.region.clone(),
            service: aws.service.clone(),
            id: value(&aws.access_key_id).await?,
            key: value(&aws.secret_access_key).await?,
            token: match &aws.session_token {
                None => None,
                Some(token) => Some(value(token).await?),
            },
        })
    }
}

/// SHA-256, as it stands in a request.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Signs a request. `body` is the hash of its body, or what stands for one.
///
/// # Errors
/// When something of it cannot be signed.
pub fn sign(
    head: &mut request::Parts,
    authority: &str,
    body: &str,
    keys: &Keys,
    now: OffsetDateTime,
) -> Result<(), CredentialError> {
    let wrong = |_| CredentialError::Sign("the time cannot be written");
    let stamp = now
        .format(format_description!(
            "[year][month][day]T[hour][minute][second]Z"
        ))
        .map_err(wrong)?;
    let day = stamp.get(..8).unwrap_or_default();
    head.headers.insert(DATE, sensitive(&DATE, &stamp)?);
    if let Some(token) = &keys.token {
        head.headers
            .insert(TOKEN, sensitive(&TOKEN, token.expose())?);
    }
    if keys.service == "s3" {
        let hash = HeaderValue::from_str(body)
            .map_err(|_| CredentialError::Sign("x-amz-content-sha256"))?;
        head.headers.insert(CONTENT_SHA256, hash);
    }
    let (names, canonical) = canonical(head, authority, body, keys.service == "s3")?;
    let scope = format!("{day}/{}/{}/aws4_request", keys.region, keys.service);
    let text = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
        hash(canonical.as_bytes())
    );
    let secret = zeroize::Zeroizing::new(format!("AWS4{}", keys.key.expose()));
    let mut key = mac(secret.as_bytes(), day.as_bytes());
    for part in [keys.region.as_str(), keys.service.as_str(), "aws4_request"] {
        key = mac(key.as_ref(), part.as_bytes());
    }
    let signature = hex::encode(mac(key.as_ref(), text.as_bytes()));
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        keys.id.expose()
    );
    head.headers
        .insert(AUTHORIZATION, sensitive(&AUTHORIZATION, &value)?);
    Ok(())
}

fn mac(key: &[u8], bytes: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes)
}

/// The names that are signed, and the request as it is signed.
fn canonical(
    head: &request::Parts,
    authority: &str,
    body: &str,
    is_s3: bool,
) -> Result<(String, String), CredentialError> {
    let mut headers: Vec<(&str, String)> = vec![("host", authority.to_owned())];
    for name in head.headers.keys() {
        if *name != CONTENT_TYPE && !name.as_str().starts_with("x-amz-") {
            continue;
        }
        let mut values = Vec::new();
        for value in head.headers.get_all(name) {
            let value = value
                .to_str()
                .map_err(|_| CredentialError::Sign("a header that is signed is not text"))?;
            values.push(value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        headers.push((name.as_str(), values.join(",")));
    }
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut text = format!("{}\n{}\n", head.method, path(head.uri.path(), is_s3));
    text.push_str(&query(head.uri.query().unwrap_or_default()));
    text.push('\n');
    for (name, value) in &headers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}:{value}");
    }
    let _ = write!(text, "\n{names}\n{body}");
    Ok((names, text))
}

fn path(path: &str, is_s3: bool) -> String {
    let decoded = decode(path);
    if is_s3 {
        return encode(&decoded, true);
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut normal = String::new();
    for segment in &segments {
        normal.push('/');
        normal.push_str(&encode(encode(segment, false).as_bytes(), false));
    }
    if segments.is_empty() || decoded.ends_with(b"/") {
        normal.push('/');
    }
    normal
}

/// Sorted by name, then by value; encoded as the agent encoded it.
fn query(query: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3);
        let value = pair
            .filter(|_| *byte == b'%')
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match value {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn encode(bytes: &[u8], keeps_slash: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        if plain || (keeps_slash && *byte == b'/') {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn keys(service: &str) -> Keys {
        Keys {
            region: "us-east-1".to_owned(),
            service: service.to_owned(),
            id: Secret::new("AKIDEXAMPLE".to_owned()),
            key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            token: None,
        }
    }

    fn signed(method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let at = datetime!(2015-08-30 12:36:00 UTC);
        sign(
            &mut head,
            "example.amazonaws.com",
            &hash(body),
            &keys("service"),
            at,
        )
        .unwrap();
        let value = head.headers[AUTHORIZATION].to_str().unwrap();
        value.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    /// Of AWS's own test suite for version 4.
    #[test]
    fn requests_are_signed_as_in_the_suite_of_aws() {
        assert_eq!(
            signed("GET", "/", &[], b""),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        assert_eq!(
            signed("GET", "/?Param2=value2&Param1=value1", &[], b""),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
        assert_eq!(
            signed("POST", "/", &[], b""),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        assert_eq!(
            signed(
                "POST",
                "/",
                &[("content-type", "application/x-www-form-urlencoded")],
                b"Param1=value1"
            ),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
        assert_eq!(
            signed("GET", "/example/..", &[], b""),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn a_path_is_normalised_for_all_but_s3() {
        assert_eq!(path("/a//b/../c%20d", false), "/a/c%2520d");
        assert_eq!(path("/a//b/../c%20d", true), "/a//b/../c%20d");
        assert_eq!(path("/a/", false), "/a/");
    }
}
