//! Prometheus's text format (version 0.0.4).
//!
//! Written here, since what is served are numbers that others count: a library's registry of
//! counters of its own would hold each of them twice.

use std::fmt::Write as _;

/// What serves this format says it so.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// What only grows; its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Metric<'_> {
        self.metric(name, help, "counter")
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Metric<'_> {
        self.metric(name, help, "gauge")
    }

    fn metric(&mut self, name: &str, help: &str, kind: &str) -> Metric<'_> {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric {
            out: &mut self.0,
            name: name.to_owned(),
        }
    }

    /// Its text.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A metric, and its values.
pub(super) struct Metric<'a> {
    out: &'a mut String,
    name: String,
}

impl Metric<'_> {
    /// A value without labels.
    pub(super) fn is(&mut self, value: impl Into<f64>) {
        self.of(&[], value);
    }

    /// A whole number.
    pub(super) fn count(&mut self, value: u64) {
        self.count_of(&[], value);
    }

    /// A value with labels.
    pub(super) fn of(&mut self, labels: &[(&str, &str)], value: impl Into<f64>) {
        let value: f64 = value.into();
        self.line(labels, &value.to_string());
    }

    /// A whole number with labels.
    pub(super) fn count_of(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line(labels, &value.to_string());
    }

    fn line(&mut self, labels: &[(&str, &str)], value: &str) {
        self.out.push_str(&self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{name}=\"");
            for one in value.chars() {
                match one {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    one => self.out.push(one),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.gauge("up", "Whether it is.")
            .of(&[("a", "x\"\\\ny"), ("b", "")], 1);
        assert_eq!(
            page.into_text(),
            "# HELP up Whether it is.\n# TYPE up gauge\nup{a=\"x\\\"\\\\\\ny\",b=\"\"} 1\n"
        );
    }
}
