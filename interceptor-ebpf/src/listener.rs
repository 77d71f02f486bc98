//! Whether a process of the same cgroup listens at a Unix socket's name.
//!
//! No hook says who listens, so the table of Unix sockets is read: the one that was bound
//! to the very name, whose socket was born in this cgroup, and whose file still stands
//! where its name says, folder by folder. A name in which a folder or a file became a link
//! or another file is therefore not believed.
//!
//! Mounts are not followed: a socket on a file system that is mounted below the root (a
//! tmpfs at `/run` or `/tmp`) is nobody's, since a link in front of the mount would not be
//! seen. A task of the first user namespace cannot mount anything without being root, and
//! one of another is answered with no.
//!
//! What is left open: between this and the kernel's own look, a second thread may put
//! something else in the name's place.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_task, bpf_probe_read_kernel,
};
use interceptor_common::{
    FIRST_USER_NS, KFUNC_COUNT, KFUNC_COUNTED, KFUNC_NEXT, SUN_PATH, UnixLayout, UnixName,
};

use crate::maps::{UNIX_LAYOUT, UNIX_ROOM};

/// `UNIX_HASH_SIZE`: files in the first half, abstract names in the second.
const BUCKETS: u64 = 512;
/// Sockets and buckets that are looked at; a name that is not found by then is nobody's.
const MOST: i32 = 32_768;
/// Folders that are looked at.
const DEEPEST: i32 = 32;
/// Of a folder's or a file's name; a longer one is nobody's.
const LONGEST: u32 = 64;
const WORDS: usize = size_of::<UnixName>() / 8;

/// Counts to a bound that the verifier need not follow.
struct Counting(MaybeUninit<u64>);

impl Counting {
    #[inline(always)]
    fn begin(&mut self, to: i32) {
        // SAFETY: user space puts the kfunc's number in, here and below; the verifier holds
        // the calls to their order.
        unsafe {
            let new: unsafe extern "C" fn(*mut u64, i32, i32) -> i32 =
                core::mem::transmute(KFUNC_COUNT as usize);
            new(self.0.as_mut_ptr(), 0, to);
        }
    }

    #[inline(always)]
    fn goes_on(&mut self) -> bool {
        // SAFETY: as above.
        unsafe {
            let next: unsafe extern "C" fn(*mut u64) -> *const i32 =
                core::mem::transmute(KFUNC_NEXT as usize);
            !next(self.0.as_mut_ptr()).is_null()
        }
    }

    #[inline(always)]
    fn end(&mut self) {
        // SAFETY: as above.
        unsafe {
            let destroy: unsafe extern "C" fn(*mut u64) =
                core::mem::transmute(KFUNC_COUNTED as usize);
            destroy(self.0.as_mut_ptr());
        }
    }
}

/// Whether the one who listens at `name` is of the cgroup of who asks; `sk` is the
/// kernel's address of the asking socket.
#[inline(always)]
pub fn is_same(sk: u64, name: &UnixName, length: u32) -> bool {
    let Some(layout) = UNIX_LAYOUT.get(0) else {
        return false;
    };
    if layout.known == 0 || !is_first_user_ns(layout) {
        return false;
    }
    // Volatile: the compiler knows this bound already, and the verifier does not.
    // SAFETY: a number of our own.
    let length = unsafe { (&raw const length).read_volatile() };
    if length > SUN_PATH as u32 {
        return false;
    }
    // A path whose start depends on where a process stands is nobody's.
    let is_path = name[0] != 0;
    if is_path && name[0] != b'/' {
        return false;
    }
    let net = word(sk, layout.net);
    let buckets = word(net, layout.buckets);
    // SAFETY: no arguments.
    let own = unsafe { bpf_get_current_cgroup_id() };
    // What has no file counts as one that is there.
    let (stored, unhashed, first) = if is_path {
        (u64::from(length) + 3, 0, 0)
    } else {
        (u64::from(length) + 2, 1, BUCKETS / 2)
    };
    let mut bucket = buckets + first * 8;
    let last = bucket + BUCKETS / 2 * 8;
    let mut node = read::<u64>(bucket);
    let mut found = 0;
    let Some(room) = UNIX_ROOM.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's. Where the kernel lets another task run in between, the worst
    // that comes of it is what the last paragraph above says.
    let room = unsafe { &mut *room.cast::<Room>() };
    let mut steps = Counting(MaybeUninit::uninit());
    steps.begin(MOST);
    while steps.goes_on() {
        if node == 0 {
            // Volatile, or the compiler counts for itself; of a number that it knows the
            // verifier follows every value.
            // SAFETY: a number of our own.
            bucket = unsafe { (&raw const bucket).read_volatile() } + 8;
            if bucket >= last {
                break;
            }
            node = read::<u64>(bucket);
            continue;
        }
        let other = node - u64::from(layout.node);
        node = read::<u64>(node);
        // Of nothing everything is zero, which is no name's length. One question of it all:
        // each one doubles what the verifier looks at.
        let address = word(other, layout.name);
        let long = u64::from(read::<u32>(address + u64::from(layout.name_length)));
        let cgroup = word(word(other, layout.cgroup), layout.node_of_cgroup);
        if (long ^ stored) | (word(cgroup, layout.id_of_node) ^ own) != 0 {
            continue;
        }
        fill(room, address + u64::from(layout.name_bytes) + 2, length);
        let dentry = word(other, layout.dentry);
        if !room.is(name) || word(dentry, layout.file_hashed) | unhashed == 0 {
            continue;
        }
        found = dentry | unhashed;
        break;
    }
    steps.end();
    found != 0 && (!is_path || stands(layout, room, found, name, length))
}

/// Room for a name, and for a file's behind it: a path is put together from its end, and
/// the verifier does not see that its parts are no longer than the whole.
#[repr(transparent)]
struct Room([u64; 28]);

impl Room {
    #[inline(always)]
    fn bytes(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    /// Whether the name stands in it.
    #[inline(always)]
    fn is(&self, name: &UnixName) -> bool {
        let name = name.as_ptr().cast::<u64>();
        let mut different = 0;
        let mut i = 0;
        while i < WORDS {
            // SAFETY: a name has as many words, and stands aligned to them.
            // Volatile, or all are kept beside on the stack while others are looked at.
            different |= self.0[i] ^ unsafe { name.add(i).read_volatile() };
            i += 1;
        }
        different == 0
    }
}

/// Whether the file of a socket stands where its name says, from the root on.
#[inline(always)]
fn stands(layout: &UnixLayout, room: &mut Room, dentry: u64, name: &UnixName, length: u32) -> bool {
    let mut i = 0;
    while i < WORDS {
        // SAFETY: as in `is`.
        unsafe {
            let word = name.as_ptr().cast::<u64>().add(i).read_volatile();
            (&raw mut room.0[i]).write_volatile(word);
        }
        i += 1;
    }
    // As unknown as it will be in every later round.
    let mut at = length.wrapping_add(layout.known.wrapping_sub(1));
    let mut file = dentry;
    let mut whole = false;
    let mut steps = Counting(MaybeUninit::uninit());
    steps.begin(DEEPEST);
    while steps.goes_on() {
        let folder = word(file, layout.folder);
        if folder == file {
            whole = true;
            break;
        }
        let long = read::<u32>(file + u64::from(layout.file_length));
        if long > LONGEST {
            break;
        }
        // With a slash in front of it; where there is no room for both, this is enormous.
        // Volatile, or the compiler leaves out what the verifier has to see.
        let before = at.wrapping_sub(long).wrapping_sub(1);
        // SAFETY: a number of our own.
        at = unsafe { (&raw const before).read_volatile() };
        if at >= SUN_PATH as u32 {
            break;
        }
        let from = word(file, layout.file_name);
        // SAFETY: within the name's length, and there is room for a file's behind it. What
        // cannot be read becomes zeros, which stand in no path.
        unsafe {
            let to = room.bytes().add(at as usize);
            to.write_volatile(b'/');
            bpf_probe_read_kernel(to.add(1).cast(), long, from as *const c_void);
        }
        file = folder;
    }
    steps.end();
    // A file system that is mounted somewhere ends before the name does: what stands in
    // front of it was not looked at.
    whole && at == 0 && room.is(name)
}

/// Puts the kernel's name at `from` into the room, zeros behind it.
#[inline(always)]
fn fill(room: &mut Room, from: u64, length: u32) {
    let mut i = 0;
    while i < WORDS {
        // Volatile, or it becomes a loop by bytes.
        // SAFETY: one of its words.
        unsafe { (&raw mut room.0[i]).write_volatile(0) };
        i += 1;
    }
    // SAFETY: a name's length, for which there is room. What cannot be read becomes zeros.
    unsafe {
        bpf_probe_read_kernel(room.bytes().cast(), length, from as *const c_void);
    }
}

/// Whether the task that runs is in the first user namespace.
#[inline(always)]
fn is_first_user_ns(layout: &UnixLayout) -> bool {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let user_ns = word(word(task, layout.cred), layout.user_ns);
    read::<u32>(user_ns + u64::from(layout.number)) == FIRST_USER_NS
}

#[inline(always)]
fn word(from: u64, offset: u32) -> u64 {
    read::<u64>(from + u64::from(offset))
}

/// Reads the kernel's memory; zero where there is none.
#[inline(always)]
fn read<T: Copy + Default>(from: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper writes all of it or zeros.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            from as *const c_void,
        );
    }
    value
}
