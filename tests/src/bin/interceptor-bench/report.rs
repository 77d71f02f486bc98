//! Medians, ratios, JSON.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::roads::Road;

/// Every measurement, by load and road.
pub(crate) struct Report {
    loads: Vec<Measured>,
}

struct Measured {
    name: String,
    unit: &'static str,
    by_road: BTreeMap<Road, Vec<f64>>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { loads: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &str, unit: &'static str, road: Road, value: f64) {
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

    /// A load that is done, as it stands.
    pub(crate) fn print_load(&self, name: &str) {
        if let Some(load) = self.loads.iter().find(|load| load.name == name) {
            println!("{}", HEAD);
            load.print();
        }
    }

    /// All of it.
    pub(crate) fn print_table(&self) {
        println!("\nMedians. Ratios above 1 are faster than what they are compared with.\n{HEAD}");
        for load in &self.loads {
            load.print();
        }
    }

    pub(crate) fn write_json(&self, path: &Path, memory: &[String]) -> Result<()> {
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
        let all = json!({ "loads": loads, "memory": memory });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

const HEAD: &str = "load                                 road              median unit   /direct  /pgbouncer  /copy";

impl Measured {
    fn print(&self) {
        let of = |road| self.by_road.get(&road).and_then(|values| median(values));
        for (road, values) in &self.by_road {
            let Some(value) = median(values) else {
                continue;
            };
            let ratio = |to| match of(to) {
                Some(base) if base > 0.0 => format!("{:.2}", value / base),
                _ => "-".to_owned(),
            };
            println!(
                "{:36} {road:13} {value:>10.1} {:6} {:>7} {:>11} {:>6}",
                self.name,
                self.unit,
                ratio(Road::Direct),
                ratio(Road::Pgbouncer),
                ratio(Road::Copy)
            );
        }
    }
}

fn median(values: &[f64]) -> Option<f64> {
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
