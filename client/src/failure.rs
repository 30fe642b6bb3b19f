//! Errors of functions whose error type is not a serde type.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An error as text: what any error becomes when it leaves its process.
///
/// `?` makes one of every [`std::error::Error`], as with `anyhow`:
///
/// ```
/// fn lines(path: String) -> Result<usize, allhands::Failure> {
///     Ok(std::fs::read_to_string(path)?.lines().count())
/// }
/// assert!(lines("/does/not/exist".into()).unwrap_err().to_string().contains("No such file"));
/// ```
///
/// It does not implement `Error` itself (that is what makes `?` possible); `?` turns it into a
/// `Box<dyn Error + Send + Sync>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
}

impl Failure {
    /// An error that says `message`.
    pub fn msg(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), causes: Vec::new() }
    }

    /// The error's own text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The texts of its `source()`, of that one's, and so on.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.causes.iter().map(String::as_str)
    }

    fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        Self { message: error.to_string(), causes: causes.map(ToString::to_string).collect() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The text and its causes, for a `main` that returns it.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, "\n  caused by: {cause}"))
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

/// [`Failure`] as an `Error`, its causes as `source()`.
struct Link {
    text: String,
    source: Option<Box<Self>>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl Error for Link {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|link| link as _)
    }
}

impl From<Failure> for Link {
    fn from(failure: Failure) -> Self {
        let causes = failure.causes.into_iter().rev();
        let source = causes.fold(None, |source, text| Some(Box::new(Self { text, source })));
        Self { text: failure.message, source }
    }
}

impl From<Failure> for Box<dyn Error + Send + Sync> {
    fn from(failure: Failure) -> Self {
        Box::new(Link::from(failure))
    }
}

impl From<Failure> for Box<dyn Error> {
    fn from(failure: Failure) -> Self {
        Box::new(Link::from(failure))
    }
}

/// An error type without serde that a task may return: the client gets a [`Failure`] in its place.
///
/// Implemented for the common errors of the standard library. For one of your own one line is enough:
///
/// ```
/// # #[derive(Debug)] struct DeviceError;
/// # impl std::fmt::Display for DeviceError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("device") }
/// # }
/// # impl std::error::Error for DeviceError {}
/// impl allhands::OpaqueError for DeviceError {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is an error type that a task cannot return",
    label = "neither serde nor `allhands::OpaqueError`",
    note = "return `Result<T, allhands::Failure>` (`?` converts) or implement \
            `allhands::OpaqueError` for it"
)]
pub trait OpaqueError: fmt::Display + Sized {
    /// What the client gets: the text. Say `self.into()` to keep the causes of a `std` error.
    fn into_failure(self) -> Failure {
        Failure::msg(self)
    }
}

macro_rules! opaque {
    ($($error:ty,)*) => {$(
        impl OpaqueError for $error {
            fn into_failure(self) -> Failure {
                self.into()
            }
        }
    )*};
}

opaque! {
    std::io::Error,
    fmt::Error,
    std::array::TryFromSliceError,
    std::char::ParseCharError,
    std::env::VarError,
    std::net::AddrParseError,
    std::num::ParseFloatError,
    std::num::ParseIntError,
    std::num::TryFromIntError,
    std::str::ParseBoolError,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::sync::mpsc::RecvError,
    std::time::SystemTimeError,
}

impl OpaqueError for Box<dyn Error + Send + Sync> {
    fn into_failure(self) -> Failure {
        Failure::of(&*self)
    }
}

impl OpaqueError for Box<dyn Error> {
    fn into_failure(self) -> Failure {
        Failure::of(&*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse() -> Result<u8, Failure> {
        Ok("x".parse::<u8>()?)
    }

    #[test]
    fn the_causes_survive_the_way_out_and_back() {
        let inner = std::io::Error::other(Link {
            text: "outer".into(),
            source: Some(Box::new(Link { text: "inner".into(), source: None })),
        });
        let failure = inner.into_failure();
        assert_eq!(failure.message(), "outer");
        assert_eq!(failure.causes().collect::<Vec<_>>(), ["inner"]);
        assert_eq!(format!("{failure:?}"), "outer\n  caused by: inner");

        let error: Box<dyn Error + Send + Sync> = failure.clone().into();
        assert_eq!(error.source().unwrap().to_string(), "inner");
        assert_eq!(error.into_failure(), failure);
    }

    #[test]
    fn the_question_mark_converts() {
        assert_eq!(parse().unwrap_err().to_string(), "invalid digit found in string");
    }
}
