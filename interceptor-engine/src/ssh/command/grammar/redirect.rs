//! Redirections, and the here-documents that follow a line.

use interceptor_policy::operation::ssh::SshStdin;

use super::super::word::ends_word;
use super::super::{DEPTH_LIMIT, Fault, Field, Read, WORK_LIMIT};
use super::Parser;

/// Most here-documents of one text, each of which is looked for ahead.
const DOCUMENT_LIMIT: usize = 16;

/// What a command does with files.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Redirects {
    pub(in super::super) stdin: Option<SshStdin>,
    /// What is written in the here-document, where that is certain.
    pub(in super::super) document: Option<String>,
    pub(in super::super) reads: Vec<Field>,
    pub(in super::super) writes: Vec<Field>,
}

impl Redirects {
    pub(in super::super) const fn is_empty(&self) -> bool {
        self.stdin.is_none() && self.reads.is_empty() && self.writes.is_empty()
    }
}

/// A here-document whose text follows the line.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    until: String,
    tabs: bool,
    quoted: bool,
}

impl Parser<'_> {
    /// A redirection, where one stands here.
    pub(super) fn redirect(&mut self, into: &mut Redirects) -> Read<bool> {
        let from = self.at;
        let mut number = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_digit) {
            number.push(c);
            self.at += 1;
        }
        let both = number.is_empty() && self.peek() == Some('&') && self.peek_at(1) == Some('>');
        if both {
            self.at += 1;
        }
        let operators = ["<<<", "<<-", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">"];
        let substitutes = matches!(self.peek(), Some('<' | '>')) && self.peek_at(1) == Some('(');
        let operator = match substitutes {
            true => None,
            false => operators.iter().find(|operator| self.take(operator)),
        };
        let Some(operator) = operator else {
            self.at = from;
            return Ok(false);
        };
        // Input is 0 where no number is written; anything else is another file.
        let input = match number.as_str() {
            "" => operator.starts_with('<'),
            "0" => true,
            _ => false,
        };
        while let Some(' ' | '\t') = self.peek() {
            self.at += 1;
        }
        if matches!(*operator, "<<" | "<<-") {
            let document = self.begin_document(*operator == "<<-")?;
            if input {
                into.stdin = Some(SshStdin::Document);
                into.document = document;
            }
            return Ok(true);
        }
        let target = match self.peek() {
            Some('<' | '>') if self.peek_at(1) == Some('(') => {
                self.take_substitution()?;
                if input {
                    into.stdin = Some(SshStdin::Piped);
                    into.document = None;
                }
                return Ok(true);
            }
            None => return Err(Fault),
            Some(c) if ends_word(c) => return Err(Fault),
            Some(_) => self.word(false)?,
        };
        let mut fields = target.fields();
        let file = match fields.len() {
            1 => fields.pop().flatten(),
            _ => None,
        };
        if *operator == "<<<" {
            if input {
                into.stdin = Some(SshStdin::Document);
                into.document = file;
            }
            return Ok(true);
        }
        let copies = operator.ends_with('&');
        let descriptor = file.as_deref().is_some_and(|file| {
            let digits = file.strip_suffix('-').unwrap_or(file);
            digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        if copies && descriptor {
            if input {
                into.stdin = Some(match file.as_deref() {
                    Some("-") => SshStdin::Empty,
                    _ => SshStdin::Unknown,
                });
                into.document = None;
            }
            return Ok(true);
        }
        let nothing = file.as_deref() == Some("/dev/null");
        let shown = matches!(
            file.as_deref(),
            Some("/dev/null" | "/dev/stdout" | "/dev/stderr" | "/dev/stdin" | "/dev/tty")
        );
        if input {
            into.document = None;
            into.stdin = Some(match (nothing, file.as_deref()) {
                (true, _) => SshStdin::Empty,
                (false, Some("/dev/stdin" | "/dev/tty")) => SshStdin::Inherited,
                (false, Some(file))
                    if !file.starts_with("/dev/") && !file.starts_with("/proc/") =>
                {
                    SshStdin::File
                }
                _ => SshStdin::Unknown,
            });
        }
        if !shown {
            if operator.starts_with('<') {
                into.reads.push(file.clone());
            }
            if operator.contains('>') || copies {
                into.writes.push(file);
            }
        }
        Ok(true)
    }

    /// `<<WORD`, behind its operator; the text, where it is certain.
    fn begin_document(&mut self, tabs: bool) -> Read<Option<String>> {
        self.documents += 1;
        if self.documents > DOCUMENT_LIMIT {
            return Err(Fault);
        }
        let mut until = String::new();
        let mut quoted = false;
        let from = self.at;
        while let Some(c) = self.peek().filter(|c| !ends_word(*c)) {
            match c {
                // What stands there is not what is looked for.
                '$' | '`' => return Err(Fault),
                '\'' | '"' => {
                    quoted = true;
                    self.at += 1;
                    loop {
                        match self.next().ok_or(Fault)? {
                            end if end == c => break,
                            '\\' | '\n' | '$' | '`' => return Err(Fault),
                            inside => until.push(inside),
                        }
                    }
                }
                '\\' => {
                    quoted = true;
                    self.at += 1;
                    until.push(self.next().filter(|c| *c != '\n').ok_or(Fault)?);
                }
                c => {
                    until.push(c);
                    self.at += 1;
                }
            }
        }
        if self.at == from {
            return Err(Fault);
        }
        let pending = Pending {
            until,
            tabs,
            quoted,
        };
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|c| *c == '\n').ok_or(Fault)?;
        let line = rest.get(..end).unwrap_or_default();
        let plain = !line
            .iter()
            .any(|c| matches!(c, '\'' | '"' | '\\' | '`' | '$' | '<' | '#'));
        let text = match plain && self.pending.is_empty() {
            true => self.document_from(self.at + end + 1, &pending),
            false => None,
        };
        let constant = |text: &String| quoted || !text.contains(['$', '`', '\\']);
        let text = text.map(|(text, _)| text).filter(constant);
        self.pending.push(pending);
        Ok(text)
    }

    /// The end of a line, with the here-documents that follow it.
    pub(super) fn line_end(&mut self) -> Read<()> {
        self.at += 1;
        for pending in std::mem::take(&mut self.pending) {
            let (text, after) = self.document_from(self.at, &pending).ok_or(Fault)?;
            self.at = after;
            if !pending.quoted {
                self.found.work = self.found.work.saturating_add(text.len());
                if self.found.depth >= DEPTH_LIMIT || self.found.work > WORK_LIMIT {
                    return Err(Fault);
                }
                self.found.depth += 1;
                let read = Parser::new(&text, self.found).document();
                self.found.depth = self.found.depth.saturating_sub(1);
                read?;
            }
        }
        Ok(())
    }

    /// A here-document's text that begins at a place, and where it ends.
    fn document_from(&self, from: usize, pending: &Pending) -> Option<(String, usize)> {
        let mut text = String::new();
        let mut at = from;
        loop {
            let rest = self.chars.get(at..)?;
            if rest.is_empty() {
                return None;
            }
            let end = rest.iter().position(|c| *c == '\n');
            let line: String = rest.iter().take(end.unwrap_or(rest.len())).collect();
            at += end.map_or(rest.len(), |end| end + 1);
            let line = match pending.tabs {
                true => line.trim_start_matches('\t'),
                false => &line,
            };
            if line == pending.until {
                return Some((text, at));
            }
            text.push_str(line);
            text.push('\n');
        }
    }
}
