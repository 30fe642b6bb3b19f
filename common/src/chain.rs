//! An error with its causes, as people read it.

use alloc::string::{String, ToString};
use core::error::Error;

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        next = cause.source();
        let cause = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn causes_follow_and_none_is_said_twice() {
        let link = |text, source: Option<Link>| Link { text, source: source.map(Into::into) };
        let error = link("outer: middle", Some(link("middle", Some(link("inner", None)))));
        assert_eq!(chain(&error), "outer: middle: inner");
    }
}
