//! Where this kernel keeps what tells whose a Unix socket is, from its own description.
//!
//! BTF says of every structure which member stands where. aya's reader keeps that to
//! itself, so the few structures that matter are picked out here.
//!
//! Format: the kernel's documentation, page `bpf/btf`.

use std::collections::HashMap;
use std::path::Path;

use interceptor_common::UnixLayout;
use nom::IResult;
use nom::Parser as _;
use nom::bytes::complete::take;
use nom::number::complete::{le_u8, le_u16, le_u32};

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Structures in structures; the kernel has no more.
const DEEPEST: usize = 8;

/// One structure: its members with their offsets in bits.
#[derive(Debug, Default)]
struct Shape<'a> {
    members: Vec<(&'a str, u32, u32)>,
}

/// The kernel's description, as far as it is of structures.
#[derive(Debug, Default)]
struct Shapes<'a> {
    by_id: HashMap<u32, Shape<'a>>,
    by_name: HashMap<&'a str, u32>,
}

/// Reads it.
///
/// # Errors
/// Why not, for a person.
pub(super) fn read() -> Result<UnixLayout, String> {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    let bytes =
        std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    let (_, shapes) = shapes(&bytes).map_err(|_| format!("{} makes no sense", path.display()))?;
    layout(&shapes).ok_or_else(|| "this kernel keeps its sockets otherwise".to_owned())
}

fn layout(shapes: &Shapes<'_>) -> Option<UnixLayout> {
    let at = |structure: &str, path: &[&str]| shapes.offset(structure, path);
    Some(UnixLayout {
        net: at("sock", &["__sk_common", "skc_net"])?,
        node: at("sock", &["__sk_common", "skc_node"])?,
        buckets: at("net", &["unx", "table", "buckets"])?,
        name: at("unix_sock", &["addr"])?,
        name_length: at("unix_address", &["len"])?,
        name_bytes: at("unix_address", &["name"])?,
        dentry: at("unix_sock", &["path", "dentry"])?,
        cgroup: at("sock", &["sk_cgrp_data", "cgroup"])?,
        node_of_cgroup: at("cgroup", &["kn"])?,
        id_of_node: at("kernfs_node", &["id"])?,
        folder: at("dentry", &["d_parent"])?,
        file_length: at("dentry", &["d_name", "len"])?,
        file_name: at("dentry", &["d_name", "name"])?,
        file_hashed: at("dentry", &["d_hash", "pprev"])?,
        cred: at("task_struct", &["cred"])?,
        user_ns: at("cred", &["user_ns"])?,
        number: at("user_namespace", &["ns", "inum"])?,
        inode: at("dentry", &["d_inode"])?,
        aliases: at("inode", &["i_dentry", "first"])?,
        alias: at("dentry", &["d_u", "d_alias"]).or_else(|| at("dentry", &["d_alias"]))?,
        fs: at("task_struct", &["fs"])?,
        root: at("fs_struct", &["root", "dentry"])?,
        known: 1,
    })
}

impl Shapes<'_> {
    /// Where a member is, in bytes; `path` leads through structures in structures.
    fn offset(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let mut id = *self.by_name.get(structure)?;
        let mut bits = 0;
        for name in path {
            let (offset, next) = self.member(id, name, 0)?;
            bits += offset;
            id = next;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// A member by name, those of nameless structures included.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let shape = self.by_id.get(&id)?;
        if let Some((_, kind, bits)) = shape.members.iter().find(|(own, _, _)| *own == name) {
            return Some((*bits, *kind));
        }
        if depth >= DEEPEST {
            return None;
        }
        shape
            .members
            .iter()
            .filter(|(own, _, _)| own.is_empty())
            .find_map(|(_, kind, bits)| {
                let (offset, id) = self.member(*kind, name, depth + 1)?;
                Some((bits + offset, id))
            })
    }
}

fn shapes(bytes: &[u8]) -> IResult<&[u8], Shapes<'_>> {
    let (rest, (magic, _, _, header)) = (le_u16, le_u8, le_u8, le_u32).parse(bytes)?;
    let (_, (types_at, types_length, strings_at, strings_length)) =
        (le_u32, le_u32, le_u32, le_u32).parse(rest)?;
    let wrong = || nom::Err::Failure(nom::error::Error::new(bytes, nom::error::ErrorKind::Verify));
    let part = |at: u32, length: u32| {
        let from = usize::try_from(header + at).ok()?;
        bytes.get(from..from.checked_add(usize::try_from(length).ok()?)?)
    };
    if magic != MAGIC {
        return Err(wrong());
    }
    let mut types = part(types_at, types_length).ok_or_else(wrong)?;
    let strings = part(strings_at, strings_length).ok_or_else(wrong)?;
    let string = |at: u32| {
        let from = strings.get(usize::try_from(at).ok()?..)?;
        std::str::from_utf8(from.split(|byte| *byte == 0).next()?).ok()
    };
    // Typedefs, qualifiers: what they stand for, by their own id.
    let mut aliases: HashMap<u32, u32> = HashMap::new();
    let mut found = Shapes::default();
    let mut id = 0;
    while !types.is_empty() {
        id += 1;
        let (rest, (name, info, size_or_type)) = (le_u32, le_u32, le_u32).parse(types)?;
        let (kind, count, flag) = (info >> 24 & 0x1f, info & 0xffff, info >> 31 == 1);
        let behind = match kind {
            // Integers, variables, declaration tags.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            STRUCT | UNION | 19 => count * 12,
            // Enumerations, prototypes, sections.
            6 | 13 => count * 8,
            15 => count * 12,
            _ => 0,
        };
        let (rest, mut members) = take(behind)(rest)?;
        types = rest;
        match kind {
            STRUCT | UNION => {
                let mut shape = Shape::default();
                while !members.is_empty() {
                    let (rest, (name, kind, bits)) = (le_u32, le_u32, le_u32).parse(members)?;
                    let bits = if flag { bits & 0xff_ffff } else { bits };
                    shape
                        .members
                        .push((string(name).unwrap_or_default(), kind, bits));
                    members = rest;
                }
                if let Some(name) = string(name).filter(|name| !name.is_empty()) {
                    found.by_name.entry(name).or_insert(id);
                }
                found.by_id.insert(id, shape);
            }
            // Typedef, volatile, const, restrict, type tag.
            8..=11 | 18 => {
                aliases.insert(id, size_or_type);
            }
            _ => {}
        }
    }
    // A member of such a kind is a member of what it stands for.
    let resolved = |mut id: u32| {
        for _ in 0..DEEPEST {
            match aliases.get(&id) {
                Some(next) => id = *next,
                None => break,
            }
        }
        id
    };
    for shape in found.by_id.values_mut() {
        for (_, kind, _) in &mut shape.members {
            *kind = resolved(*kind);
        }
    }
    Ok((&[], found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernels_description_is_read() {
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return;
        }
        let layout = read().unwrap();
        assert_eq!(layout.known, 1);
        // As old as sockets.
        assert!(
            layout.name_bytes >= 4 && layout.dentry > layout.name,
            "{layout:?}"
        );
    }

    #[test]
    fn what_is_no_description_is_refused() {
        assert!(shapes(&[]).is_err());
        assert!(shapes(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 9, 0, 0, 0, 9]).is_err());
        assert!(shapes(&[0; 64]).is_err());
    }
}
