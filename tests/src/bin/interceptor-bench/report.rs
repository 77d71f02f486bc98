//! Medians, ratios, JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

/// Every measurement, by load and road.
pub(crate) struct Report<R: 'static> {
    /// The roads that all others are compared with.
    bases: &'static [R],
    loads: Vec<Measured<R>>,
}

struct Measured<R> {
    name: String,
    unit: &'static str,
    by_road: BTreeMap<R, Vec<f64>>,
}

impl<R: Copy + Ord + fmt::Display> Report<R> {
    /// An empty one.
    pub(crate) fn new(bases: &'static [R]) -> Self {
        Self {
            bases,
            loads: Vec::new(),
        }
    }

    /// Measures a load by all its roads, round after round, and shows what it came to.
    ///
    /// # Errors
    /// What `settle` gives: it is called behind every measurement.
    pub(crate) fn measure(
        &mut self,
        (name, unit): (&str, &'static str),
        rounds: usize,
        roads: &[R],
        measure: impl Fn(R) -> Result<f64>,
        settle: impl Fn(R) -> Result<()>,
    ) -> Result<()> {
        for round in 1..=rounds {
            for road in roads {
                // A road that fails leaves a gap in the table, and the others go on.
                match measure(*road) {
                    Ok(value) => {
                        println!("{name}  {road}  round {round}: {value:.1} {unit}");
                        self.add(name, unit, *road, value);
                    }
                    Err(error) => println!("{name}  {road}  round {round}: FAILED: {error:#}"),
                }
                settle(*road)?;
            }
        }
        self.print_load(name);
        Ok(())
    }

    /// Shows all of it with `lines` of text behind, and writes it where that is asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn finish(&self, lines: &[String], json: Option<&Path>) -> Result<()> {
        self.print_table();
        for line in lines {
            println!("{line}");
        }
        json.map_or(Ok(()), |path| self.write_json(path, lines))
    }

    fn add(&mut self, name: &str, unit: &'static str, road: R, value: f64) {
        if self.loads.last().is_none_or(|last| last.name != name) {
            self.loads.push(Measured {
                name: name.to_owned(),
                unit,
                by_road: BTreeMap::new(),
            });
        }
        if let Some(last) = self.loads.last_mut() {
            last.by_road.entry(road).or_default().push(value);
        }
    }

    /// What a road came to over a load, where it was measured.
    pub(crate) fn median_of(&self, name: &str, road: R) -> Option<f64> {
        let load = self.loads.iter().find(|load| load.name == name)?;
        median(load.by_road.get(&road)?)
    }

    /// What a road came to over each load.
    pub(crate) fn medians(&self, road: R) -> impl Iterator<Item = (&str, f64)> {
        let of = move |load: &Measured<R>| median(load.by_road.get(&road)?);
        let loads = self.loads.iter();
        loads.filter_map(move |load| Some((load.name.as_str(), of(load)?)))
    }

    /// A load that is done, as it stands.
    fn print_load(&self, name: &str) {
        if let Some(load) = self.loads.iter().find(|load| load.name == name) {
            println!("{}", self.head());
            self.print(load);
        }
    }

    /// All of it.
    fn print_table(&self) {
        println!(
            "\nMedians. Ratios above 1 are faster than what they are compared with.\n{}",
            self.head()
        );
        for load in &self.loads {
            self.print(load);
        }
    }

    /// Every measurement, with `lines` of text beside.
    fn write_json(&self, path: &Path, lines: &[String]) -> Result<()> {
        let loads: Vec<_> = self
            .loads
            .iter()
            .map(|load| {
                let roads: BTreeMap<String, _> = load
                    .by_road
                    .iter()
                    .map(|(road, values)| {
                        (
                            road.to_string(),
                            json!({ "median": median(values), "rounds": values }),
                        )
                    })
                    .collect();
                json!({ "load": load.name, "unit": load.unit, "roads": roads })
            })
            .collect();
        let all = json!({ "loads": loads, "also": lines });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    fn head(&self) -> String {
        let mut head = format!("{:36} {:13} {:>10} {:6}", "load", "road", "median", "unit");
        for base in self.bases {
            head.push_str(&format!(" {:>11}", format!("/{base}")));
        }
        head
    }

    fn print(&self, load: &Measured<R>) {
        let of = |road| load.by_road.get(&road).and_then(|values| median(values));
        for (road, values) in &load.by_road {
            let Some(value) = median(values) else {
                continue;
            };
            let mut line = format!("{:36} {road:13} {value:>10.1} {:6}", load.name, load.unit);
            for base in self.bases {
                let ratio = match of(*base) {
                    Some(base) if base > 0.0 => format!("{:.2}", value / base),
                    _ => "-".to_owned(),
                };
                line.push_str(&format!(" {ratio:>11}"));
            }
            println!("{line}");
        }
    }
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    match sorted.len() % 2 {
        1 => Some(upper),
        _ => Some(f64::midpoint(upper, *sorted.get(middle - 1)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
