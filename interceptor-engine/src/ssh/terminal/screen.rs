//! The screen that a session's output draws.

use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vt100::{Color, Parser};

/// Largest terminal, in rows and columns: what is larger is drawn on this.
const ROWS: u32 = 256;
const COLUMNS: u32 = 1024;

/// The line that the cursor is in, over the rows that it was wrapped to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Left of the cursor.
    pub(super) before: String,
    /// From the cursor on, without blanks at the end.
    pub(super) after: String,
    /// Whether some of `after` is drawn otherwise than text is: a suggestion.
    pub(super) suggests: bool,
}

/// A screen.
pub(super) struct Screen {
    /// `None` once it could not be drawn.
    parser: Option<Parser>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What stands there is nobody's business.
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

fn size(rows: u32, columns: u32) -> (NonZeroU16, NonZeroU16) {
    let within = |number: u32, most: u32| {
        let number = u16::try_from(number.clamp(2, most)).unwrap_or(24);
        NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
    };
    // None is said by agents that do not know.
    let rows = if rows == 0 { 24 } else { rows };
    let columns = if columns == 0 { 80 } else { columns };
    (within(rows, ROWS), within(columns, COLUMNS))
}

impl Screen {
    pub(super) fn new(rows: u32, columns: u32) -> Self {
        let (rows, columns) = size(rows, columns);
        Self {
            parser: Some(Parser::new(rows, columns, 0)),
        }
    }

    pub(super) fn resize(&mut self, rows: u32, columns: u32) {
        let (rows, columns) = size(rows, columns);
        self.drawn(|parser| parser.set_size(rows, columns));
    }

    /// Draws; whether the alternate screen was left meanwhile.
    pub(super) fn show(&mut self, bytes: &[u8]) -> bool {
        let mut left = false;
        // A sequence at a time, so that no cut of the bytes hides one.
        let mut rest = bytes;
        while !rest.is_empty() {
            let next = rest.iter().skip(1).position(|byte| *byte == 0x1b);
            let end = next.map_or(rest.len(), |next| next + 1);
            let (part, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let before = self.is_alternate();
            self.drawn(|parser| parser.process(part));
            left |= before && !self.is_alternate();
            rest = after;
        }
        left
    }

    /// The library is not this one's: what it cannot draw is not known.
    fn drawn(&mut self, draw: impl FnOnce(&mut Parser)) {
        if let Some(mut parser) = self.parser.take() {
            let drawn = catch_unwind(AssertUnwindSafe(|| {
                draw(&mut parser);
                parser
            }));
            self.parser = drawn.ok();
        }
    }

    pub(super) fn is_alternate(&self) -> bool {
        let parser = self.parser.as_ref();
        parser.is_some_and(|parser| parser.screen().alternate_screen())
    }

    /// The line that the cursor is in.
    pub(super) fn line(&self) -> Shown {
        let Some(parser) = &self.parser else {
            return Shown {
                suggests: true,
                ..Shown::default()
            };
        };
        let screen = parser.screen();
        let (row, column) = screen.cursor_position();
        let columns = screen.size().1.get();
        let rows = screen.size().0.get();
        let mut first = row;
        while first > 0 && screen.row_wrapped(first - 1) {
            first -= 1;
        }
        let mut last = row;
        while last + 1 < rows && screen.row_wrapped(last) {
            last += 1;
        }
        let mut shown = Shown::default();
        for at in first..=last {
            for cell in 0..columns {
                let behind = (at, cell) >= (row, column);
                let into = match behind {
                    true => &mut shown.after,
                    false => &mut shown.before,
                };
                let Some(cell) = screen.cell(at, cell) else {
                    continue;
                };
                if cell.is_wide_continuation() {
                    continue;
                }
                match cell.has_contents() {
                    true => into.push_str(cell.contents()),
                    false => into.push(' '),
                }
                let styled = cell.fgcolor() != Color::Default || cell.dim();
                shown.suggests |= behind && cell.has_contents() && styled;
            }
        }
        shown.after.truncate(shown.after.trim_end().len());
        shown
    }
}
