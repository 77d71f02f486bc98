//! The ways in which a server may read a request's path.
//!
//! `/a/..;/b%2fc` is one resource to one server and another to the next: they
//! decode once, twice or only what is harmless, resolve dots before or after,
//! merge slashes, drop parameters, take a backslash for a slash, stop at a NUL.
//! Rules are asked about all of these readings, so that what is refused under
//! one of them is refused.
//!
//! Case is kept: comparing is up to the matcher. What decodes to no valid UTF-8
//! (overlong forms included) stays percent-encoded.
//!
//! Terms: RFC 3986, sections 2.3, 3.3, 5.2.4 and 6.2.2.

use std::borrow::Cow;
use std::sync::Arc;

/// How much of the percent-encoding is decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decoded {
    /// All of it, once.
    Once,
    /// All but what has a meaning in a path once it is decoded.
    Harmless,
    /// All of it, and what that decodes to.
    Twice,
}

/// When the parameters of segments (`;v=1`) are dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    Kept,
    /// Before anything is decoded.
    Raw,
    /// When everything is.
    Decoded,
}

/// Octets that mean something in a path once they are decoded.
const MEANING: &[u8] = b"/\\.;%?#\0";

/// Every way to read a raw path (without its query), the normalised one first:
/// decoded once, dots resolved, slashes merged. There is at least one, and at
/// most a hundred and some, which takes a path made for it; an ordinary path
/// has one.
#[must_use]
pub fn readings(raw: &str) -> Vec<Arc<str>> {
    if raw.is_empty() {
        return vec!["/".into()];
    }
    if is_plain(raw) {
        return vec![raw.into()];
    }
    let mut found: Vec<Arc<str>> = Vec::new();
    let mut add = |reading: &str| {
        let reading = if reading.is_empty() { "/" } else { reading };
        if !found.iter().any(|known| **known == *reading) {
            found.push(reading.into());
        }
    };
    for decoded in [Decoded::Once, Decoded::Harmless, Decoded::Twice] {
        for parameters in [Parameters::Kept, Parameters::Raw, Parameters::Decoded] {
            let text = match parameters {
                Parameters::Raw => Cow::Owned(without_parameters(raw)),
                _ => Cow::Borrowed(raw),
            };
            let text = match decoded {
                Decoded::Once => decode(&text, false),
                Decoded::Harmless => decode(&text, true),
                Decoded::Twice => decode(&decode(&text, false), false),
            };
            let text = match parameters {
                Parameters::Decoded => without_parameters(&text),
                _ => text,
            };
            each_shape(&text, &mut add);
            // To those that stop there it ends there.
            let end = text.find(['\0', '?', '#']);
            if let Some(cut) = end.and_then(|end| text.get(..end)) {
                each_shape(cut, &mut add);
            }
        }
    }
    found
}

/// The text with backslashes or slashes, dots resolved or not, slashes merged
/// or not; resolved and merged first.
fn each_shape(text: &str, add: &mut impl FnMut(&str)) {
    let mut each = |text: &str| {
        let merged = merged(text);
        let resolved = resolved(&merged);
        add(&resolved);
        add(&merged);
        let resolved = self::resolved(text);
        add(&resolved);
        // Resolving leaves `//` where it was.
        add(&self::merged(&resolved));
        add(text);
    };
    each(text);
    if text.contains('\\') {
        each(&text.replace('\\', "/"));
    }
}

/// Whether every server reads it alike.
fn is_plain(raw: &str) -> bool {
    !raw.contains(['%', '\\', ';', '?', '#'])
        && !raw.contains("//")
        && !raw.split('/').any(|segment| matches!(segment, "." | ".."))
}

fn without_parameters(text: &str) -> String {
    let segments = text.split('/');
    let bare = segments.map(|segment| segment.split(';').next().unwrap_or_default());
    bare.collect::<Vec<_>>().join("/")
}

fn merged(text: &str) -> String {
    let mut merged = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

/// Dot segments taken away, none above the root; only of what begins at it.
fn resolved(text: &str) -> String {
    let Some(rest) = text.strip_prefix('/') else {
        return text.to_owned();
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut open = false;
    for segment in rest.split('/') {
        open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    if open {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

/// Percent-encoding decoded; with `harmless`, but for what would have a meaning.
fn decode(text: &str, harmless: bool) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match encoded(rest).filter(|octet| !(harmless && MEANING.contains(octet))) {
            Some(octet) => {
                octets.push(octet);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                octets.push(*first);
                rest = after;
            }
        }
    }
    let mut decoded = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        decoded.push_str(chunk.valid());
        for octet in chunk.invalid() {
            decoded.push_str(&format!("%{octet:02X}"));
        }
    }
    decoded
}

/// A text of percent-encoding, decoded once.
pub(super) fn decoded(text: &str) -> String {
    decode(text, false)
}

/// The octet that a text begins with in percent-encoding.
fn encoded(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |letter: u8| char::from(letter).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(raw: &str) -> Vec<String> {
        readings(raw).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ordinary_path_has_one_reading() {
        for plain in [
            "/",
            "/api/v1/users",
            "/a/b/",
            "/a.b/..c/...",
            "/~u/@x:y+z,(1)",
            "/ä",
            "*",
        ] {
            assert_eq!(of(plain), [plain], "{plain}");
        }
        assert_eq!(of(""), ["/"]);
        // Encoded though it need not be, or as it has to be: the same to all.
        assert_eq!(of("/%61%20b/%C3%A4"), ["/a b/ä"]);
    }

    #[test]
    fn the_normalised_path_comes_first() {
        for (raw, normalised) in [
            ("/a/../b", "/b"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("//a///b", "/a/b"),
            ("/%2e%2e/%2E%2e/x", "/x"),
            ("/a%2fb", "/a/b"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/%2561", "/%61"),
            ("/%zz%4", "/%zz%4"),
        ] {
            assert_eq!(
                of(raw).first().map(String::as_str),
                Some(normalised),
                "{raw}"
            );
        }
    }

    #[test]
    fn every_way_in_which_a_server_may_read_it_is_there() {
        for (raw, reading) in [
            // Slashes.
            ("//admin", "//admin"),
            ("/x//admin", "/x/admin"),
            ("/x%2fadmin", "/x%2fadmin"),
            ("/x%2fadmin", "/x/admin"),
            ("/x%252fadmin", "/x%2fadmin"),
            ("/x%252fadmin", "/x/admin"),
            ("/%2561dmin", "/admin"),
            ("/x\\admin", "/x/admin"),
            ("/x%5cadmin", "/x/admin"),
            ("/x%5cadmin", "/x\\admin"),
            ("/x\\..\\admin", "/admin"),
            // Dots.
            ("/x/../admin", "/admin"),
            ("/x/../admin", "/x/../admin"),
            ("/x/%2e%2e/admin", "/admin"),
            ("/x/%252e%252e/admin", "/admin"),
            ("/x/.%2e/admin", "/admin"),
            ("/x/..%2fadmin", "/admin"),
            ("/admin/.", "/admin/"),
            // With an empty segment that one server drops and another does not.
            ("/admin//../y", "/admin/y"),
            ("/admin//../y", "/y"),
            // Parameters.
            ("/admin;x", "/admin"),
            ("/x/..;/admin", "/admin"),
            ("/x/..;a=b/admin", "/admin"),
            ("/x/..%3b/admin", "/admin"),
            ("/;x/admin", "/admin"),
            ("/admin;%2fy/z", "/admin/z"),
            // Ends.
            ("/admin%00.png", "/admin"),
            ("/admin%2500", "/admin"),
            ("/admin%3f.png", "/admin"),
            ("/admin#x", "/admin"),
            ("/x/../admin%00", "/admin"),
            // What cannot be decoded stays.
            ("/%c0%ae%c0%ae/admin", "/%C0%AE%C0%AE/admin"),
            ("/%ff", "/%FF"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/a%%32%66b", "/a%2fb"),
            ("/a%%32%66b", "/a/b"),
        ] {
            let all = of(raw);
            assert!(
                all.iter().any(|one| one == reading),
                "{raw}: {reading} not in {all:?}"
            );
        }
    }

    #[test]
    fn case_is_kept() {
        assert_eq!(of("/Admin"), ["/Admin"]);
    }

    proptest! {
        #[test]
        fn there_are_some_and_not_many_and_none_twice(
            parts in prop::collection::vec(
                prop::sample::select(&["/", "a", ".", "%2e", ";", "\\", "%5c", "%2f", "%25", "2f", "%00", "?", "//", "..", "%ff"][..]),
                0..12,
            )
        ) {
            let all = of(&format!("/{}", parts.concat()));
            prop_assert!(!all.is_empty() && all.len() <= 180, "{}", all.len());
            prop_assert!(all.iter().all(|one| !one.is_empty()));
            let mut unique = all.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), all.len());
        }
    }
}
