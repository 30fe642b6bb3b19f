//! What the tag of a run says: which function, or how its tasks ended.

/// The tag of arguments: its low byte is the function's number in its batch, which has at most 256; the bits of its high byte say
/// which of the strings are [references](crate::blob::BlobRef) to blobs that hold the strings themselves.
pub const fn argument_tag(function: u8, lifted: u8) -> u16 {
    u16::from_le_bytes([function, lifted])
}

/// The function's number, and which strings are references.
pub const fn split_argument_tag(tag: u16) -> (u8, u8) {
    let [function, lifted] = tag.to_le_bytes();
    (function, lifted)
}

/// Tag of an outcome: the value of a task that returned.
pub const DONE: u16 = 0;
/// Tag of an outcome: the function returned `Err`; the string is the whole encoded `Result`.
pub const FAILED: u16 = 1;
/// Tag of an outcome: the value of a task that returned, in a blob of its worker; the string is a
/// [`BlobRef`](crate::blob::BlobRef).
pub const STORED: u16 = 3;

/// Whether a task with this tag has a value.
pub const fn is_value(tag: u16) -> bool {
    tag == DONE || tag == STORED
}

/// Tag of an outcome: there is no value; the string is an encoded [`crate::failure::Failed`].
pub const ERROR: u16 = 2;
