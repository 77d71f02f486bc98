//! Whether a process of the same cgroup listens at a Unix socket's name.
//!
//! No hook says who listens, so the table of Unix sockets is read. An abstract name is its
//! socket's whole address. A file's is not: it may have been given other names since (OpenSSH
//! binds its control socket by one, and links it to another). So for a path the sockets of
//! this cgroup are asked by what names their file stands, each of which is followed to the
//! root of who asks, folder by folder: none of them may be a link, since a link is no
//! folder's and no socket's own name.
//!
//! Mounts are not followed: a socket on a file system that is mounted below the root (a
//! tmpfs at `/run` or `/tmp`) is nobody's, since a link in front of the mount would not be
//! seen, and what is a path in one file system is another's in the next. A task of the first
//! user namespace cannot mount anything without being root, and one of another is answered
//! with no.
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
    let Some(room) = UNIX_ROOM.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's. Where the kernel lets another task run in between, the worst
    // that comes of it is what the last paragraph above says.
    let room = unsafe { &mut *room.cast::<Room>() };
    let buckets = word(word(sk, layout.net), layout.buckets);
    match name[0] {
        0 => has_name(layout, room, buckets, name, length),
        b'/' => has_file(layout, room, buckets, name, length),
        // A path whose start depends on where a process stands is nobody's.
        _ => false,
    }
}

/// Where in the table of Unix sockets one stands.
struct Place {
    bucket: u64,
    last: u64,
    node: u64,
}

impl Place {
    #[inline(always)]
    fn first(buckets: u64, from: u64) -> Self {
        let bucket = buckets + from * 8;
        Self {
            bucket,
            last: bucket + BUCKETS / 2 * 8,
            node: read::<u64>(bucket),
        }
    }

    /// The next socket; 0 where a bucket ended and there is another, and nothing where
    /// there is no other.
    #[inline(always)]
    fn next(&mut self, layout: &UnixLayout) -> Option<u64> {
        if self.node == 0 {
            // Volatile, or the compiler counts for itself; of a number that it knows the
            // verifier follows every value.
            // SAFETY: a number of our own.
            self.bucket = unsafe { (&raw const self.bucket).read_volatile() } + 8;
            self.node = read::<u64>(self.bucket);
            return (self.bucket < self.last).then_some(0);
        }
        let socket = self.node - u64::from(layout.node);
        self.node = read::<u64>(self.node);
        Some(socket)
    }
}

/// The id of the cgroup that a socket was born in.
#[inline(always)]
fn cgroup_of(layout: &UnixLayout, socket: u64) -> u64 {
    let cgroup = word(word(socket, layout.cgroup), layout.node_of_cgroup);
    word(cgroup, layout.id_of_node)
}

/// Whether a socket of this cgroup has an abstract name.
#[inline(always)]
fn has_name(
    layout: &UnixLayout,
    room: &mut Room,
    buckets: u64,
    name: &UnixName,
    length: u32,
) -> bool {
    // SAFETY: no arguments.
    let own = unsafe { bpf_get_current_cgroup_id() };
    let stored = u64::from(length) + 2;
    let mut place = Place::first(buckets, BUCKETS / 2);
    let mut found = false;
    let mut steps = Counting(MaybeUninit::uninit());
    steps.begin(MOST);
    while steps.goes_on() {
        let Some(other) = place.next(layout) else {
            break;
        };
        if other == 0 {
            continue;
        }
        // Of nothing everything is zero, which is no name's length. One question of it all:
        // each one doubles what the verifier looks at.
        let address = word(other, layout.name);
        let long = u64::from(read::<u32>(address + u64::from(layout.name_length)));
        if (long ^ stored) | (cgroup_of(layout, other) ^ own) != 0 {
            continue;
        }
        fill(room, address + u64::from(layout.name_bytes) + 2, length);
        if room.is(name) {
            found = true;
            break;
        }
    }
    steps.end();
    found
}

/// Whether a path is one of the names of the file of a socket of this cgroup.
#[inline(always)]
fn has_file(
    layout: &UnixLayout,
    room: &mut Room,
    buckets: u64,
    name: &UnixName,
    length: u32,
) -> bool {
    // SAFETY: no arguments, here and below.
    let own = unsafe { bpf_get_current_cgroup_id() };
    let task = unsafe { bpf_get_current_task() };
    let root = word(word(task, layout.fs), layout.root);
    let mut place = Place::first(buckets, 0);
    // The names of one file, as far as they were looked at.
    let mut alias = 0;
    let mut found = false;
    let mut steps = Counting(MaybeUninit::uninit());
    steps.begin(MOST);
    while steps.goes_on() {
        if alias != 0 {
            let file = alias - u64::from(layout.alias);
            alias = read::<u64>(alias);
            if word(file, layout.file_hashed) != 0 && stands(layout, room, file, root, name, length)
            {
                found = true;
                break;
            }
            continue;
        }
        let Some(other) = place.next(layout) else {
            break;
        };
        if other == 0 {
            continue;
        }
        if cgroup_of(layout, other) != own {
            continue;
        }
        // Of what has no file everything is zero.
        let inode = word(word(other, layout.dentry), layout.inode);
        alias = word(inode, layout.aliases);
    }
    steps.end();
    found
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

/// Whether a file stands where a name says, from `root` on.
#[inline(always)]
fn stands(
    layout: &UnixLayout,
    room: &mut Room,
    file: u64,
    root: u64,
    name: &UnixName,
    length: u32,
) -> bool {
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
    let mut file = file;
    let mut whole = false;
    let mut steps = Counting(MaybeUninit::uninit());
    steps.begin(DEEPEST);
    while steps.goes_on() {
        if file == root {
            whole = true;
            break;
        }
        let folder = word(file, layout.folder);
        let long = read::<u32>(file + u64::from(layout.file_length));
        // The root of a file system that is mounted somewhere: what stands in front of it
        // was not looked at.
        if folder == file || long > LONGEST {
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
        // Most files end here, with the first part that is another.
        if !room.is(name) {
            break;
        }
        file = folder;
    }
    steps.end();
    whole && at == 0
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
