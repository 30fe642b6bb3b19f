//! What the tag of a run says: which function, or how its tasks ended.

/// The tag of arguments: its low byte is the function's number in its batch, which has at most 256; the bits of its high byte say
/// which of the strings are [stand-ins](crate::execution::StandIn) for the arguments' own bytes.
pub const fn argument_tag(function: u8, stand_ins: u8) -> u16 {
    u16::from_le_bytes([function, stand_ins])
}

/// The function's number, and which strings are stand-ins.
pub const fn split_argument_tag(tag: u16) -> (u8, u8) {
    let [function, stand_ins] = tag.to_le_bytes();
    (function, stand_ins)
}

/// Tag of an outcome: the value of a task that returned.
pub const DONE: u16 = 0;
/// Tag of an outcome: the function returned `Err`; the string is the whole encoded `Result`.
pub const FAILED: u16 = 1;
/// Tag of an outcome: the value of a task that returned, in a blob of its worker; the string is a
/// [`BlobRef`](crate::blob::BlobRef).
pub const STORED: u16 = 3;

/// Tag of an outcome: the task returned an execution, whose outcome is its own. The string is that
/// execution's [task](crate::id::TaskId::to_bytes), then the whole encoded result.
pub const FORWARDED: u16 = 4;

/// Tag of an outcome: the call is the same as another, whose outcome is its own, whatever that is. The string is that
/// other's [task](crate::id::TaskId::to_bytes).
pub const SAME: u16 = 8;

/// Whether a task with this tag has a value.
pub const fn is_value(tag: u16) -> bool {
    tag == DONE || tag == STORED || tag == FORWARDED || tag == SAME
}

/// Tag of an outcome: there is no value; the string is an encoded [`crate::failure::Failed`].
pub const ERROR: u16 = 2;

/// Tag of an outcome on its way from a worker: as [`FAILED`], and the function's `when` says that it is not to be tried
/// again. The leader makes it a [`FAILED`].
pub const FAILED_FOR_GOOD: u16 = 5;

/// The same of an [`ERROR`].
pub const ERROR_FOR_GOOD: u16 = 6;

/// Tag of an outcome on its way from a worker: none yet, the task is to be run again. The leader keeps it to itself.
pub const AGAIN: u16 = 7;
