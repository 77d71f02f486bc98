//! Lists, pipelines, compound commands.

use interceptor_policy::operation::ssh::SshStdin;

use super::word::{begins_name, ends_word, is_name};
use super::{Fault, Field, Found, Read};

mod redirect;

use redirect::Pending;
pub(super) use redirect::Redirects;

/// Words that are more than words where a command begins.
const KEYWORDS: &[&str] = &[
    "!", "{", "}", "if", "then", "elif", "else", "fi", "for", "select", "while", "until", "do",
    "done", "case", "esac", "in", "function", "time", "coproc",
];
/// Most variables of one text whose value is known: each is looked for in all of it.
const ASSIGNMENT_LIMIT: usize = 32;

/// What a list ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    End,
    Close,
    Case,
    Word(&'static str),
}

/// The reader of one text.
#[derive(Debug)]
pub(super) struct Parser<'f> {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) found: &'f mut Found,
    pending: Vec<Pending>,
    documents: usize,
    assignments: usize,
}

/// A variable and its value, of a command that is that and nothing else.
type Assigned = Option<(String, String)>;

impl<'f> Parser<'f> {
    pub(super) fn new(text: &str, found: &'f mut Found) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            found,
            pending: Vec::new(),
            documents: 0,
            assignments: 0,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at.saturating_add(ahead)).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn take(&mut self, text: &str) -> bool {
        let there = text
            .chars()
            .enumerate()
            .all(|(ahead, c)| self.peek_at(ahead) == Some(c));
        if there {
            self.at += text.chars().count();
        }
        there
    }

    /// All of the text.
    pub(super) fn all(mut self, stdin: SshStdin) -> Read<()> {
        if self.found.entered && self.peek() == Some('^') {
            // Replaces in the line before.
            return Err(Fault);
        }
        self.list(&[Stop::End], stdin)?;
        match self.pending.is_empty() {
            true => Ok(()),
            false => Err(Fault),
        }
    }

    /// The text of a here-document: nothing in it runs but what is substituted.
    fn document(mut self) -> Read<()> {
        let mut lost = super::word::Word::default();
        while let Some(c) = self.peek() {
            match c {
                '\\' => self.at += 2,
                '$' => self.dollar(&mut lost, true, false)?,
                '`' => self.backtick(false)?,
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    /// The inside of a substitution, to behind its end.
    pub(super) fn nested(&mut self) -> Read<()> {
        let before = self.pending.len();
        self.deeper(|parser| parser.list(&[Stop::Close], SshStdin::Unknown))?;
        match self.pending.len() == before {
            true => Ok(()),
            false => Err(Fault),
        }
    }

    /// Blanks within a line, and the comment at its end.
    fn blanks(&mut self) -> Read<()> {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.peek_at(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    let from = self.at;
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                    let comment = self.chars.get(from..self.at).unwrap_or_default();
                    let acts = |c: &char| ";&|<>()$`\\'\"!".contains(*c);
                    if self.found.entered && comment.iter().any(acts) {
                        // Some interactive shells have no comments.
                        return Err(Fault);
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// Blanks and ends of lines.
    fn blank_lines(&mut self) -> Read<()> {
        loop {
            self.blanks()?;
            match self.peek() {
                Some('\n') => self.line_end()?,
                _ => return Ok(()),
            }
        }
    }

    /// The keyword that stands here.
    fn keyword(&self) -> Option<&'static str> {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let word: String = rest
            .iter()
            .take(9)
            .take_while(|c| !ends_word(**c))
            .collect();
        KEYWORDS.iter().find(|known| **known == word).copied()
    }

    fn take_keyword(&mut self, word: &str) -> bool {
        let there = self.keyword() == Some(word);
        if there {
            self.at += word.len();
        }
        there
    }

    fn stop(&mut self, stops: &[Stop]) -> Option<Stop> {
        let found = match (self.peek(), self.peek_at(1)) {
            (None, _) => Stop::End,
            (Some(')'), _) => Stop::Close,
            (Some(';'), Some(';' | '&')) => Stop::Case,
            _ => Stop::Word(self.keyword()?),
        };
        if !stops.contains(&found) {
            return None;
        }
        match found {
            Stop::End => {}
            Stop::Close => self.at += 1,
            Stop::Case => {
                self.at += 2;
                self.take("&");
            }
            Stop::Word(word) => self.at += word.len(),
        }
        Some(found)
    }

    /// Commands up to one of `stops`, and which.
    fn list(&mut self, stops: &[Stop], stdin: SshStdin) -> Read<Stop> {
        loop {
            self.blank_lines()?;
            if let Some(stop) = self.stop(stops) {
                return Ok(stop);
            }
            if self.peek().is_none() {
                return Err(Fault);
            }
            self.and_or(stdin)?;
            self.blanks()?;
            match (self.peek(), self.peek_at(1)) {
                (Some(';'), Some(';' | '&')) | (Some('\n' | ')') | None, _) => {}
                (Some(';' | '&'), _) => self.at += 1,
                _ => return Err(Fault),
            }
        }
    }

    fn and_or(&mut self, stdin: SshStdin) -> Read<()> {
        let assigned = self.pipeline(stdin)?;
        let name = assigned.and_then(|(name, value)| {
            self.assignments += 1;
            let certain = self.found.depth == 1
                && self.assignments <= ASSIGNMENT_LIMIT
                && Found::can_be_known(&name)
                && self.is_only_assignment(&name);
            certain.then(|| {
                self.found.known.insert(name.clone(), value);
                name
            })
        });
        loop {
            self.blanks()?;
            if self.take("&&") || self.take("||") {
                self.blank_lines()?;
                self.pipeline(stdin)?;
                continue;
            }
            if let (Some('&'), Some(name)) = (self.peek(), name) {
                // It was set in a process of its own.
                self.found.known.remove(&name);
            }
            return Ok(());
        }
    }

    /// Whether the text names a variable once to set it, and else to read it.
    fn is_only_assignment(&self, name: &str) -> bool {
        let wanted: Vec<char> = name.chars().collect();
        let is_part = |c: Option<&char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_');
        let mut others = 0;
        for (at, window) in self.chars.windows(wanted.len().max(1)).enumerate() {
            let before = at.checked_sub(1).and_then(|at| self.chars.get(at));
            let after = self.chars.get(at + wanted.len());
            if window != wanted || is_part(before) || is_part(after) {
                continue;
            }
            let earlier = at.checked_sub(2).and_then(|at| self.chars.get(at));
            let reads = match before {
                Some('$') => true,
                Some('{') => earlier == Some(&'$') && after == Some(&'}'),
                _ => false,
            };
            others += usize::from(!reads);
        }
        others == 1
    }

    fn pipeline(&mut self, stdin: SshStdin) -> Read<Assigned> {
        loop {
            self.blanks()?;
            if self.take_keyword("!") {
                continue;
            }
            if self.keyword() == Some("time") && self.is_timed() {
                self.at += "time".len();
                self.blanks()?;
                self.found.plain("time");
                self.take("-p");
                continue;
            }
            break;
        }
        let mut assigned = self.command(stdin)?;
        loop {
            self.blanks()?;
            if self.peek() != Some('|') || self.peek_at(1) == Some('|') {
                return Ok(assigned);
            }
            self.at += 1;
            self.take("&");
            self.blank_lines()?;
            let from = self.found.programs.len();
            assigned = None;
            self.command(SshStdin::Piped)?;
            self.found.settle(from);
        }
    }

    /// Whether `time` is the shell's own here, and not a program with options.
    fn is_timed(&self) -> bool {
        let rest = self.chars.get(self.at + 4..).unwrap_or_default();
        let mut rest = rest.iter().skip_while(|c| matches!(c, ' ' | '\t'));
        match rest.next() {
            Some('-') => rest.next() == Some(&'p') && matches!(rest.next(), Some(' ' | '\t')),
            _ => true,
        }
    }

    fn command(&mut self, stdin: SshStdin) -> Read<Assigned> {
        let from = self.found.programs.len();
        match self.keyword() {
            None if self.peek() == Some('(') => {
                if self.peek_at(1) == Some('(') {
                    // Arithmetic to some, two subshells to others.
                    return Err(Fault);
                }
                self.at += 1;
                let before = self.pending.len();
                self.deeper(|parser| parser.list(&[Stop::Close], stdin))?;
                if self.pending.len() != before {
                    return Err(Fault);
                }
            }
            None => return self.simple(stdin),
            Some(word @ ("{" | "if" | "while" | "until" | "for" | "select" | "case")) => {
                self.at += word.len();
                self.deeper(|parser| parser.compound(word, stdin))?;
            }
            Some("function") => {
                self.at += "function".len();
                self.blanks()?;
                self.function_name()?;
                self.blanks()?;
                if self.take("(") {
                    self.blanks()?;
                    if !self.take(")") {
                        return Err(Fault);
                    }
                }
                self.function()?;
                return Ok(None);
            }
            Some(_) => return Err(Fault),
        }
        let mut redirects = Redirects::default();
        loop {
            self.blanks()?;
            if !self.redirect(&mut redirects)? {
                break;
            }
        }
        self.found.redirect_all(from, &redirects);
        Ok(None)
    }

    fn function_name(&mut self) -> Read<String> {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| !ends_word(*c)) {
            if matches!(c, '\'' | '"' | '$' | '`' | '\\') {
                return Err(Fault);
            }
            name.push(c);
            self.at += 1;
        }
        match name.is_empty() {
            true => Err(Fault),
            false => Ok(name),
        }
    }

    /// A function's body: it may run, on whatever its caller gives it.
    fn function(&mut self) -> Read<()> {
        self.blank_lines()?;
        let from = self.found.programs.len();
        if self.found.entered {
            // It stays, and other lines may call it.
            self.found.opaque();
        }
        self.deeper(|parser| parser.command(SshStdin::Unknown))?;
        self.found.settle(from);
        Ok(())
    }

    fn compound(&mut self, word: &str, stdin: SshStdin) -> Read<()> {
        let then = [Stop::Word("then")];
        match word {
            "{" => {
                if !matches!(self.peek(), Some(' ' | '\t' | '\n')) {
                    return Err(Fault);
                }
                self.list(&[Stop::Word("}")], stdin)?;
            }
            "if" => {
                self.list(&then, stdin)?;
                loop {
                    let stops = [Stop::Word("elif"), Stop::Word("else"), Stop::Word("fi")];
                    match self.list(&stops, stdin)? {
                        Stop::Word("elif") => {
                            self.list(&then, stdin)?;
                        }
                        Stop::Word("else") => {
                            self.list(&[Stop::Word("fi")], stdin)?;
                            break;
                        }
                        _ => break,
                    }
                }
            }
            "while" | "until" => {
                self.list(&[Stop::Word("do")], stdin)?;
                self.list(&[Stop::Word("done")], stdin)?;
            }
            "case" => self.cases(stdin)?,
            _ => {
                self.blanks()?;
                if !self.peek().is_some_and(begins_name) {
                    return Err(Fault);
                }
                let name = self.name();
                self.found.assigns(&name);
                self.blank_lines()?;
                if self.take_keyword("in") {
                    loop {
                        self.blanks()?;
                        match self.peek() {
                            Some(';' | '\n') => break,
                            None => return Err(Fault),
                            Some('<' | '>') if self.peek_at(1) == Some('(') => {
                                self.take_substitution()?;
                            }
                            Some(c) if ends_word(c) => return Err(Fault),
                            Some(_) => {
                                self.word(false)?;
                            }
                        }
                    }
                }
                self.blanks()?;
                self.take(";");
                self.blank_lines()?;
                if !self.take_keyword("do") {
                    return Err(Fault);
                }
                self.list(&[Stop::Word("done")], stdin)?;
            }
        }
        Ok(())
    }

    fn cases(&mut self, stdin: SshStdin) -> Read<()> {
        self.blanks()?;
        self.word(true)?;
        self.blank_lines()?;
        if !self.take_keyword("in") {
            return Err(Fault);
        }
        loop {
            self.blank_lines()?;
            if self.take_keyword("esac") {
                return Ok(());
            }
            self.take("(");
            loop {
                self.blanks()?;
                if self.peek().is_none_or(ends_word) {
                    return Err(Fault);
                }
                self.word(true)?;
                self.blanks()?;
                match self.next() {
                    Some('|') => {}
                    Some(')') => break,
                    _ => return Err(Fault),
                }
            }
            let stops = [Stop::Case, Stop::Word("esac")];
            if self.list(&stops, stdin)? == Stop::Word("esac") {
                return Ok(());
            }
        }
    }

    fn simple(&mut self, stdin: SshStdin) -> Read<Assigned> {
        let mut fields: Vec<Field> = Vec::new();
        let mut words = 0_usize;
        let mut redirects = Redirects::default();
        let mut assigned = Vec::new();
        let start = self.at;
        loop {
            self.blanks()?;
            if self.redirect(&mut redirects)? {
                continue;
            }
            match self.peek() {
                None | Some(';' | '&' | '|' | '\n' | ')') => break,
                Some('(') => {
                    // `name ()`
                    let named = matches!(fields.as_slice(), [Some(_)]) && words == 1;
                    if !named || !redirects.is_empty() || !assigned.is_empty() {
                        return Err(Fault);
                    }
                    self.at += 1;
                    self.blanks()?;
                    if !self.take(")") {
                        return Err(Fault);
                    }
                    self.function()?;
                    return Ok(None);
                }
                Some('<' | '>') => {
                    // A process substitution: a file that has a name when it runs.
                    if self.peek_at(1) != Some('(') {
                        return Err(Fault);
                    }
                    self.take_substitution()?;
                    fields.push(None);
                    words += 1;
                }
                Some(_) if words == 0 && self.begins_assignment() => {
                    let name = self.name();
                    let adds = self.take("+");
                    self.at += 1;
                    let value = match self.peek() {
                        Some(c) if !ends_word(c) => self.word(true)?.whole(),
                        // An array.
                        Some('(') => return Err(Fault),
                        _ => Some(String::new()),
                    };
                    self.found.assigns(&name);
                    assigned.push((name, value.filter(|_| !adds)));
                }
                Some(c) => {
                    if words == 0 && matches!(c, '=' | '%') {
                        return Err(Fault);
                    }
                    let word = self.word(false)?;
                    fields.extend(word.fields());
                    words += 1;
                }
            }
        }
        if self.at == start {
            return Err(Fault);
        }
        if words > 0 {
            // It holds for this command alone.
            self.found.run(&fields, stdin, redirects);
            return Ok(None);
        }
        let only = match assigned.as_slice() {
            [(name, Some(value))] if redirects.is_empty() && is_name(name) => {
                Some((name.clone(), value.clone()))
            }
            _ => None,
        };
        if !redirects.is_empty() {
            let from = self.found.programs.len();
            self.found.redirect_all(from, &redirects);
        }
        Ok(only)
    }

    fn begins_assignment(&self) -> bool {
        if !self.peek().is_some_and(begins_name) {
            return false;
        }
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let mut after = rest
            .iter()
            .skip_while(|c| c.is_ascii_alphanumeric() || **c == '_');
        match after.next() {
            Some('=') => true,
            Some('+') => after.next() == Some(&'='),
            _ => false,
        }
    }
}
