//! `cargo xtask ci`: what a change must hold to, beside its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::ebpf;
use crate::install::{self, Need};
use crate::shell;

/// Check what a change must hold to: formatting, lints, licences, layering.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask ci")]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<()> {
    install::install(&[Need::Build, Need::Deny])?;
    shell::step("Layering: who may know whom");
    layering()?;
    shell::step("The kernel programs' object is what their source says");
    ebpf::run(ebpf::Args {
        check: true,
        install: false,
    })?;
    shell::step("Formatting");
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    for apart in [
        "interceptor-ebpf",
        "interceptor-engine/fuzz",
        "interceptor-proto/fuzz",
    ] {
        let manifest = shell::root().join(apart).join("Cargo.toml");
        let fmt = ["fmt", "--check", "--manifest-path"];
        shell::run(shell::cargo().args(fmt).arg(manifest))?;
    }
    shell::step("Lints");
    shell::run(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    shell::step("Licences, sources, duplicates and advisories of dependencies");
    deny()
}

fn deny() -> Result<()> {
    let deny = |checks: &[&str]| {
        let mut deny = Command::new(install::cargo_deny_path());
        deny.current_dir(shell::root())
            .args(["--all-features", "check", "--hide-inclusion-graph"])
            .args(checks);
        deny
    };
    shell::run(&mut deny(&["bans", "licenses", "sources"]))?;
    if advisories_can_be_had() {
        return shell::run(&mut deny(&["advisories"]));
    }
    println!(
        "\n!! NOT CHECKED: advisories. The database (github.com/rustsec/advisory-db) cannot be \
         reached from here\n!! and no copy of it is on this machine. Run `cargo xtask ci` where it can."
    );
    Ok(())
}

fn advisories_can_be_had() -> bool {
    let Ok(mut addresses) = ("github.com", 443).to_socket_addrs() else {
        return false;
    };
    addresses.any(|address| {
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok()
    })
}

/// What `cargo metadata` says, as far as it is read here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    optional: bool,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// What each crate must never reach, by any road that is built into a program.
const NEVER: &[(&str, &[&str])] = &[
    (
        "interceptor-proto",
        &[
            "interceptor-policy",
            "interceptor-engine",
            "tokio",
            "aya",
            "redis",
        ],
    ),
    (
        "interceptor-policy",
        &[
            "interceptor-proto",
            "interceptor-engine",
            "tokio",
            "aya",
            "redis",
        ],
    ),
    (
        "interceptor-engine",
        &["interceptor-user", "tokio", "aya", "redis"],
    ),
    (
        "xtask",
        &[
            "interceptor-common",
            "interceptor-proto",
            "interceptor-policy",
            "interceptor-engine",
            "interceptor-user",
        ],
    ),
];

fn layering() -> Result<()> {
    let metadata = shell::output(shell::cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--all-features",
        "--locked",
    ]))?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("reading what `cargo metadata` says")?;
    let mut faults = Vec::new();
    for member in members(&metadata) {
        let manifest = std::fs::read_to_string(&member.manifest_path)
            .with_context(|| format!("reading {}", member.manifest_path))?;
        if !inherits_lints(&manifest) {
            faults.push(format!("{}: no `[lints] workspace = true`", member.name));
        }
    }
    faults.extend(forbidden(&metadata, NEVER));
    let common = members(&metadata).find(|member| member.name == "interceptor-common");
    for dependency in common.iter().flat_map(|common| &common.dependencies) {
        if dependency.kind.is_none() && !dependency.optional {
            faults.push(format!(
                "interceptor-common must depend on nothing, and depends on {}",
                dependency.name
            ));
        }
    }
    for name in [
        "interceptor-proto",
        "interceptor-policy",
        "interceptor-engine",
    ] {
        let clippy = shell::root().join(name).join("clippy.toml");
        if !bans_the_clock(&clippy) {
            faults.push(format!("{name}: its clippy.toml does not ban the clock"));
        }
    }
    if faults.is_empty() {
        println!("every crate keeps to its place");
        return Ok(());
    }
    bail!("{}", faults.join("\n"))
}

fn members(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let members: BTreeSet<&str> = metadata
        .workspace_members
        .iter()
        .map(String::as_str)
        .collect();
    metadata
        .packages
        .iter()
        .filter(move |package| members.contains(package.id.as_str()))
}

/// Whether a manifest takes the workspace's lints.
fn inherits_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.replace(' ', "") == "workspace=true")
}

fn bans_the_clock(clippy_toml: &Path) -> bool {
    std::fs::read_to_string(clippy_toml).is_ok_and(|text| {
        text.contains("std::time::Instant::now") && text.contains("std::time::SystemTime::now")
    })
}

/// Which of `rules` are broken, each with the road that breaks it.
fn forbidden(metadata: &Metadata, rules: &[(&str, &[&str])]) -> Vec<String> {
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut faults = Vec::new();
    for (member, never) in rules {
        let Some(start) = members(metadata).find(|package| package.name == *member) else {
            faults.push(format!("{member}: no such crate in this workspace"));
            continue;
        };
        let mut seen = BTreeSet::from([start.id.as_str()]);
        let mut roads = vec![(start.id.as_str(), (*member).to_owned())];
        while let Some((id, road)) = roads.pop() {
            let dependencies = nodes.get(id).map_or(&[][..], |node| &node.deps);
            for dependency in dependencies {
                let built_in = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
                let Some(name) = names.get(dependency.pkg.as_str()) else {
                    continue;
                };
                if !built_in || !seen.insert(&dependency.pkg) {
                    continue;
                }
                let road = format!("{road} -> {name}");
                if never.contains(name) {
                    faults.push(format!("{member} must not reach {name}: {road}"));
                }
                roads.push((&dependency.pkg, road));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(json: &str) -> Metadata {
        serde_json::from_str(json).unwrap()
    }

    /// a -> b -> tokio, and a -> redis for tests alone.
    const SMALL: &str = r#"{
        "workspace_members": ["a"],
        "packages": [
            {"id": "a", "name": "a", "manifest_path": "", "dependencies": []},
            {"id": "b", "name": "b", "manifest_path": "", "dependencies": []},
            {"id": "t", "name": "tokio", "manifest_path": "", "dependencies": []},
            {"id": "r", "name": "redis", "manifest_path": "", "dependencies": []}
        ],
        "resolve": {"nodes": [
            {"id": "a", "deps": [
                {"pkg": "b", "dep_kinds": [{"kind": null}]},
                {"pkg": "r", "dep_kinds": [{"kind": "dev"}]}
            ]},
            {"id": "b", "deps": [{"pkg": "t", "dep_kinds": [{"kind": null}]}]},
            {"id": "t", "deps": []},
            {"id": "r", "deps": []}
        ]}
    }"#;

    #[test]
    fn a_crate_that_is_reached_by_way_of_another_is_found_with_its_road() {
        let faults = forbidden(&metadata(SMALL), &[("a", &["tokio"])]);
        assert_eq!(faults, ["a must not reach tokio: a -> b -> tokio"]);
    }

    #[test]
    fn what_only_tests_use_breaks_no_rule() {
        assert!(forbidden(&metadata(SMALL), &[("a", &["redis"])]).is_empty());
    }

    #[test]
    fn a_rule_about_a_crate_that_is_gone_is_itself_a_fault() {
        assert_eq!(forbidden(&metadata(SMALL), &[("z", &[])]).len(), 1);
    }

    #[test]
    fn lints_count_only_in_their_own_section() {
        assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nworkspace = true\n"));
        assert!(!inherits_lints("[lints]\n\n[other]\nworkspace = true\n"));
    }
}
