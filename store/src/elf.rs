//! Reads from an ELF file which versions of glibc it asks for, or (of `libc.so.6`) has.
//!
//! Pure parsing of bytes that may be damaged or hostile: every offset is checked, every loop bounded
//! by the file's length. It goes by the program headers, which the system loader needs as well; the
//! section headers may be stripped.

/// A glibc version, as `(2, 36)`.
pub type Version = (u16, u16);

/// Bytes that are not an executable of a kind that allhands runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not ELF at all.
    #[error("not an ELF file: a program must be an executable, not a script")]
    NotElf,
    /// 32 bits or big-endian.
    #[error("an ELF file of another kind: only 64-bit little-endian programs are supported")]
    Unsupported,
    /// A table points outside of the file.
    #[error("a damaged ELF file: its {0} lies outside of it")]
    Damaged(&'static str),
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERNEED: u64 = 0x6fff_fffe;

/// Steps through a chain of records, at most: no file comes near, and a chain may be a circle.
const RECORDS_MAX: usize = 10_000;

/// The newest glibc version that the program in `file` asks for; `None` where it asks for none, as
/// static and musl programs do.
///
/// # Errors
/// When the file is not one that the cluster can run, or damaged.
pub fn glibc_needed(file: &[u8]) -> Result<Option<Version>, ElfError> {
    let Some(dynamic) = Dynamic::of(file)? else {
        return Ok(None);
    };
    let Some(mut need) = dynamic.offset(DT_VERNEED)? else {
        return Ok(None);
    };
    let mut newest = None;
    for _ in 0..RECORDS_MAX {
        let mut version = need + dynamic.u32(need + 8)? as usize;
        for _ in 0..dynamic.u16(need + 2)? {
            newest = newest.max(dynamic.version_named(dynamic.u32(version + 8)?)?);
            version += dynamic.u32(version + 12)? as usize;
        }
        match dynamic.u32(need + 12)? as usize {
            0 => return Ok(newest),
            step => need += step,
        }
    }
    Err(ElfError::Damaged("list of needed versions"))
}

/// The newest glibc version that the library in `file` (`libc.so.6`) has; `None` where it is no glibc.
///
/// # Errors
/// As [`glibc_needed`].
pub fn glibc_defined(file: &[u8]) -> Result<Option<Version>, ElfError> {
    let Some(dynamic) = Dynamic::of(file)? else {
        return Ok(None);
    };
    let Some(mut definition) = dynamic.offset(DT_VERDEF)? else {
        return Ok(None);
    };
    let mut newest = None;
    for _ in 0..RECORDS_MAX {
        let name = definition + dynamic.u32(definition + 12)? as usize;
        newest = newest.max(dynamic.version_named(dynamic.u32(name)?)?);
        match dynamic.u32(definition + 16)? as usize {
            0 => return Ok(newest),
            step => definition += step,
        }
    }
    Err(ElfError::Damaged("list of defined versions"))
}

/// The dynamic section of a file.
struct Dynamic<'a> {
    file: &'a [u8],
    loads: Vec<Load>,
    entries: usize,
    count: usize,
    strings: usize,
}

/// A piece of the file that is mapped.
struct Load {
    address: u64,
    offset: u64,
    bytes: u64,
}

impl<'a> Dynamic<'a> {
    fn of(file: &'a [u8]) -> Result<Option<Self>, ElfError> {
        if file.get(..4) != Some(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        if file.get(4..6) != Some(&[2, 1]) {
            return Err(ElfError::Unsupported);
        }
        let mut this = Self { file, loads: Vec::new(), entries: 0, count: 0, strings: 0 };
        let (table, size) = (this.place(this.u64(32)?)?, usize::from(this.u16(54)?));
        for number in 0..usize::from(this.u16(56)?) {
            let header = table + number * size;
            let (offset, bytes) = (this.u64(header + 8)?, this.u64(header + 32)?);
            match this.u32(header)? {
                PT_LOAD => {
                    this.loads.push(Load { address: this.u64(header + 16)?, offset, bytes });
                }
                PT_DYNAMIC => {
                    (this.entries, this.count) = (this.place(offset)?, bytes as usize / 16);
                }
                _ => {}
            }
        }
        if this.count == 0 {
            return Ok(None);
        }
        this.count = this.count.min(file.len() / 16);
        this.strings = this.offset(DT_STRTAB)?.ok_or(ElfError::Damaged("string table"))?;
        Ok(Some(this))
    }

    /// Where in the file the table of the dynamic entry `tag` lies.
    fn offset(&self, tag: u64) -> Result<Option<usize>, ElfError> {
        for number in 0..self.count {
            let entry = self.entries + 16 * number;
            if self.u64(entry)? == tag {
                return self.file_offset(self.u64(entry + 8)?).map(Some);
            }
        }
        Ok(None)
    }

    fn file_offset(&self, address: u64) -> Result<usize, ElfError> {
        let within = |load: &&Load| {
            address.checked_sub(load.address).is_some_and(|inside| inside < load.bytes)
        };
        let load = self.loads.iter().find(within).ok_or(ElfError::Damaged("dynamic table"))?;
        self.place((address - load.address).saturating_add(load.offset))
    }

    /// An offset that lies in the file, so that adding a few records to it cannot overflow.
    fn place(&self, offset: u64) -> Result<usize, ElfError> {
        let inside = usize::try_from(offset).ok().filter(|offset| *offset < self.file.len());
        inside.ok_or(ElfError::Damaged("table"))
    }

    /// The version in a name such as `GLIBC_2.36`; `None` for other names.
    fn version_named(&self, name: u32) -> Result<Option<Version>, ElfError> {
        let wrong = ElfError::Damaged("name of a version");
        let text = self.file.get(self.strings + name as usize..).ok_or(wrong)?;
        let end = text.iter().position(|byte| *byte == 0).ok_or(wrong)?;
        let version =
            std::str::from_utf8(&text[..end]).ok().and_then(|text| text.strip_prefix("GLIBC_"));
        let mut numbers = version.unwrap_or_default().split('.').map(str::parse::<u16>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Some((major, minor))),
            _ => Ok(None),
        }
    }

    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], ElfError> {
        let bytes = at.checked_add(N).and_then(|end| self.file.get(at..end));
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(ElfError::Damaged("record"))
    }

    fn u16(&self, at: usize) -> Result<u16, ElfError> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, ElfError> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, ElfError> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn this_program_asks_for_no_more_than_this_machine_has() {
        let needed = glibc_needed(&own()).unwrap();
        let has = crate::glibc::of_this_machine();
        if cfg!(target_env = "gnu") {
            assert!(needed.unwrap() >= (2, 0) && needed <= has, "{needed:?}, {has:?}");
        } else {
            assert_eq!(needed, None);
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        assert_eq!(glibc_needed(b"#!/bin/sh\n"), Err(ElfError::NotElf));
        assert_eq!(glibc_needed(b"\x7fELF\x01\x01\x01"), Err(ElfError::Unsupported));
        assert!(matches!(glibc_needed(&own()[..100]), Err(ElfError::Damaged(_))));
    }

    #[test]
    fn damage_is_an_error_or_another_answer_but_never_a_panic() {
        let whole = own();
        let mut file = whole.clone();
        file.truncate(1 << 20);
        for at in (0..64).chain((64..file.len().min(1 << 16)).step_by(61)) {
            let kept = file[at];
            file[at] = 0xff;
            _ = glibc_needed(&file);
            _ = glibc_defined(&file);
            file[at] = kept;
        }
    }
}
