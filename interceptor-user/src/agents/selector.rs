//! Which cgroup is meant: by its path, a unit of systemd's, a user, a container, a process.
//!
//! Found by the layout of the cgroup tree alone, which systemd and container engines
//! document; none of them is asked, but for names and labels of containers
//! ([`super::engines`]). Folders that belong to anyone but root are neither
//! entered nor believed: whoever owns one can make another in it that is named as they
//! like, and would get another agent's name.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use super::engines::Sought;
use super::place;
use crate::kernel::cgroup;

/// Fewest digits of a container's id.
const SHORTEST_ID: usize = 12;
/// Kinds of units that have a cgroup.
const UNITS: [&str; 3] = [".service", ".slice", ".scope"];

/// How an agent that was not started by `exec` is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// A cgroup's path, at the mount or as `/proc/PID/cgroup` has it.
    Cgroup(String),
    /// A service, slice or scope of systemd's.
    Unit(String),
    /// Everything that a user runs, by name or number.
    User(String),
    /// A container, by its id or the beginning of it, its name, or `label=KEY[=VALUE]`.
    Container(String),
    /// A pod of Kubernetes', by its uid.
    Pod(String),
    /// A process, with those that descend from it.
    Pid(u32),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {path}"),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Container(id) => write!(f, "container {id}"),
            Self::Pod(uid) => write!(f, "pod {uid}"),
            Self::Pid(pid) => write!(f, "pid {pid}"),
        }
    }
}

/// Why a selector names no cgroup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// It never could.
    #[error("{selector}: {why}")]
    Malformed {
        /// What was said.
        selector: Selector,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It does not now.
    #[error("{selector} has no cgroup: looked for {looked}{hint}")]
    NotThere {
        /// What was said.
        selector: Selector,
        /// Where it was looked for.
        looked: String,
        /// What to do.
        hint: String,
    },
    /// It names several.
    #[error(
        "{selector} names several cgroups, {first} and {second}; give one by its path (`--cgroup`)"
    )]
    Several {
        /// What was said.
        selector: Selector,
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// There is nobody of that name.
    #[error("there is no user {name}")]
    NoUser {
        /// The name.
        name: String,
    },
    /// Its processes could leave.
    #[error(
        "the cgroup {path} may not be attached: {above} above it belongs to the user with uid {uid}, whose processes could move out of it; attach {above} or what is above that"
    )]
    Delegated {
        /// The cgroup.
        path: String,
        /// Who may write there.
        above: String,
        /// Whose it is.
        uid: u32,
    },
}

impl Selector {
    /// Whether it can name anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), SelectError> {
        let malformed = |why| SelectError::Malformed {
            selector: self.clone(),
            why,
        };
        let text = match self {
            Self::Cgroup(text)
            | Self::Unit(text)
            | Self::User(text)
            | Self::Container(text)
            | Self::Pod(text) => text,
            Self::Pid(pid) if *pid < 2 => return Err(malformed("this process is everybody's")),
            Self::Pid(_) => return Ok(()),
        };
        if text.is_empty() || text.len() > 1_024 || text.chars().any(char::is_control) {
            return Err(malformed("this is empty, too long or no text"));
        }
        match self {
            Self::Cgroup(path) => {
                let path = Path::new(path);
                let plain = path
                    .components()
                    .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
                if !path.is_absolute() || !plain {
                    return Err(malformed(
                        "a cgroup's path begins with `/` and has no `..` in it",
                    ));
                }
            }
            Self::Unit(name) if name.contains('/') || name.starts_with('.') => {
                return Err(malformed("this is no name of a unit"));
            }
            Self::User(name) if name.contains('/') => {
                return Err(malformed("this is no name of a user"));
            }
            Self::Container(text) if Sought::parse(text).is_some_and(|one| !one.is_plain()) => {
                return Err(malformed(
                    "a container is meant by its name, by `label=KEY` or `label=KEY=VALUE`, or by its id, at least 12 of its 64 digits",
                ));
            }
            Self::Pod(uid) => {
                let plain = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase() || c == '-';
                if !(32..=36).contains(&uid.len()) || !uid.chars().all(plain) {
                    return Err(malformed(
                        "a pod is meant by its uid: kubectl get pod NAME -o jsonpath='{.metadata.uid}'",
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes it in the one way in which it is compared: a unit with its kind, a cgroup as
    /// the kernel does.
    pub fn normalize(&mut self, root: &Path) {
        match self {
            Self::Unit(name) => *name = with_kind(name),
            Self::Cgroup(path) => {
                let inside = Path::new(path);
                let inside = inside
                    .strip_prefix(root)
                    .or_else(|_| inside.strip_prefix("/"))
                    .unwrap_or(inside);
                // Without a trailing slash.
                let inside: PathBuf = inside.components().collect();
                *path = format!("/{}", inside.display());
            }
            Self::User(_) | Self::Container(_) | Self::Pod(_) | Self::Pid(_) => {}
        }
    }

    /// The cgroup that it names, below the cgroup2 mount.
    ///
    /// # Errors
    /// When it names none, several, or one that its processes can leave.
    pub fn resolve(&self, root: &Path) -> Result<PathBuf, SelectError> {
        self.check()?;
        let path = match self {
            Self::Cgroup(path) => {
                let path = Path::new(path);
                let path = match path.strip_prefix(root) {
                    Ok(_) => path.to_owned(),
                    Err(_) => root.join(path.strip_prefix("/").unwrap_or(path)),
                };
                // Without a trailing slash, so that paths can be compared.
                let path: PathBuf = path.components().collect();
                if !path.is_dir() {
                    return Err(self.not_there(path.display().to_string(), ""));
                }
                path
            }
            Self::Unit(name) => self.unit(root, name)?,
            Self::User(name) => self.user(root, name)?,
            Self::Container(id) if is_id(id) => self.container(root, id)?,
            Self::Container(_) => {
                return Err(SelectError::Malformed {
                    selector: self.clone(),
                    why: "the engine knows which cgroup this is, the cgroup tree does not",
                });
            }
            Self::Pod(uid) => self.pod(root, uid)?,
            Self::Pid(_) => {
                return Err(SelectError::Malformed {
                    selector: self.clone(),
                    why: "a process shares its cgroup with others",
                });
            }
        };
        held(root, &path)?;
        Ok(path)
    }

    fn unit(&self, root: &Path, name: &str) -> Result<PathBuf, SelectError> {
        let name = with_kind(name);
        // Where systemd puts what is configured nowhere else.
        let usual = root.join("system.slice").join(&name);
        if usual.is_dir() {
            return Ok(usual);
        }
        self.only(find(root, &|folder| folder == name))?
            .ok_or_else(|| {
                self.not_there(
                    format!("{} and {name} below it", usual.display()),
                    "; it is there while the unit runs",
                )
            })
    }

    fn user(&self, root: &Path, name: &str) -> Result<PathBuf, SelectError> {
        let user = match name.parse::<u32>() {
            Ok(uid) => Some(uid),
            Err(_) => User::from_name(name)
                .ok()
                .flatten()
                .map(|user| user.uid.as_raw()),
        };
        let uid = user.ok_or_else(|| SelectError::NoUser {
            name: name.to_owned(),
        })?;
        let path = root.join("user.slice").join(format!("user-{uid}.slice"));
        if Uid::from_raw(uid).is_root() {
            return Err(SelectError::Malformed {
                selector: self.clone(),
                why: "root leaves any cgroup",
            });
        }
        if path.is_dir() {
            return Ok(path);
        }
        Err(self.not_there(
            path.display().to_string(),
            &format!(
                "; systemd makes it when the user logs in (`loginctl enable-linger {name}` keeps it). Without it, start what the user runs with `interceptor exec --user {name}`"
            ),
        ))
    }

    fn container(&self, root: &Path, id: &str) -> Result<PathBuf, SelectError> {
        // `conmon` watches over a container of Podman's, in a cgroup of its own.
        let is = |folder: &str| {
            !folder.contains("conmon")
                && place::container(folder).is_some_and(|found| found.starts_with(id))
        };
        self.only(find(root, &is))?.ok_or_else(|| {
            self.not_there(
                format!(
                    "docker-{id}….scope, libpod-{id}….scope, cri-containerd-{id}….scope and {id}… below {}",
                    root.display()
                ),
                "; containers of a user's own engine (rootless) belong to that user: attach the user",
            )
        })
    }

    fn pod(&self, root: &Path, uid: &str) -> Result<PathBuf, SelectError> {
        // systemd's way to write it, and the other one.
        let (slice, plain) = (
            format!("-pod{}.slice", uid.replace('-', "_")),
            format!("pod{uid}"),
        );
        let is = |folder: &str| {
            folder == plain || (folder.starts_with("kubepods") && folder.ends_with(&slice))
        };
        self.only(find(root, &is))?.ok_or_else(|| {
            self.not_there(
                format!("kubepods…{slice} and {plain} below {}", root.display()),
                "; it is there while the pod runs on this node",
            )
        })
    }

    fn only(&self, found: Vec<PathBuf>) -> Result<Option<PathBuf>, SelectError> {
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(SelectError::Several {
                selector: self.clone(),
                first: first.display().to_string(),
                second: second.display().to_string(),
            }),
            (first, _) => Ok(first),
        }
    }

    fn not_there(&self, looked: String, hint: &str) -> SelectError {
        SelectError::NotThere {
            selector: self.clone(),
            looked,
            hint: hint.to_owned(),
        }
    }
}

fn with_kind(unit: &str) -> String {
    if UNITS.iter().any(|kind| unit.ends_with(kind)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

/// Whether this is a container's id, or enough of one.
pub(super) fn is_id(text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (SHORTEST_ID..=64).contains(&text.len()) && text.chars().all(hex)
}

/// Containers that have a cgroup of root's, by their whole id.
pub(super) fn containers(root: &Path) -> BTreeMap<String, PathBuf> {
    let is = |folder: &str| !folder.contains("conmon") && place::container(folder).is_some();
    let found = find(root, &is).into_iter();
    // Of two with one id, the one that is named first; another engine's is the other's copy.
    found
        .rev()
        .filter_map(|path| {
            let name = path.file_name()?.to_string_lossy();
            Some((place::container(&name)?, path.clone()))
        })
        .collect()
}

/// The cgroups with a name, made by root; what is below one is part of it.
fn find(root: &Path, is: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if owner(&path) != Some(0) {
            continue;
        }
        for child in cgroup::children(&path) {
            let name = child.file_name().map(|name| name.to_string_lossy());
            if name.is_some_and(|name| is(&name)) {
                found.push(child);
            } else {
                open.push(child);
            }
        }
    }
    found.sort();
    found
}

/// Whether the processes of a cgroup are kept in it: who may write to a cgroup above can
/// move them to any other below that.
pub(super) fn held(root: &Path, path: &Path) -> Result<(), SelectError> {
    let above = path
        .ancestors()
        .skip(1)
        .take_while(|above| above.starts_with(root) && *above != root);
    for above in above {
        let uid = owner(above).unwrap_or(u32::MAX);
        if uid != 0 {
            return Err(SelectError::Delegated {
                path: path.display().to_string(),
                above: above.display().to_string(),
                uid,
            });
        }
    }
    Ok(())
}

fn owner(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn beginning(digits: usize) -> &'static str {
        ID.get(..digits).unwrap()
    }

    /// Plain folders stand in for cgroups; they have to belong to root.
    fn tree(folders: &[&str]) -> Option<tempfile::TempDir> {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        nix::unistd::geteuid().is_root().then_some(root)
    }

    fn resolve(root: &Path, selector: Selector) -> Result<String, SelectError> {
        let path = selector.resolve(root)?;
        Ok(path.strip_prefix(root).unwrap().display().to_string())
    }

    #[test]
    fn a_unit_is_found_by_its_name_wherever_its_slice_is() {
        let Some(root) = tree(&[
            "system.slice/bot.service",
            "work.slice/work-bots.slice/other.service/inner.service",
            "elsewhere.slice/bot.service",
            "a.slice/twice.service",
            "b.slice/twice.service",
        ]) else {
            return;
        };
        let unit = |name: &str| resolve(root.path(), Selector::Unit(name.to_owned()));
        assert_eq!(unit("bot").unwrap(), "system.slice/bot.service");
        assert_eq!(unit("bot.service").unwrap(), "system.slice/bot.service");
        assert_eq!(
            unit("other").unwrap(),
            "work.slice/work-bots.slice/other.service"
        );
        assert_eq!(
            unit("work-bots.slice").unwrap(),
            "work.slice/work-bots.slice"
        );
        assert!(matches!(unit("twice"), Err(SelectError::Several { .. })));
        let missing = unit("missing").unwrap_err().to_string();
        assert!(
            missing.contains("system.slice/missing.service"),
            "{missing}"
        );
    }

    #[test]
    fn a_pod_is_found_by_its_uid_however_the_kubelet_writes_it() {
        let uid = "8f14e45f-ceea-467f-a0e6-4f1d2b3c4d5e";
        let Some(root) = tree(&[
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8f14e45f_ceea_467f_a0e6_4f1d2b3c4d5e.slice/cri-containerd-1.scope",
            "kubepods/besteffort/pod11111111-ceea-467f-a0e6-4f1d2b3c4d5e",
        ]) else {
            return;
        };
        let pod = |uid: &str| resolve(root.path(), Selector::Pod(uid.to_owned()));
        assert!(pod(uid).unwrap().ends_with("_4f1d2b3c4d5e.slice"));
        let plain = uid.replace("8f14e45f", "11111111");
        assert_eq!(
            pod(&plain).unwrap(),
            format!("kubepods/besteffort/pod{plain}")
        );
        let missing = uid.replace("8f14e45f", "22222222");
        assert!(matches!(pod(&missing), Err(SelectError::NotThere { .. })));
        assert!(matches!(pod("web"), Err(SelectError::Malformed { .. })));
    }

    #[test]
    fn what_a_user_made_is_nobody_elses_unit() {
        let Some(root) =
            tree(&["user.slice/user-1000.slice/user@1000.service/app.slice/bot.service"])
        else {
            return;
        };
        let own = root
            .path()
            .join("user.slice/user-1000.slice/user@1000.service");
        assert!(
            Selector::Unit("bot".to_owned())
                .resolve(root.path())
                .is_ok()
        );
        std::os::unix::fs::chown(&own, Some(1000), Some(1000)).unwrap();
        assert!(matches!(
            Selector::Unit("bot".to_owned()).resolve(root.path()),
            Err(SelectError::NotThere { .. })
        ));
        // Nor is one attached that its own processes can leave.
        let named = Selector::Cgroup(own.join("app.slice/bot.service").display().to_string());
        let refused = named.resolve(root.path()).unwrap_err();
        assert!(matches!(refused, SelectError::Delegated { uid: 1000, .. }));
        assert_eq!(
            Selector::User("1000".to_owned()).resolve(root.path()),
            Ok(root.path().join("user.slice/user-1000.slice"))
        );
    }

    #[test]
    fn a_container_is_found_by_its_id_or_the_beginning_of_it() {
        let other = format!("{}9", beginning(63));
        for place in [
            format!("system.slice/docker-{ID}.scope"),
            format!("docker/{ID}"),
            format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("machine.slice/libpod-{ID}.scope/container"),
        ] {
            let conmon = format!("machine.slice/libpod-conmon-{ID}.scope");
            let Some(root) = tree(&[&place, &conmon]) else {
                return;
            };
            let wanted = place.strip_suffix("/container").unwrap_or(&place);
            let find = |id: &str| resolve(root.path(), Selector::Container(id.to_owned()));
            assert_eq!(find(ID).unwrap(), wanted);
            assert_eq!(find(beginning(12)).unwrap(), wanted);
            assert!(find(&other).is_err());
        }
        let Some(root) = tree(&[&format!("docker/{ID}"), &format!("docker/{other}")]) else {
            return;
        };
        let several = Selector::Container(beginning(20).to_owned()).resolve(root.path());
        assert!(matches!(several, Err(SelectError::Several { .. })));
    }

    #[test]
    fn a_path_is_as_at_the_mount_or_as_the_kernel_writes_it() {
        let Some(root) = tree(&["a.slice/b"]) else {
            return;
        };
        let at_the_mount = root.path().join("a.slice/b/").display().to_string();
        for path in [at_the_mount.as_str(), "/a.slice/b"] {
            let mut selector = Selector::Cgroup(path.to_owned());
            let found = selector.resolve(root.path());
            assert_eq!(found, Ok(root.path().join("a.slice/b")));
            selector.normalize(root.path());
            assert_eq!(selector, Selector::Cgroup("/a.slice/b".to_owned()));
            assert_eq!(selector.resolve(root.path()), found);
        }
        for path in ["", "a.slice/b", "/a.slice/../x", "/gone"] {
            assert!(
                Selector::Cgroup(path.to_owned())
                    .resolve(root.path())
                    .is_err()
            );
        }
    }

    #[test]
    fn what_could_never_name_anything_is_refused_at_once() {
        for selector in [
            Selector::Container("-web".to_owned()),
            Selector::Container("a/b".to_owned()),
            Selector::Container("label==x".to_owned()),
            Selector::Pod("web".to_owned()),
            Selector::Unit("a/b".to_owned()),
            Selector::Unit(String::new()),
            Selector::Pid(1),
        ] {
            assert!(selector.check().is_err(), "{selector}");
        }
        assert!(matches!(
            Selector::User("no-such-user".to_owned()).resolve(Path::new("/nowhere")),
            Err(SelectError::NoUser { .. })
        ));
    }
}
