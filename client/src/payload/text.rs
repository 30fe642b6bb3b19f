//! Arguments as text, for the error of a task. Made on demand, from their bytes.

use std::fmt::{self, Debug, Write};
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Codec, decode};

/// Bytes shown of a value that has no `Debug`: enough to tell two calls apart.
const SHOWN_BYTES_MAX: usize = 16;

/// Text shown of a value that has `Debug`, in bytes: a line or two of a terminal.
const TEXT_BYTES_MAX: usize = 200;

/// What an argument without `Debug` is shown as: its length and its first bytes.
pub(crate) fn bytes_text(bytes: &[u8]) -> String {
    let mut text = format!("<{} bytes", bytes.len());
    if !bytes.is_empty() {
        text.push(':');
    }
    for (place, byte) in bytes.iter().take(SHOWN_BYTES_MAX).enumerate() {
        let gap = if place.is_multiple_of(4) { " " } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{gap}{byte:02x}");
    }
    text.push_str(if bytes.len() > SHOWN_BYTES_MAX { " …>" } else { ">" });
    text
}

/// One argument of a `#[task]` function, of type `T`: `(&ArgText::<T>::new()).text(...)` is what
/// `Debug` says if `T` has it, else `bytes_text`. The reference is what lets method lookup choose:
/// it meets [`DebugText`] first and [`BytesText`] one reference later.
#[derive(Debug)]
pub struct ArgText<T>(PhantomData<T>);

impl<T> ArgText<T> {
    /// Stands for an argument of type `T`.
    #[expect(clippy::new_without_default, reason = "only the output of `#[task]` makes one")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// Text of arguments that have `Debug`.
pub trait DebugText {
    /// The argument at `position` as text.
    fn text(&self, codec: Codec, args: &[&[u8]], position: usize) -> String;
}

impl<T: Debug + DeserializeOwned> DebugText for ArgText<T> {
    fn text(&self, codec: Codec, args: &[&[u8]], position: usize) -> String {
        let bytes = args.get(position).copied().unwrap_or_default();
        let Ok(value) = decode::<T>(codec, bytes) else {
            return bytes_text(bytes);
        };
        let mut short = Short(String::new());
        // The only error is that the text is full.
        if write!(short, "{value:?}").is_err() {
            short.0.push('…');
        }
        short.0
    }
}

/// Text of arguments that have not.
pub trait BytesText {
    /// The argument at `position` as text.
    fn text(&self, codec: Codec, args: &[&[u8]], position: usize) -> String;
}

impl<T> BytesText for &ArgText<T> {
    fn text(&self, _: Codec, args: &[&[u8]], position: usize) -> String {
        bytes_text(args.get(position).copied().unwrap_or_default())
    }
}

/// A string that stops taking text at [`TEXT_BYTES_MAX`].
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_BYTES_MAX - self.0.len();
        let end = text.floor_char_boundary(room);
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{ArgText, BytesText, DebugText, bytes_text};
    use crate::payload::{Codec, encode};

    struct Silent;

    fn encoded(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Codec::Bincode, text, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn length_and_the_first_sixteen() {
        assert_eq!(bytes_text(&[]), "<0 bytes>");
        assert_eq!(bytes_text(&[1, 2, 3, 4, 255]), "<5 bytes: 01020304 ff>");
        assert_eq!(bytes_text(&[7; 40]), "<40 bytes: 07070707 07070707 07070707 07070707 …>");
    }

    #[test]
    fn debug_where_there_is_one() {
        let bytes = encoded("hé");
        let args = [bytes.as_slice()];
        assert_eq!(ArgText::<String>::new().text(Codec::Bincode, &args, 0), "\"hé\"");
        assert!(
            (&ArgText::<Silent>::new()).text(Codec::Bincode, &args, 0).starts_with("<11 bytes")
        );
        assert_eq!(ArgText::<u64>::new().text(Codec::Bincode, &[&[1]], 0), "<1 bytes: 01>");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let bytes = encoded(&"é".repeat(5_000));
        let text = ArgText::<String>::new().text(Codec::Bincode, &[&bytes], 0);
        assert!(text.len() <= 203 && text.ends_with("é…"), "{text}");
    }
}
