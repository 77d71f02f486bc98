//! Words: quotes and expansions.

use interceptor_policy::operation::ssh::SshStdin;

use super::grammar::Parser;
use super::{DEPTH_LIMIT, Fault, Field, Read, WORK_LIMIT};

/// A word as it is put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    /// What is known of it, without quotes.
    pub(super) text: String,
    /// Where a constant that is not quoted has blanks, the word is several.
    split: Vec<String>,
    /// Whether some of it is not known.
    pub(super) unknown: bool,
    /// Whether something that is not quoted may stand for other texts in it: a
    /// pattern, braces, a tilde. In an assignment it does not.
    pattern: bool,
    /// Whether there are neither quotes nor expansions in it.
    pub(super) bare: bool,
    quoted: bool,
}

impl Word {
    fn put(&mut self, c: char) {
        self.text.push(c);
    }

    /// Its fields. A word that has an expansion alone, and that empty, is none.
    pub(super) fn fields(mut self) -> Vec<Field> {
        if self.unknown || self.pattern {
            return vec![None];
        }
        if !self.text.is_empty() || self.quoted {
            self.split.push(self.text);
        }
        self.split.into_iter().map(Some).collect()
    }

    /// Its one text, where that is certain and nothing is split or expanded.
    pub(super) fn whole(&self) -> Option<String> {
        let certain = !self.unknown && self.split.is_empty();
        certain.then(|| self.text.clone())
    }
}

/// What ends a word where it is not quoted.
pub(super) fn ends_word(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')'
    )
}

/// Whether it may begin a variable's name.
pub(super) fn begins_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(begins_name) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Parser<'_> {
    /// A word; its first character is not one that ends it. `value`: of an
    /// assignment, where nothing is split and no pattern expanded.
    pub(super) fn word(&mut self, value: bool) -> Read<Word> {
        let mut word = Word {
            bare: true,
            ..Word::default()
        };
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                '<' | '>' if self.peek_at(1) == Some('(') && self.at > start => {
                    // A process substitution inside of a word.
                    self.take_substitution()?;
                    word.unknown = true;
                    word.bare = false;
                }
                c if ends_word(c) => break,
                '\'' => {
                    self.single(&mut word.text)?;
                    (word.quoted, word.bare) = (true, false);
                }
                '"' => {
                    self.at += 1;
                    self.double(&mut word)?;
                    (word.quoted, word.bare) = (true, false);
                }
                '\\' => {
                    word.bare = false;
                    self.at += 1;
                    match self.next() {
                        None => return Err(Fault),
                        Some('\n') => {}
                        // To some shells a letter by its number.
                        Some('x' | 'X' | 'u' | 'U' | 'c' | '0'..='9') => return Err(Fault),
                        Some(c) => {
                            word.quoted = true;
                            word.put(c);
                        }
                    }
                }
                '$' => {
                    word.bare = false;
                    self.dollar(&mut word, false, value)?;
                }
                '`' => {
                    word.bare = false;
                    self.backtick(false)?;
                    word.unknown = true;
                }
                '!' if self.expands_history() => return Err(Fault),
                '~' if self.is_tilde(start, value) => {
                    word.unknown = true;
                    self.at += 1;
                }
                '*' | '?' => {
                    word.pattern |= !value;
                    word.put(c);
                    self.at += 1;
                }
                '[' => {
                    word.pattern |= !value && !self.is_bracket_alone();
                    word.put(c);
                    self.at += 1;
                }
                '{' => {
                    // Braces expand in some shells, and are read over in others;
                    // `{}` is nothing but what `find` replaces.
                    let literal = match self.peek_at(1) {
                        Some(c) => c == '}' || ends_word(c),
                        None => true,
                    };
                    word.unknown |= !literal && !value;
                    word.put(c);
                    self.at += 1;
                }
                c => {
                    word.put(c);
                    self.at += 1;
                }
            }
        }
        Ok(word)
    }

    /// Whether a `~` stands where it is expanded.
    fn is_tilde(&self, start: usize, value: bool) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at));
        self.at == start || value || matches!(before, Some('=' | ':'))
    }

    /// Whether it is `[` or `[[`, or the end of a word, and begins no pattern.
    fn is_bracket_alone(&self) -> bool {
        let ends = |ahead: usize| self.peek_at(ahead).is_none_or(ends_word);
        ends(1) || self.peek_at(1) == Some('[') && ends(2)
    }

    /// Whether an interactive shell puts an earlier line in the place of this.
    fn expands_history(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at));
        let after = self.peek_at(1);
        self.found.entered
            && !matches!(before, Some('$' | '{'))
            && !matches!(after, None | Some(' ' | '\t' | '\n' | '=' | '('))
    }

    /// `'…'`, to the character behind it.
    fn single(&mut self, into: &mut String) -> Read<()> {
        self.at += 1;
        loop {
            match self.next().ok_or(Fault)? {
                '\'' => return Ok(()),
                // To some shells the quote goes on behind it.
                '\\' if self.peek() == Some('\'') => return Err(Fault),
                c => into.push(c),
            }
        }
    }

    /// The inside of `"…"`, to the character behind it.
    pub(super) fn double(&mut self, word: &mut Word) -> Read<()> {
        loop {
            match self.peek().ok_or(Fault)? {
                '"' => {
                    self.at += 1;
                    return Ok(());
                }
                '\\' => {
                    self.at += 1;
                    match self.next().ok_or(Fault)? {
                        '\n' => {}
                        c @ ('$' | '`' | '"' | '\\') => word.put(c),
                        c => {
                            word.put('\\');
                            word.put(c);
                        }
                    }
                }
                '$' => self.dollar(word, true, false)?,
                '`' => {
                    self.backtick(true)?;
                    word.unknown = true;
                }
                '!' if self.peek_at(1) != Some('"') && self.expands_history() => {
                    return Err(Fault);
                }
                c => {
                    word.put(c);
                    self.at += 1;
                }
            }
        }
    }

    /// What begins with a `$`.
    pub(super) fn dollar(&mut self, word: &mut Word, quoted: bool, value: bool) -> Read<()> {
        self.at += 1;
        let Some(c) = self.peek() else {
            word.put('$');
            return Ok(());
        };
        match c {
            '(' if self.peek_at(1) == Some('(') => {
                self.arithmetic()?;
                word.unknown = true;
            }
            '(' => {
                self.at += 1;
                self.nested()?;
                word.unknown = true;
            }
            '{' => {
                self.at += 1;
                self.braces(word, quoted, value)?;
            }
            // Old arithmetic, to some.
            '[' => return Err(Fault),
            '\'' if !quoted => {
                let mut inside = String::new();
                self.single(&mut inside)?;
                // Escapes in it mean something to some shells and nothing to others.
                word.unknown = true;
            }
            '"' if !quoted => {
                self.at += 1;
                self.double(word)?;
                word.unknown = true;
            }
            c if begins_name(c) => {
                let name = self.name();
                self.variable(&name, word, quoted, value);
            }
            c if c.is_ascii_digit() || "@*#?$!-".contains(c) => {
                self.at += 1;
                word.unknown = true;
            }
            _ => word.put('$'),
        }
        Ok(())
    }

    pub(super) fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .peek()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn variable(&mut self, name: &str, word: &mut Word, quoted: bool, value: bool) {
        let Some(known) = self.found.known.get(name) else {
            word.unknown = true;
            return;
        };
        // Values that are made of values grow faster than the line.
        self.found.work = self.found.work.saturating_add(known.len());
        if self.found.work > WORK_LIMIT {
            word.unknown = true;
            return;
        }
        if quoted || value {
            word.text.push_str(known);
            word.quoted |= quoted;
            return;
        }
        if known.contains(['*', '?', '[', '\\', '~', '{']) {
            word.unknown = true;
            return;
        }
        for c in known.chars() {
            if matches!(c, ' ' | '\t' | '\n') {
                if !word.text.is_empty() {
                    word.split.push(std::mem::take(&mut word.text));
                }
            } else {
                word.text.push(c);
            }
        }
        if known.ends_with([' ', '\t', '\n']) && !word.text.is_empty() {
            word.split.push(std::mem::take(&mut word.text));
        }
    }

    /// `${…}`, behind its first brace.
    fn braces(&mut self, word: &mut Word, quoted: bool, value: bool) -> Read<()> {
        if self.peek().is_some_and(begins_name) {
            let from = self.at;
            let name = self.name();
            if self.peek() == Some('}') {
                self.at += 1;
                self.variable(&name, word, quoted, value);
                return Ok(());
            }
            self.at = from;
        }
        word.unknown = true;
        while let Some(c) = self.peek().filter(|c| matches!(c, '#' | '!')) {
            if c == '!' && self.peek_at(1) == Some('}') {
                break;
            }
            if c == '!' {
                // The name is in a variable, and may have a subscript.
                return Err(Fault);
            }
            self.at += 1;
        }
        let special = self.peek().filter(|c| "@*?$-!0123456789".contains(*c));
        match special {
            Some(_) => self.at += 1,
            None => {
                if self.name().is_empty() {
                    return match self.peek() {
                        Some('}') => {
                            self.at += 1;
                            Ok(())
                        }
                        // Flags, which may run code.
                        _ => Err(Fault),
                    };
                }
            }
        }
        if self.peek() == Some('[') {
            // A subscript is arithmetic, and that may run code.
            self.at += 1;
            let from = self.at;
            while self
                .peek()
                .is_some_and(|c| c.is_ascii_digit() || matches!(c, '@' | '*'))
            {
                self.at += 1;
            }
            if self.at == from || self.next() != Some(']') {
                return Err(Fault);
            }
        }
        match (self.peek(), self.peek_at(1)) {
            (Some(':'), Some('-' | '=' | '?' | '+')) => self.at += 2,
            // Offsets are arithmetic.
            (Some(':'), Some(c)) if c.is_ascii_digit() || c == ' ' => self.at += 1,
            (Some(':' | '@'), _) => return Err(Fault),
            _ => {}
        }
        self.inside_braces(quoted)
    }

    /// The word of `${x:-word}`, to behind the brace.
    fn inside_braces(&mut self, quoted: bool) -> Read<()> {
        let mut lost = Word::default();
        self.deeper(|parser| {
            loop {
                match parser.peek().ok_or(Fault)? {
                    '}' => {
                        parser.at += 1;
                        return Ok(());
                    }
                    // Quoted in one shell is not in another.
                    '\'' if quoted => return Err(Fault),
                    '\'' => parser.single(&mut lost.text)?,
                    '"' if quoted => return Err(Fault),
                    '"' => {
                        parser.at += 1;
                        parser.double(&mut lost)?;
                    }
                    '\\' => {
                        parser.at += 1;
                        parser.next().ok_or(Fault)?;
                    }
                    '$' => parser.dollar(&mut lost, quoted, false)?,
                    '`' => parser.backtick(quoted)?,
                    '{' | '\n' => return Err(Fault),
                    '<' | '>' if parser.peek_at(1) == Some('(') => return Err(Fault),
                    '!' if parser.expands_history() => return Err(Fault),
                    _ => parser.at += 1,
                }
            }
        })
    }

    /// `$((…))`. A variable in it is read as an expression, which may run code.
    fn arithmetic(&mut self) -> Read<()> {
        self.at += 2;
        loop {
            match self.next().ok_or(Fault)? {
                ')' if self.peek() == Some(')') => {
                    self.at += 1;
                    return Ok(());
                }
                c if c.is_ascii_digit() || " +-*/%<>=?:~^|&,".contains(c) => {}
                _ => return Err(Fault),
            }
        }
    }

    /// A command substitution in backticks, to behind it.
    pub(super) fn backtick(&mut self, quoted: bool) -> Read<()> {
        self.at += 1;
        let mut code = String::new();
        loop {
            match self.next().ok_or(Fault)? {
                '`' => break,
                '\\' => match self.next().ok_or(Fault)? {
                    c @ ('`' | '\\' | '$') => code.push(c),
                    '"' if quoted => code.push('"'),
                    c => {
                        code.push('\\');
                        code.push(c);
                    }
                },
                c => code.push(c),
            }
        }
        self.found.within(&code, SshStdin::Unknown);
        Ok(())
    }

    /// `<(…)` or `>(…)`, to behind it.
    pub(super) fn take_substitution(&mut self) -> Read<()> {
        self.at += 2;
        self.nested()
    }

    /// One level deeper.
    pub(super) fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.found.depth >= DEPTH_LIMIT {
            return Err(Fault);
        }
        self.found.depth += 1;
        let read = inside(self);
        self.found.depth = self.found.depth.saturating_sub(1);
        read
    }
}
