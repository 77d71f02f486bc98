//! Forms in parts.
//!
//! Every part under its name, files too: under the name of a file's field stands
//! its content where that is text, and its file name under the same name with
//! `.filename` behind it.
//!
//! Spec: RFC 7578; RFC 2046, section 5.1.1.

use std::sync::Arc;

/// Most parts of one body.
const PART_LIMIT: usize = 1024;
/// Bytes of one part's head.
const HEAD_LIMIT: usize = 8 << 10;

/// Names and values; `None` where it is not such a form, or not a whole one.
#[must_use]
pub fn fields(body: &[u8], boundary: &str) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    // The first one has nothing before it, or a preamble that nobody reads.
    let mut rest = if body.starts_with(delimiter.get(2..)?) {
        body.get(delimiter.len() - 2..)?
    } else {
        let begin = memchr::memmem::find(body, &delimiter)?;
        body.get(begin + delimiter.len()..)?
    };
    let mut found = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(found);
        }
        if found.len() >= PART_LIMIT {
            return None;
        }
        // White space behind a boundary is for gateways that add it.
        let line = memchr::memmem::find(rest, b"\r\n")?;
        if rest
            .get(..line)?
            .iter()
            .any(|byte| !matches!(byte, b' ' | b'\t'))
        {
            return None;
        }
        let part = rest.get(line..)?;
        let end = memchr::memmem::find(part, &delimiter)?;
        let (part, after) = part.split_at_checked(end)?;
        rest = after.get(delimiter.len()..)?;
        let (head, content) = match part.strip_prefix(b"\r\n\r\n") {
            Some(content) => (&[][..], content),
            None => {
                let end = memchr::memmem::find(part, b"\r\n\r\n")?;
                (part.get(..end)?, part.get(end + 4..)?)
            }
        };
        if head.len() > HEAD_LIMIT {
            return None;
        }
        let head = String::from_utf8_lossy(head);
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is = name.trim().eq_ignore_ascii_case("content-disposition");
            is.then(|| value.to_owned())
        });
        let disposition = disposition.unwrap_or_default();
        let name = parameter(&disposition, "name").unwrap_or_default();
        if let Some(file) = parameter(&disposition, "filename") {
            found.push((format!("{name}.filename").into(), file.into()));
        }
        let content = String::from_utf8_lossy(content);
        found.push((name.into(), content.into()));
    }
}

fn parameter(disposition: &str, name: &str) -> Option<String> {
    disposition.split(';').skip(1).find_map(|one| {
        let (key, value) = one.split_once('=')?;
        let is = key.trim().eq_ignore_ascii_case(name);
        is.then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<Vec<(String, String)>> {
        let fields = fields(body.as_bytes(), "B")?;
        let own = |text: &Arc<str>| text.to_string();
        Some(fields.iter().map(|(a, b)| (own(a), own(b))).collect())
    }

    #[test]
    fn parts_are_read_under_their_names_and_files_with_theirs() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n\
            --B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\n\
            Content-Type: text/plain\r\n\r\nline\r\nline\r\n--B--\r\n";
        let expected = [("a", "one"), ("f.filename", "x.txt"), ("f", "line\r\nline")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read(body).unwrap(), expected);
        assert_eq!(read(&format!("preamble\r\n{body}")).unwrap(), expected);
    }

    #[test]
    fn a_part_without_a_head_has_no_name() {
        assert_eq!(
            read("--B\r\n\r\nx\r\n--B--").unwrap(),
            [(String::new(), "x".to_owned())]
        );
    }

    #[test]
    fn what_is_no_whole_form_is_not_read() {
        for body in [
            "",
            "--B\r\n\r\nx",
            "--C\r\n\r\nx\r\n--C--",
            "--Bx\r\n\r\ny\r\n--B--",
        ] {
            assert_eq!(read(body), None, "{body:?}");
        }
    }
}
