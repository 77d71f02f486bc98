//! Processes that were looked at a moment ago, so that one that opens flow after flow is
//! not looked at as often.
//!
//! A look costs dozens of system calls, some of which wait for the process that is looked
//! at. What it found is used again for a second, and only while the kernel's own account of
//! the process says that nothing happened that would change it:
//!
//! * it is that process. Its files in `/proc` are kept open, and are of no other that gets
//!   its number;
//! * it runs that program, started that once: the path of its executable, and where the
//!   kernel put its code, data, stack, arguments and environment, which is drawn anew at
//!   each `execve`. Of a process whose addresses are not drawn, nothing is kept;
//! * it has that parent, and is in that cgroup.
//!
//! None of these waits for the process, or for a file system. What a process writes over
//! its own arguments without a system call is noticed a second later.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::process::Seen;
use crate::host::lock;

/// How long a look is used again.
const USED: Duration = Duration::from_secs(1);
/// How many are kept; each is two open files.
const KEPT: usize = 256;
/// More of a file than is compared is not kept.
const LONGEST: usize = 4_096;
/// `ADDR_NO_RANDOMIZE` of personality(2).
const NO_RANDOMIZE: u32 = 0x0004_0000;
/// Fields of `/proc/PID/stat` behind the name that are compared, the state being the
/// first (proc_pid_stat(5) counts it as the third): the parent and the start; `startcode`,
/// `endcode`, `startstack`; `start_data` to `env_end`.
const COMPARED: [usize; 12] = [1, 19, 23, 24, 25, 42, 43, 44, 45, 46, 47, 48];
/// Of those, `startstack`.
const STACK: usize = 4;

/// What tells one start of a program from another, and where it is.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    exe: PathBuf,
    cgroup: Vec<u8>,
    stat: [u64; COMPARED.len()],
}

/// A process, held.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    stat: File,
    cgroup: File,
    image: Image,
}

impl Process {
    /// Takes hold of it, before it is looked at; none of one that cannot be told from
    /// itself started once more.
    pub(super) fn hold(pid: u32) -> Option<Self> {
        let open = |name| File::open(format!("/proc/{pid}/{name}")).ok();
        let (stat, cgroup) = (open("stat")?, open("cgroup")?);
        let image = image(pid, &stat, &cgroup)?;
        let held = Self {
            pid,
            stat,
            cgroup,
            image,
        };
        held.is_drawn().then_some(held)
    }

    /// Whether its addresses are drawn.
    fn is_drawn(&self) -> bool {
        let read = |path: &str| fs::read_to_string(path).ok();
        let personality = read(&format!("/proc/{}/personality", self.pid))
            .and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
        let all = read("/proc/sys/kernel/randomize_va_space");
        personality.is_some_and(|bits| bits & NO_RANDOMIZE == 0)
            && all.is_some_and(|text| text.trim() != "0")
    }

    /// Whether it is as it was when it was taken hold of.
    fn is_unchanged(&self) -> bool {
        image(self.pid, &self.stat, &self.cgroup).is_some_and(|image| image == self.image)
    }
}

/// Reads what is compared. The path comes first: it is found by the number, and whose that
/// is what is held says behind it.
fn image(pid: u32, stat: &File, cgroup: &File) -> Option<Image> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let mut buffer = [0; LONGEST];
    let mut whole = |file: &File| {
        let read = file.read_at(&mut buffer, 0).ok()?;
        let text = buffer.get(..read)?;
        (0 < read && read < LONGEST).then(|| text.to_vec())
    };
    let cgroup = whole(cgroup)?;
    let stat = compared(&String::from_utf8_lossy(&whole(stat)?))?;
    Some(Image { exe, cgroup, stat })
}

/// The fields of a `/proc/PID/stat` that are compared. Addresses are 0 where they may not
/// be seen, or nothing runs.
fn compared(stat: &str) -> Option<[u64; COMPARED.len()]> {
    // The name may hold anything, so the last parenthesis ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().enumerate();
    let mut values = [0; COMPARED.len()];
    for (value, wanted) in values.iter_mut().zip(COMPARED) {
        let (_, text) = fields.find(|(number, _)| *number == wanted)?;
        *value = text.parse().ok()?;
    }
    (values.get(STACK).is_some_and(|stack| *stack != 0)).then_some(values)
}

#[derive(Debug)]
struct Look {
    at: Instant,
    process: Process,
    seen: Seen,
}

/// The looks of the last second, by process and cgroup.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<HashMap<(u32, u64), Arc<Look>>>);

impl Lately {
    /// What was seen of it, where that still holds.
    pub(super) fn seen(&self, pid: u32, cgroup_id: u64) -> Option<Seen> {
        let look = lock(&self.0).get(&(pid, cgroup_id)).cloned()?;
        (look.at.elapsed() < USED && look.process.is_unchanged()).then(|| look.seen.clone())
    }

    /// Keeps what was seen of a process that was held before.
    pub(super) fn keep(&self, cgroup_id: u64, process: Process, seen: &Seen) {
        if !matches!(seen, Seen::There(_)) || !process.is_unchanged() {
            return;
        }
        let key = (process.pid, cgroup_id);
        let look = Arc::new(Look {
            at: Instant::now(),
            process,
            seen: seen.clone(),
        });
        let mut looks = lock(&self.0);
        if looks.len() >= KEPT {
            looks.retain(|_, look| look.at.elapsed() < USED);
        }
        if looks.len() < KEPT {
            looks.insert(key, look);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that says when it runs, and becomes what it is told to.
    struct Shell(Child, BufReader<std::process::ChildStdout>);

    impl Shell {
        fn start(setup: &[&str]) -> Self {
            let words = ["/bin/sh", "-c", "echo up; read word; eval \"$word\""];
            let mut words = setup.iter().chain(&words);
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap());
            said.read_line(&mut String::new()).unwrap();
            Self(child, said)
        }

        fn becomes(&mut self, what: &str) {
            writeln!(self.0.stdin.as_mut().unwrap(), "{what}").unwrap();
            self.1.read_line(&mut String::new()).unwrap();
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_is_unchanged_until_it_runs_something_else_or_once_more() {
        // The very same program with arguments of the same lengths.
        let again = "exec /bin/sh -c 'echo up; read word; eval \"$word\"'";
        let other = "exec /bin/sh -c 'echo UP; read word; eval \"$word\"'";
        let program = "exec /bin/bash -c 'echo up; read word; eval \"$word\"'";
        for what in [again, other, program] {
            let mut shell = Shell::start(&[]);
            let held = Process::hold(shell.0.id()).unwrap();
            assert!(held.is_unchanged());
            assert!(held.is_unchanged());
            shell.becomes(what);
            assert!(!held.is_unchanged(), "{what}");
        }
    }

    #[test]
    fn what_holds_a_process_holds_no_other_of_its_number() {
        let shell = Shell::start(&[]);
        let held = Process::hold(shell.0.id()).unwrap();
        drop(shell);
        assert!(!held.is_unchanged());
    }

    #[test]
    fn a_process_whose_addresses_are_not_drawn_is_not_held() {
        let shell = Shell::start(&["/usr/bin/setarch", "-R"]);
        assert!(Process::hold(shell.0.id()).is_none());
    }

    #[test]
    fn a_threads_name_cannot_shift_the_fields() {
        let numbers: Vec<String> = (1..=50).map(|n| n.to_string()).collect();
        let line = format!("7 (a) R 1 (b)) S {}", numbers.join(" "));
        let values = compared(&line).unwrap();
        assert_eq!(values[..6], [1, 19, 23, 24, 25, 42]);
        let hidden = line.replace(" 25 ", " 0 ");
        assert_eq!(compared(&hidden), None);
    }
}
