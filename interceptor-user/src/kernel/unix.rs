//! The programs for Unix sockets, and the list that they go by.
//!
//! aya 0.14 knows neither their attach types nor kfuncs. So the object is read once more
//! with aya's own reader, the kernel's numbers are put in where the programs call a kfunc,
//! and the two are loaded here. They are licensed under the GPL as well, which the kernel
//! asks of whoever calls a kfunc.
//!
//! Where the kernel lacks them (before Linux 6.7) everything else stands, and
//! [`Kernel::unix`] says what is missing.

use std::collections::HashSet;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::PoisonError;

use aya_obj::Object;
use aya_obj::btf::{Btf, BtfKind};
use aya_obj::generated::bpf_insn;
use interceptor_common::{
    KFUNC_CAST, KFUNC_COUNT, KFUNC_COUNTED, KFUNC_NEXT, KFUNC_SET_PATH, SUN_PATH, UnixEntry,
    UnixName,
};

use super::attach::{Hook, OBJECT, UNIX_HOOKS};
use super::sys;
use super::{Kernel, KernelError};

/// `call` of a helper, which a kfunc's call is until it is given its number.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`.
const KFUNC: u8 = 2;

/// A Unix socket's name, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(UnixName, u32);

impl Name {
    /// The name of a socket in a file.
    ///
    /// # Errors
    /// The path, when it is longer than any socket's can be, empty, or holds a zero.
    pub fn path(path: &Path) -> Result<Self, &Path> {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        if bytes.contains(&0) {
            return Err(path);
        }
        Self::bytes(bytes).ok_or(path)
    }

    /// An abstract name; `None` when it is too long.
    #[must_use]
    pub fn of_abstract(name: &[u8]) -> Option<Self> {
        Self::bytes(&[&[0], name].concat())
    }

    fn bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > SUN_PATH {
            return None;
        }
        let mut name = [0; 112];
        name.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(name, u32::try_from(bytes.len()).ok()?))
    }
}

/// What is done with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name that agents connect to.
    pub name: Name,
    /// What it is connected to instead; itself where it is refused.
    pub to: Name,
    /// One of `UNIX_TO_PROXY` and its like.
    pub verdict: u32,
}

impl Kernel {
    /// Why Unix sockets are not seen here, where they are not.
    #[must_use]
    pub fn unix(&self) -> Option<&str> {
        self.without_unix.as_deref()
    }

    /// Puts a list in force in the place of the one before. What stands in both is never
    /// missing meanwhile.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn list_unix(&self, listed: &[Listed]) -> Result<(), KernelError> {
        let mut map = self
            .unix_sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for one in listed {
            let entry = UnixEntry {
                to: one.to.0,
                length: one.to.1,
                verdict: one.verdict,
            };
            map.insert(one.name.0, entry, 0)
                .map_err(KernelError::map("listing a Unix socket"))?;
        }
        let wanted: HashSet<UnixName> = listed.iter().map(|one| one.name.0).collect();
        let known: Vec<UnixName> = map.keys().filter_map(Result::ok).collect();
        for name in known.iter().filter(|name| !wanted.contains(*name)) {
            map.remove(name)
                .map_err(KernelError::map("taking a Unix socket off the list"))?;
        }
        Ok(())
    }
}

/// Loads the programs; says why where this kernel lacks what they need.
pub(super) fn load(maps: &Path) -> Result<Vec<(&'static Hook, OwnedFd)>, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let btf = Btf::from_sys_fs().map_err(|error| told(&error))?;
    let number = |name: &str| {
        btf.id_by_type_name_kind(name, BtfKind::Func)
            .ok()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| format!("this kernel has no {name}; Linux 6.7 has"))
    };
    let numbers = [
        (KFUNC_CAST, number("bpf_cast_to_kern_ctx")?),
        (KFUNC_SET_PATH, number("bpf_sock_addr_set_sun_path")?),
        (KFUNC_COUNT, number("bpf_iter_num_new")?),
        (KFUNC_NEXT, number("bpf_iter_num_next")?),
        (KFUNC_COUNTED, number("bpf_iter_num_destroy")?),
    ];
    let mut object = Object::parse(OBJECT).map_err(|error| told(&error))?;
    let definitions = object.maps.clone();
    let opened: Vec<(&str, OwnedFd, &aya_obj::Map)> = definitions
        .iter()
        .filter_map(|(name, map)| {
            let pin = sys::open_pin(&maps.join(name)).ok()?;
            Some((name.as_str(), pin, map))
        })
        .collect();
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_maps(
            opened
                .iter()
                .map(|(name, pin, map)| (*name, pin.as_raw_fd(), *map)),
            &text,
        )
        .map_err(|error| told(&error))?;
    object.relocate_calls(&text).map_err(|error| told(&error))?;
    UNIX_HOOKS
        .iter()
        .map(|hook| {
            let function = object
                .programs
                .get(hook.name)
                .and_then(|program| object.functions.get(&program.function_key()))
                .ok_or_else(|| format!("the object has no `{}`", hook.name))?;
            let instructions = with_kfuncs(&function.instructions, &numbers);
            let program = sys::load_sock_addr(&instructions, hook.attach_type, hook.name).map_err(
                |error| format!("the kernel refused the program `{}`: {error}", hook.name),
            )?;
            Ok((hook, program))
        })
        .collect()
}

/// The instructions with the kernel's numbers where ours stand.
fn with_kfuncs(instructions: &[bpf_insn], numbers: &[(i32, i32)]) -> Vec<bpf_insn> {
    let mut instructions = instructions.to_vec();
    for one in &mut instructions {
        if one.code != CALL || one.src_reg() != 0 {
            continue;
        }
        if let Some((_, number)) = numbers.iter().find(|(ours, _)| *ours == one.imm) {
            one.set_src_reg(KFUNC);
            one.imm = *number;
        }
    }
    instructions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_compares() {
        let name = Name::path(Path::new("/run/x")).unwrap();
        assert_eq!(name.1, 6);
        assert!(name.0.starts_with(b"/run/x\0\0"));
        let name = Name::of_abstract(b"x").unwrap();
        assert_eq!((name.1, name.0[0], name.0[1]), (2, 0, b'x'));
        assert!(Name::path(Path::new("")).is_err());
        assert!(Name::of_abstract(&[b'x'; 107]).is_some());
        assert!(Name::of_abstract(&[b'x'; 108]).is_none());
        assert!(Name::path(Path::new("/a\0b")).is_err());
    }
}
