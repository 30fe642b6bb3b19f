//! The digest of a task's source, as far as its tokens say it.
//!
//! Hashed is the kind, length and text of each token, so that the digest does not change with the
//! compiler, with line ends, comments or whitespace. Runs of joint punctuation are cut greedily by
//! rustc's list of operators: `a && b` differs from `a & &b`, and no other spacing counts. Groups
//! without delimiters (from `macro_rules`) are transparent; a trailing comma in a group and doc
//! comments do not count. `TokenStream::to_string()` differs between compilers: it is never hashed.
//!
//! A macro sees code before `cfg`s are decided and before files are included. What these will say is
//! mixed in at compile time, by the constant that [`constant`] writes.

use std::iter::Peekable;

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, Group, Spacing, TokenStream as Tokens, TokenTree};
use quote::quote;

/// Operators of more than one character, longest first.
const OPERATORS: [&str; 25] = [
    "<<=", ">>=", "...", "..=", "&&", "||", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=", "%=",
    "^=", "&=", "|=", "<<", ">>", "..", "::", "->", "=>", "<-",
];

/// FNV-1a with 128 bits: its start and its prime. The other half is `allhands::__private::Digest`.
const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A constant `Digest` of the function `item`, whose calls use the codec that `codec` says.
pub(crate) fn constant(item: Tokens, codec: &str, private: &Tokens) -> Tokens {
    let mut walker = Walker { state: START, decided_later: Vec::new() };
    walker.token(b'C', codec);
    walker.tokens(item);
    let Walker { state, decided_later } = walker;
    quote!(#private::Digest(#state).crate_of(::core::module_path!()) #(#decided_later)*)
}

struct Walker {
    state: u128,
    /// Calls on the `Digest` for what only the compiler knows.
    decided_later: Vec<Tokens>,
}

impl Walker {
    fn byte(&mut self, byte: u8) {
        self.state = (self.state ^ u128::from(byte)).wrapping_mul(PRIME);
    }

    fn token(&mut self, kind: u8, text: &str) {
        self.byte(kind);
        for byte in (text.len() as u64).to_le_bytes() {
            self.byte(byte);
        }
        for byte in text.bytes() {
            self.byte(byte);
        }
    }

    fn tokens(&mut self, tokens: Tokens) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) => {
                    let text = ident.to_string();
                    self.token(b'I', &text);
                    self.macro_call(&text, &tokens);
                }
                TokenTree::Literal(literal) => self.token(b'L', &literal.to_string()),
                TokenTree::Group(group) => self.group(&group),
                token if is_punct(&token, ',') && tokens.peek().is_none() => {}
                TokenTree::Punct(punct) => {
                    let mut run = String::from(punct.as_char());
                    let mut joint = punct.spacing() == Spacing::Joint;
                    while let (true, Some(TokenTree::Punct(next))) = (joint, tokens.peek()) {
                        run.push(next.as_char());
                        joint = next.spacing() == Spacing::Joint;
                        tokens.next();
                    }
                    self.punctuation(&run, &mut tokens);
                }
            }
        }
    }

    fn group(&mut self, group: &Group) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => return self.tokens(group.stream()),
        };
        self.token(b'G', open);
        self.tokens(group.stream());
        self.token(b'G', close);
    }

    /// Takes a run of punctuation, and the attribute that it opens, if it does.
    fn punctuation(&mut self, run: &str, rest: &mut Peekable<IntoIter>) {
        let before = run.strip_suffix("#!").or_else(|| run.strip_suffix('#'));
        let Some(before) = before else {
            return self.operators(run);
        };
        // Whether `#` and `!` are joint is not the same everywhere.
        let mut ahead = rest.clone();
        let apart = run.ends_with('#') && ahead.next_if(|token| is_punct(token, '!')).is_some();
        let Some(TokenTree::Group(group)) = ahead.next() else {
            return self.operators(run);
        };
        if group.delimiter() == Delimiter::Bracket && is_doc(&group) {
            rest.nth(usize::from(apart));
            return self.operators(before);
        }
        self.attribute(&group);
        self.operators(run);
    }

    fn operators(&mut self, mut run: &str) {
        while let Some(first) = run.chars().next() {
            let operator = OPERATORS.into_iter().find(|operator| run.starts_with(operator));
            let length = operator.map_or_else(|| first.len_utf8(), str::len);
            self.token(b'P', &run[..length]);
            run = &run[length..];
        }
    }

    /// `#[cfg(p)]` and `#[cfg_attr(p, ...)]`: what `p` says is mixed in.
    fn attribute(&mut self, group: &Group) {
        let mut inside = group.stream().into_iter();
        let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(arguments))) =
            (inside.next(), inside.next())
        else {
            return;
        };
        if name == "cfg" || name == "cfg_attr" {
            let predicate: Tokens =
                arguments.stream().into_iter().take_while(|token| !is_punct(token, ',')).collect();
            self.decided_later.push(quote!(.flag(::core::cfg!(#predicate))));
        }
    }

    /// `cfg!(..)`, `include_str!(..)`, `env!(..)` and their like: what they yield is mixed in.
    fn macro_call(&mut self, name: &str, rest: &Peekable<IntoIter>) {
        let kinds = ["cfg", "env", "include", "include_bytes", "include_str", "option_env"];
        if !kinds.contains(&name) {
            return;
        }
        let mut ahead = rest.clone();
        if ahead.next_if(|token| is_punct(token, '!')).is_none() {
            return;
        }
        let Some(TokenTree::Group(arguments)) = ahead.next() else {
            return;
        };
        let arguments = arguments.stream();
        self.decided_later.push(match name {
            "cfg" => quote!(.flag(::core::cfg!(#arguments))),
            "env" => quote!(.bytes(::core::env!(#arguments).as_bytes())),
            "option_env" => quote!(.option(::core::option_env!(#arguments))),
            _ => quote!(.bytes(::core::include_bytes!(#arguments))),
        });
    }
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Whether an attribute's group is that of a doc comment: `doc = "..."`.
fn is_doc(group: &Group) -> bool {
    let mut inside = group.stream().into_iter();
    let name = inside.next();
    matches!(name, Some(TokenTree::Ident(name)) if name == "doc")
        && inside.next().is_some_and(|token| is_punct(&token, '='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(source: &str) -> String {
        constant(source.parse().unwrap(), "", &quote!(p)).to_string()
    }

    #[track_caller]
    fn same(a: &str, b: &str) {
        assert_eq!(digest(a), digest(b), "{a} | {b}");
    }

    #[track_caller]
    fn other(a: &str, b: &str) {
        assert_ne!(digest(a), digest(b), "{a} | {b}");
    }

    #[test]
    fn whitespace_comments_and_trailing_commas_do_not_count() {
        same("fn f(a: u8, b: u8) { a+1 }", "fn  f ( a : u8 ,\r\n b : u8 , )\n{ a + 1 /* x */ }");
        same("fn f() { g(-1) }", "/// Doc\nfn f() { //! inner\n g( - 1) }");
        same("fn f() { struct S { a: u8 } }", "fn f() { struct S { /// nested\n a: u8 } }");
        same("fn f() { a=-1 }", "fn f() { a = -1 }");
    }

    #[test]
    fn code_counts() {
        other("a && b", "a & &b");
        other("a + 1", "a + 2");
        other("f(1, 2)", "f(12)");
        other("\"a\" \"b\"", "\"ab\"");
        other("(a)", "[a]");
        other("#[inline] fn f() {}", "fn f() {}");
        other("{ a } b", "{ a b }");
        other("x :: y", "x : : y");
    }

    #[test]
    fn a_group_without_delimiters_is_transparent() {
        let inner: Tokens = "1 + 2".parse().unwrap();
        let group = TokenTree::Group(Group::new(Delimiter::None, inner.clone()));
        let of = |tokens| constant(tokens, "", &quote!(p)).to_string();
        assert_eq!(of(quote!(a(#group))), of(quote!(a(#inner))));
    }

    #[test]
    fn what_the_compiler_decides_is_mixed_in() {
        let made = digest(
            "fn f() { #[cfg(unix)] a(); if cfg!(debug_assertions) { include_str!(\"x.sql\") }
              #[cfg_attr(test, inline)] fn g() {} std::env!(\"HOME\"); option_env!(\"X\") }",
        );
        let order = [
            ". flag (:: core :: cfg ! (unix))",
            ". flag (:: core :: cfg ! (debug_assertions))",
            ". bytes (:: core :: include_bytes ! (\"x.sql\"))",
            ". flag (:: core :: cfg ! (test))",
            ". bytes (:: core :: env ! (\"HOME\") . as_bytes ())",
            ". option (:: core :: option_env ! (\"X\"))",
        ];
        let places: Vec<_> = order.iter().map(|part| made.find(part).unwrap()).collect();
        assert!(places.is_sorted(), "{made}");
    }

    #[test]
    fn the_codec_counts() {
        let of = |codec| constant(quote!(a), codec, &quote!(p)).to_string();
        assert_ne!(of("bincode"), of("cbor"));
    }

    #[test]
    fn the_digest_of_a_known_source_never_changes() {
        // What is cached under it would be lost.
        let made = digest("pub fn f(a: u64) -> u64 { a * 2 }");
        assert!(
            made.starts_with("p :: Digest (209634768621116538387785720056470760043u128)"),
            "{made}"
        );
    }
}
