//! Programs that arrive whole, wrong, in pieces, or not at all.

use super::*;

fn here() -> Platform {
    Platform { arch: "x86_64".into(), os: "linux".into(), glibc: Some((2, 31)) }
}

fn program(bytes: &[u8]) -> Program {
    let id = ProgramId(*blake3::hash(bytes).as_bytes());
    Program { id, bytes: bytes.len() as u64, platform: here(), name: "app".into() }
}

/// Fetches from a leader that has `bytes`, in pieces of three; the last step and the questions.
fn fetch(programs: &mut Programs, wanted: Program, bytes: &[u8]) -> (Step, Vec<u64>) {
    let mut step = programs.fetch(wanted);
    let mut asked = Vec::new();
    loop {
        step = match step {
            Step::Want(id, offset) => {
                asked.push(offset);
                let from = offset as usize;
                let piece = Bytes::copy_from_slice(&bytes[from..bytes.len().min(from + 3)]);
                programs.chunk(id, offset, &piece)
            }
            Step::Seal(seal) => {
                let id = seal.program;
                let answer = seal.run();
                programs.sealed(id, answer)
            }
            other => return (other, asked),
        };
    }
}

fn store(directory: &Path) -> Programs {
    Programs::open(Some(directory.to_owned()), here()).unwrap()
}

#[test]
fn a_program_is_fetched_once_and_is_executable() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let wanted = program(b"0123456789");
    let mut programs = store(directory.path());
    let (step, asked) = fetch(&mut programs, wanted.clone(), b"0123456789");
    assert!(matches!(step, Step::Ready(id) if id == wanted.id));
    assert_eq!(asked, [0, 3, 6, 9]);
    let path = file(directory.path(), wanted.id);
    assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o555);
    let (_, asked) = fetch(&mut store(directory.path()), wanted, b"");
    assert!(asked.is_empty());
}

#[test]
fn a_part_is_gone_on_with_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = program(b"0123456789");
    let mut before = store(directory.path());
    before.fetch(wanted.clone());
    before.chunk(wanted.id, 0, &Bytes::from_static(b"0123"));
    assert_eq!(before.wanted().collect::<Vec<_>>(), [(wanted.id, 4)]);
    drop(before);
    let (step, asked) = fetch(&mut store(directory.path()), wanted, b"0123456789");
    assert!(matches!(step, Step::Ready(_)));
    assert_eq!(asked, [4, 7]);
}

#[test]
fn a_damaged_part_is_fetched_again_and_damaged_bytes_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = program(b"0123456789");
    let part = file(directory.path(), wanted.id).with_extension("part");
    std::fs::write(&part, b"01x3").unwrap();
    let (step, asked) = fetch(&mut store(directory.path()), wanted, b"0123456789");
    assert!(matches!(step, Step::Ready(_)));
    assert_eq!(asked, [4, 7, 0, 3, 6, 9]);

    let other = program(b"abcdef");
    let (step, _) = fetch(&mut store(directory.path()), other.clone(), b"abcdeX");
    let Step::Failed(_, Cause::Program { message }) = step else { panic!("{step:?}") };
    assert!(message.contains("app") && message.contains("another hash"), "{message}");
    assert!(!file(directory.path(), other.id).exists());
}

#[test]
fn other_bytes_than_announced_and_other_platforms_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = program(b"0123");
    let mut programs = store(directory.path());
    programs.fetch(wanted.clone());
    let step = programs.chunk(wanted.id, 0, &Bytes::from_static(b"01234"));
    assert!(matches!(step, Step::Failed(..)));
    assert!(matches!(programs.chunk(wanted.id, 0, &Bytes::from_static(b"01")), Step::Nothing));
    let mut newer = program(b"xyz");
    newer.platform.glibc = Some((2, 99));
    let Step::Failed(_, Cause::Program { message }) = programs.fetch(newer) else { panic!() };
    assert!(message.contains("2.99"), "{message}");
}

#[test]
fn the_own_program_is_always_there() {
    let mut programs = Programs::open(None, here()).unwrap();
    assert!(matches!(programs.fetch(program(b"x")), Step::Ready(_)));
}
