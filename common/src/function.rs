//! How a function is named between processes that run the same program.

use serde::{Deserialize, Serialize};

/// A function of a program: where its entry record lies. Code addresses never travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionName {
    /// Which module of the process: 0 is the executable. No other kind is there yet.
    pub module: u16,
    /// Offset of the record from the module's ELF header, in bytes.
    pub offset: u64,
}
