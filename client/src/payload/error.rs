//! What can go wrong between a value and its bytes.

use std::any::type_name;
use std::fmt::Display;

use thiserror::Error;

/// A value could not be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot encode `{type_name}`: {cause}")]
pub struct EncodeError {
    /// Type of the whole value.
    pub type_name: &'static str,
    /// What its `Serialize`, or the codec, said.
    pub cause: String,
}

impl EncodeError {
    pub(crate) fn new(type_name: &'static str, cause: impl Display) -> Self {
        Self { type_name, cause: cause.to_string() }
    }

    /// Unwraps the text of a bincode error, which prints itself as a debug value.
    #[cold]
    pub(super) fn bincode<T: ?Sized>(cause: bincode::error::EncodeError) -> Self {
        use bincode::error::EncodeError as Bincode;
        let cause = match cause {
            Bincode::OtherString(text) => text,
            Bincode::Other(text) => text.to_owned(),
            other => other.to_string(),
        };
        Self { type_name: type_name::<T>(), cause }
    }

    /// Unwraps the text of a CBOR error, which prints itself as a debug value too.
    #[cold]
    pub(super) fn cbor<T: ?Sized>(cause: ciborium::ser::Error<std::io::Error>) -> Self {
        match cause {
            ciborium::ser::Error::Io(cause) => Self::new(type_name::<T>(), cause),
            ciborium::ser::Error::Value(text) => Self::new(type_name::<T>(), text),
        }
    }
}

/// Bytes could not be read as the type that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot decode `{type_name}`: {cause}")]
pub struct DecodeError {
    /// The type that was wanted.
    pub type_name: &'static str,
    /// What its `Deserialize`, or the codec, said.
    pub cause: String,
}

impl DecodeError {
    fn new(type_name: &'static str, cause: impl Display) -> Self {
        Self { type_name, cause: cause.to_string() }
    }

    /// Says a CBOR error in words.
    #[cold]
    pub(super) fn cbor<T>(cause: ciborium::de::Error<std::io::Error>) -> Self {
        use ciborium::de::Error as Cbor;
        let type_name = type_name::<T>();
        match cause {
            Cbor::Io(_) => Self::new(type_name, "the bytes end early"),
            Cbor::Syntax(at) => Self::new(type_name, format_args!("no CBOR at byte {at}")),
            Cbor::Semantic(_, text) => Self::new(type_name, text),
            Cbor::RecursionLimitExceeded => {
                Self::new(type_name, "it is nested more than 256 levels deep")
            }
        }
    }

    #[cold]
    pub(super) fn left_over<T>(bytes: usize) -> Self {
        Self::new(
            type_name::<T>(),
            format_args!(
                "{bytes} bytes are left over: its `Serialize` and `Deserialize` do not agree (for a \
                 type that bincode cannot represent put #[task(codec = \"cbor\")] on the function)"
            ),
        )
    }

    /// Turns the kinds that users meet into words; bincode prints itself as a debug value.
    #[cold]
    pub(super) fn bincode<T>(cause: bincode::error::DecodeError) -> Self {
        use bincode::error::DecodeError as Bincode;
        let cause = match cause {
            Bincode::OtherString(text) => text,
            Bincode::Other(text) => text.to_owned(),
            Bincode::UnexpectedEnd { additional } => {
                format!("the bytes end early, at least {additional} more are needed")
            }
            Bincode::Serde(_) => {
                "its `Deserialize` asks what comes next (`untagged`, `flatten`, an \
                 internally tagged enum, `serde_json::Value`), which bincode cannot answer: put \
                 #[task(codec = \"cbor\")] on the function"
                    .to_owned()
            }
            other => other.to_string(),
        };
        Self { type_name: type_name::<T>(), cause }
    }
}

/// An argument of one call could not be written; kept in the `Delayed` until it is run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("argument {} of `{function}` cannot be sent: {cause}", position + 1)]
pub struct ArgumentError {
    /// Name of the function.
    pub function: String,
    /// Which argument, from 0.
    pub position: u8,
    /// Why not.
    pub cause: String,
}
