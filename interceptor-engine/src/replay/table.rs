//! Rows laid out as `psql` lays them out.

use unicode_width::UnicodeWidthChar as _;

use super::escape;
use super::pg::value::{Shown, is_number, show};
use super::pg::{Column, Frame};

/// Characters of a value that are kept, whatever the terminal's width.
const CELL_LIMIT: usize = 1000;

/// No column is cut narrower than this.
const NARROWEST: usize = 8;

/// The answer to one exchange, as much of it as is shown.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The columns, where they are known.
    pub columns: Vec<Column>,
    /// The first rows; `None` is NULL.
    rows: Vec<Vec<Option<String>>>,
    /// The first lines of a `COPY … TO STDOUT`.
    copied: Vec<String>,
    /// Rows in all.
    row_count: u64,
    copy_bytes: u64,
    copy_frames: u64,
    oversized: u64,
    /// The columns were known before; the answer may bring them itself.
    is_expected: bool,
}

impl Table {
    /// A table without rows, whose columns were described before.
    #[must_use]
    pub fn described(columns: Vec<Column>) -> Self {
        Self {
            columns,
            is_expected: true,
            ..Self::default()
        }
    }

    /// Takes a frame; rows after the first `limit` are only counted.
    pub fn push(&mut self, frame: &Frame<'_>, limit: usize) {
        match frame {
            Frame::Columns(columns) => {
                self.columns.clone_from(columns);
                self.is_expected = false;
            }
            Frame::Row(values) => {
                self.row_count += 1;
                if self.rows.len() < limit {
                    let unknown = Column::default();
                    let cells = values.iter().enumerate().map(|(index, value)| {
                        let column = self.columns.get(index).unwrap_or(&unknown);
                        value.map(|value| cell(column, value))
                    });
                    let cells = cells.collect();
                    self.rows.push(cells);
                }
            }
            Frame::Copy(bytes) => {
                self.copy_frames += 1;
                self.copy_bytes += bytes.len() as u64;
                if self.copied.len() < limit {
                    let text = match std::str::from_utf8(bytes) {
                        Ok(text) => limited(&escape::line(text.trim_end_matches('\n'))),
                        Err(_) => format!("({} bytes)", bytes.len()),
                    };
                    self.copied.push(text);
                }
            }
            Frame::Oversized(_) => {
                self.row_count += 1;
                self.oversized += 1;
            }
            Frame::Other => {}
        }
    }

    /// Whether there is anything to lay out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let no_columns = self.columns.is_empty() || self.is_expected;
        no_columns && self.row_count == 0 && self.copy_frames == 0
    }

    /// Lays it out in at most `width` columns, where there is a width.
    #[must_use]
    pub fn lay_out(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        if self.is_empty() {
            return out;
        }
        if !self.columns.is_empty() || !self.rows.is_empty() {
            self.lay_out_rows(width, &mut out);
        }
        for line in &self.copied {
            out.push_str(&cut(line, width.unwrap_or(usize::MAX)));
            out.push('\n');
        }
        if self.copy_frames > 0 {
            let more = self.copy_frames - self.copied.len() as u64;
            out.push_str(&format!("({} bytes copied", self.copy_bytes));
            if more > 0 {
                out.push_str(&format!(", {more} more lines not shown"));
            }
            out.push_str(")\n");
        }
        out
    }

    fn lay_out_rows(&self, width: Option<usize>, out: &mut String) {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| limited(&escape::line(&column.name)))
            .collect();
        let count = self
            .rows
            .iter()
            .map(Vec::len)
            .chain([names.len()])
            .max()
            .unwrap_or_default();
        let mut widths: Vec<usize> = (0..count)
            .map(|index| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells
                    .map(|cell| cell.as_deref().map_or(NULL.len(), width_of))
                    .chain(names.get(index).map(|name| width_of(name)))
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        if let Some(width) = width {
            fit(&mut widths, width);
        }

        if !names.is_empty() {
            let centred = names.iter().zip(&widths).map(|(name, &width)| {
                let name = cut(name, width);
                let room = width.saturating_sub(width_of(&name));
                let left = room / 2;
                format!(" {}{name}{} ", " ".repeat(left), " ".repeat(room - left))
            });
            push_line(out, &centred.collect::<Vec<_>>().join("|"));
            let rules = widths.iter().map(|width| "-".repeat(width + 2));
            push_line(out, &rules.collect::<Vec<_>>().join("+"));
        }
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(index, (cell, &width))| {
                let text = cut(cell.as_deref().unwrap_or(NULL), width);
                let room = " ".repeat(width.saturating_sub(width_of(&text)));
                let column = self.columns.get(index);
                if column.is_some_and(|column| is_number(column.type_oid)) {
                    format!(" {room}{text} ")
                } else {
                    format!(" {text}{room} ")
                }
            });
            push_line(out, &cells.collect::<Vec<_>>().join("|"));
        }
        let rows = if self.row_count == 1 { "row" } else { "rows" };
        out.push_str(&format!("({} {rows}", self.row_count));
        let hidden = self.row_count - self.rows.len() as u64;
        if hidden > 0 {
            out.push_str(&format!(", {hidden} not shown"));
        }
        if self.oversized > 0 {
            out.push_str(&format!(", {} too large to show", self.oversized));
        }
        out.push_str(")\n");
    }
}

/// What stands for NULL; an empty text is empty.
const NULL: &str = "NULL";

fn cell(column: &Column, value: &[u8]) -> String {
    match show(column, value) {
        Shown::Text(text) => limited(&escape::line(&text)),
        Shown::Bytes(bytes) => {
            let shown = bytes.get(..CELL_LIMIT / 2).unwrap_or(&bytes);
            let more = if shown.len() < bytes.len() { "…" } else { "" };
            format!("\\x{}{more}", hex::encode(shown))
        }
    }
}

fn limited(text: &str) -> String {
    cut(text, CELL_LIMIT)
}

/// Makes the widest columns narrower until the table fits, or nothing more helps.
fn fit(widths: &mut [usize], width: usize) {
    let borders = (3 * widths.len()).saturating_sub(1);
    let room = width.saturating_sub(borders);
    loop {
        let total: usize = widths.iter().sum();
        let widest = widths.iter().copied().max().unwrap_or_default();
        if total <= room || widest <= NARROWEST {
            return;
        }
        // Down to the next width below, or by what is too much, shared.
        let at_widest = widths.iter().filter(|width| **width == widest).count();
        let next = widths.iter().copied().filter(|width| *width < widest).max();
        let shared = widest.saturating_sub((total - room).div_ceil(at_widest));
        let to = shared.max(next.unwrap_or(0)).max(NARROWEST);
        for width in widths.iter_mut().filter(|width| **width == widest) {
            *width = to;
        }
    }
}

/// How many columns of a terminal `text` takes.
fn width_of(text: &str) -> usize {
    text.chars().map(|char| char.width().unwrap_or(0)).sum()
}

/// The beginning of `text` that takes at most `width` columns, with an ellipsis
/// where something is missing.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut taken = 0;
    for char in text.chars() {
        taken += char.width().unwrap_or(0);
        if taken >= width {
            break;
        }
        out.push(char);
    }
    out.push('…');
    out
}

/// Appends a line without the spaces at its end.
fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end_matches(' '));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, u32)], rows: &[&[Option<&str>]], limit: usize) -> Table {
        let columns = columns.iter().map(|(name, type_oid)| Column {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            binary: Some(false),
        });
        let mut table = Table::described(columns.collect());
        for row in rows {
            let values = row.iter().map(|value| value.map(str::as_bytes)).collect();
            table.push(&Frame::Row(values), limit);
        }
        table
    }

    #[test]
    fn a_table_looks_as_psql_shows_it() {
        let table = table(
            &[("id", 23), ("name", 25), ("漢", 25)],
            &[
                &[Some("1"), Some("Zoë"), None],
                &[Some("1000"), Some(""), Some("字字")],
            ],
            10,
        );
        assert_eq!(
            table.lay_out(None),
            "  id  | name |  漢
------+------+------
    1 | Zoë  | NULL
 1000 |      | 字字
(2 rows)
"
        );
    }

    #[test]
    fn wide_values_are_cut_to_the_width_and_narrow_ones_are_not() {
        let long = "x".repeat(300);
        let table = table(
            &[("id", 23), ("a", 25), ("b", 25)],
            &[&[Some("1"), Some(&long), Some(&long)]],
            10,
        );
        let out = table.lay_out(Some(60));
        for line in out.lines() {
            assert!(width_of(line) <= 60, "{line}");
        }
        assert!(out.contains(" 1 | xxxxxxxxxxxxxxxxx"), "{out}");
        assert!(out.contains('…'));
    }

    #[test]
    fn rows_that_are_not_shown_are_counted() {
        let table = table(&[("a", 25)], &[&[Some("1")], &[Some("2")], &[Some("3")]], 1);
        assert!(table.lay_out(None).ends_with(" 1\n(3 rows, 2 not shown)\n"));
    }

    #[test]
    fn values_cannot_speak_to_the_terminal() {
        let table = table(&[("\x1b[1m", 25)], &[&[Some("\x1b]0;pwned\x07\n")]], 5);
        let out = table.lay_out(Some(80));
        assert!(
            !out.chars().any(|c| c != '\n' && escape::is_obeyed(c)),
            "{out:?}"
        );
        assert!(out.contains("\\x1b]0;pwned\\x07\\n"));
    }
}
