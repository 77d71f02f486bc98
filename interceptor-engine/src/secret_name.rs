//! Names that announce what lets one in.

use std::borrow::Cow;

/// Whether a field or parameter of this name authenticates by itself: with HTTP's own
/// fields for that, or with a password. Its value is not sealed either.
#[must_use]
pub fn authenticates(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "proxy-authorization"].contains(&&*name)
        || ["password", "passwd"]
            .iter()
            .any(|part| name.contains(part))
}

/// Whether a field of this name, or a parameter of a query or form, holds what
/// lets one in: its value is never recorded.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    const WHOLE: [&str; 8] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "key",
        "sig",
        "code",
        "assertion",
    ];
    const PARTS: [&str; 13] = [
        "jwt",
        "token",
        "secret",
        "password",
        "passwd",
        "api-key",
        "api_key",
        "apikey",
        "access-key",
        "access_key",
        "signature",
        "credential",
        "session",
    ];
    let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    WHOLE.contains(&&*name) || PARTS.iter().any(|part| name.contains(part))
}
