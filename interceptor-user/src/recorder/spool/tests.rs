//! The spool on a real disk: what is written, what a killed process leaves, and what
//! a damaged file does.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;
use crate::recorder::resp::Stream;

const MIB: u64 = 1 << 20;

fn batch(number: u64, bytes: usize) -> Commands {
    let mut commands = Commands::default();
    commands.begin(Stream::Live, 2);
    commands.part(number.to_string().as_bytes());
    commands.part(&vec![b'x'; bytes]);
    commands
}

fn note(number: u64, closed: bool) -> Note {
    Note {
        session: Uuid::from_u128(u128::from(number)),
        next_seq: number,
        closed,
        ..Note::default()
    }
}

fn open(dir: &Path, max_bytes: u64) -> Spool {
    Spool::open(dir, max_bytes, false, Uuid::now_v7()).unwrap()
}

fn fill(spool: &Spool, numbers: std::ops::Range<u64>, bytes: usize) {
    let mut scratch = Vec::new();
    for number in numbers {
        let notes = |_| vec![note(number, false)];
        spool
            .append(&batch(number, bytes), notes, &mut scratch)
            .unwrap();
    }
}

/// The next frame, and the number that stands in its commands.
fn next(spool: &Spool, cursor: &mut Cursor) -> Option<(Box<Frame>, u64)> {
    match spool.next(cursor, Duration::ZERO).unwrap() {
        Next::Frame(frame) => {
            let parts = crate::recorder::resp::parts(frame.commands.bytes()).unwrap();
            let number = String::from_utf8_lossy(parts[0]).parse().unwrap();
            Some((frame, number))
        }
        Next::Nothing | Next::Finished => None,
        Next::Damage(damage) => panic!("{damage:?}"),
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(dir).unwrap().flatten() {
        if folder.path().is_dir() {
            let files = std::fs::read_dir(folder.path()).unwrap().flatten();
            found.extend(files.map(|file| file.path()));
        }
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "spool"));
    found.sort();
    found
}

/// Everything that a dead process left: frames' numbers, damage, open sessions.
fn rest(dir: &Path) -> (Vec<u64>, Vec<Damage>, Vec<Uuid>) {
    let (mut all, bad) = Left::behind(dir).unwrap();
    assert!(bad.is_empty());
    let Some(mut left) = all.pop() else {
        return (Vec::new(), Vec::new(), Vec::new());
    };
    let (mut numbers, mut damage) = (Vec::new(), Vec::new());
    loop {
        match left.next().unwrap() {
            Item::Frame(frame) => numbers.push(frame.number),
            Item::Damage(one) => damage.push(one),
            Item::End => break,
        }
    }
    let damaged = damage.iter().map(|one| one.segment.clone()).collect();
    let open = left.open_sessions();
    left.remove(damaged).unwrap();
    (
        numbers,
        damage,
        open.iter().map(|note| note.session).collect(),
    )
}

#[test]
fn frames_come_back_in_order_while_they_are_written_and_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 4 * MIB);
    let mut cursor = Cursor::default();
    for round in 0..50 {
        fill(&spool, round * 4..round * 4 + 4, 40_000);
        for expected in round * 4..round * 4 + 4 {
            let (frame, number) = next(&spool, &mut cursor).unwrap();
            assert_eq!((number, frame.number), (expected, expected));
            spool.acknowledge(&frame);
        }
        assert!(next(&spool, &mut cursor).is_none());
        assert_eq!(spool.unsent(), 0);
        assert!(segments(dir.path()).len() <= 2);
    }
    spool.finish();
    assert!(matches!(
        spool.next(&mut cursor, Duration::ZERO).unwrap(),
        Next::Finished
    ));
    assert!(spool.remove_if_sent());
    assert!(segments(dir.path()).is_empty());
}

#[test]
fn a_full_spool_says_so_stays_below_its_bound_and_takes_again_what_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), MIB);
    let mut scratch = Vec::new();
    let mut taken = 0;
    let refused = loop {
        match spool.append(&batch(taken, 30_000), |_| Vec::new(), &mut scratch) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::Full), "{refused}");
    assert!(!spool.has_room(30_000));
    assert!(spool.size().0 <= MIB);
    assert!(taken > 20, "{taken}");
    let mut cursor = Cursor::default();
    for expected in 0..taken {
        let (frame, number) = next(&spool, &mut cursor).unwrap();
        assert_eq!(number, expected);
        spool.acknowledge(&frame);
    }
    fill(&spool, taken..taken + 1, 30_000);
    assert_eq!(next(&spool, &mut cursor).unwrap().1, taken);
}

#[test]
fn a_frame_larger_than_the_spool_goes_where_there_is_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), MIB);
    fill(&spool, 0..1, 3 << 20);
    let mut cursor = Cursor::default();
    let (frame, _) = next(&spool, &mut cursor).unwrap();
    let refused = spool.append(&batch(1, 3 << 20), |_| Vec::new(), &mut Vec::new());
    assert!(matches!(refused, Err(Refused::Full)));
    spool.acknowledge(&frame);
    fill(&spool, 1..2, 3 << 20);
    assert_eq!(next(&spool, &mut cursor).unwrap().1, 1);
}

#[test]
fn what_a_dead_process_left_is_taken_over_whole_and_a_living_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let alive = open(dir.path(), 4 * MIB);
    fill(&alive, 0..3, 10);
    assert_eq!(rest(dir.path()).0, Vec::<u64>::new());
    let dead = open(dir.path(), 4 * MIB);
    fill(&dead, 0..20, 100_000);
    let notes = |whole: bool| {
        assert!(!whole, "this one goes into the last segment");
        vec![note(3, true)]
    };
    let mut scratch = Vec::new();
    dead.append(&batch(20, 10), notes, &mut scratch).unwrap();
    drop(dead);
    let (numbers, damage, open) = rest(dir.path());
    assert_eq!(numbers, (0..21).collect::<Vec<_>>());
    assert_eq!(damage, []);
    // Each segment's first note tells of all that are open; this test's tell of one.
    assert!(!open.is_empty() && !open.contains(&Uuid::from_u128(3)));
    assert_eq!(rest(dir.path()).0, Vec::<u64>::new(), "it is gone");
    assert_eq!(alive.unsent(), alive.lock().unsent);
}

#[test]
fn one_that_cannot_be_taken_over_keeps_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let unlocked = dir.path().join(Uuid::now_v7().to_string());
    std::fs::create_dir_all(unlocked.join("lock")).unwrap();
    let unread = dir.path().join(Uuid::now_v7().to_string());
    std::fs::create_dir_all(unread.join("0000000000000000.spool")).unwrap();
    let dead = open(dir.path(), 4 * MIB);
    fill(&dead, 0..3, 10);
    drop(dead);
    let (mut left, bad) = Left::behind(dir.path()).unwrap();
    let mut paths: Vec<_> = bad.into_iter().map(|bad| bad.path).collect();
    paths.sort();
    assert_eq!(paths, [unlocked, unread]);
    assert!(matches!(left.remove(0).next().unwrap(), Item::Frame(_)));
    assert!(left.is_empty());
}

/// Were it removed while nobody holds the spool, who comes just then would find it
/// without its lock.
#[test]
fn a_folder_goes_when_nobody_looks_for_what_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 4 * MIB);
    let file = OpenOptions::new().write(true).open(dir.path().join("lock"));
    let looks = nix::fcntl::Flock::lock(file.unwrap(), nix::fcntl::FlockArg::LockExclusive);
    let looks = looks.unwrap();
    let path = spool.folder.path.clone();
    let goes = std::thread::spawn(move || spool.remove_if_sent());
    std::thread::sleep(Duration::from_millis(100));
    assert!(path.join("lock").exists());
    drop(looks);
    assert!(goes.join().unwrap());
    assert!(!path.exists());
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tore() {
    for cut in [1, 9, 31, 32, 33, 200, 5_000] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), 4 * MIB);
        fill(&spool, 0..4, 10_000);
        let last = segments(dir.path()).pop().unwrap();
        let end = spool.lock().end;
        drop(spool);
        // The last frame's end was not written.
        let file = OpenOptions::new().write(true).open(&last).unwrap();
        let zeros = vec![0; cut];
        file.write_all_at(&zeros, end - cut as u64).unwrap();
        let (numbers, damage, _) = rest(dir.path());
        assert_eq!(numbers, [0, 1, 2], "{cut}");
        assert!(damage.len() == 1 && damage[0].torn_tail, "{damage:?}");
    }
}

#[test]
fn damage_in_the_middle_costs_what_it_hit_and_is_told_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 16 * MIB);
    fill(&spool, 0..60, 100_000);
    drop(spool);
    let all = segments(dir.path());
    assert!(all.len() >= 3, "{all:?}");
    let file = OpenOptions::new().write(true).open(&all[1]).unwrap();
    file.write_all_at(b"garbage", 250_000).unwrap();
    let (numbers, damage, _) = rest(dir.path());
    assert_eq!(numbers.len(), 59);
    let [bytes, frames] = damage.as_slice() else {
        panic!("{damage:?}");
    };
    assert!(bytes.bytes > 100_000 && !bytes.torn_tail);
    assert_eq!(frames.frames, 1);
    let kept = std::fs::read_dir(dir.path()).unwrap().flatten();
    let kept = kept.filter(|file| file.file_name().to_string_lossy().starts_with("damaged-"));
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 16 * MIB);
    fill(&spool, 0..60, 100_000);
    drop(spool);
    std::fs::remove_file(&segments(dir.path())[1]).unwrap();
    let (numbers, damage, _) = rest(dir.path());
    assert_eq!(damage.len(), 1);
    assert_eq!(numbers.len() as u64 + damage[0].frames, 60);
}

#[test]
fn what_does_not_read_back_while_the_process_lives_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 16 * MIB);
    fill(&spool, 0..3, 1000);
    let file = OpenOptions::new()
        .write(true)
        .open(&segments(dir.path())[0])
        .unwrap();
    file.write_all_at(b"garbage", 1_500).unwrap();
    let mut cursor = Cursor::default();
    let mut seen = Vec::new();
    for _ in 0..3 {
        match spool.next(&mut cursor, Duration::ZERO).unwrap() {
            Next::Frame(frame) => seen.push(Some(frame.number)),
            Next::Damage(_) => seen.push(None),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [Some(0), None, Some(2)]);
}

#[test]
fn what_is_written_behind_damage_is_read_and_nothing_stays_unsent() {
    for bytes in [&b"garbage"[..], &[0; 64]] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), 16 * MIB);
        fill(&spool, 0..2, 1000);
        let file = OpenOptions::new()
            .write(true)
            .open(&segments(dir.path())[0])
            .unwrap();
        let second = spool.lock().end / 2;
        file.write_all_at(bytes, second).unwrap();
        let mut cursor = Cursor::default();
        let (first, _) = next(&spool, &mut cursor).unwrap();
        spool.acknowledge(&first);
        let damage = spool.next(&mut cursor, Duration::ZERO).unwrap();
        assert!(matches!(damage, Next::Damage(_)), "{damage:?}");
        fill(&spool, 2..3, 1000);
        let (third, number) = next(&spool, &mut cursor).unwrap();
        assert_eq!(number, 2);
        spool.acknowledge(&third);
        assert_eq!(spool.unsent(), 0);
    }
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_the_same_frame_goes_in_later() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 16 * MIB);
    let away = dir.path().join("away");
    std::fs::rename(&spool.folder.path, &away).unwrap();
    let refused = spool.append(&batch(0, 10), |_| Vec::new(), &mut Vec::new());
    assert!(matches!(refused, Err(Refused::Disk(_))));
    std::fs::rename(&away, &spool.folder.path).unwrap();
    fill(&spool, 0..1, 10);
    assert_eq!(next(&spool, &mut Cursor::default()).unwrap().1, 0);
}
