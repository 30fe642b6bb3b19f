//! `#[main]` and `#[test]`: a process that was started as an executor becomes one at their first
//! statement; and what a program has started ends with its `main`.

use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Attribute, Error, ItemFn};

use crate::attribute::only_crate;

/// `fn main() { enter; <the original, renamed>; }`, so that what makes `main` async goes on the inner.
/// The guard outlives the original, so that what calls have started ends with it.
pub(crate) fn main(attribute: Tokens, item: Tokens) -> syn::Result<Tokens> {
    let krate = only_crate(attribute, "allhands::main")?;
    let function = function(item, "#[allhands::main] goes on `fn main()`")?;
    if function.sig.asyncness.is_some() && !function.attrs.iter().any(is_runtime) {
        return Err(Error::new_spanned(
            function.sig.asyncness,
            "`main` is async and nothing runs it: put #[tokio::main] below #[allhands::main]",
        ));
    }
    Ok(around(
        &function,
        &quote!(),
        &function.attrs,
        &quote!(let _entered = #krate::__private::enter_main();),
    ))
}

/// `#[test] fn name() { enter_test("path::of::name"); ... }`
pub(crate) fn test(attribute: Tokens, item: Tokens) -> syn::Result<Tokens> {
    let krate = only_crate(attribute, "allhands::test")?;
    let function = function(item, "#[allhands::test] goes on a function without parameters")?;
    if let Some(second) = function.attrs.iter().find(|attribute| ends_with(attribute, "test")) {
        return Err(Error::new_spanned(
            second,
            "#[allhands::test] is a #[test] already: remove this one (for an async test put \
             #[tokio::main(flavor = \"current_thread\")] in its place)",
        ));
    }
    let (inner, outer): (Vec<_>, Vec<_>) = function.attrs.iter().cloned().partition(is_runtime);
    if function.sig.asyncness.is_some() && inner.is_empty() {
        return Err(Error::new_spanned(
            function.sig.asyncness,
            "the test is async and nothing runs it: put \
             #[tokio::main(flavor = \"current_thread\")] below #[allhands::test]",
        ));
    }
    let name = function.sig.ident.to_string();
    let path = quote!(::core::concat!(::core::module_path!(), "::", #name));
    let enter = quote!(#krate::__private::enter_test(#path););
    let outer = quote!(#[::core::prelude::v1::test] #(#outer)*);
    Ok(around(&function, &outer, &inner, &enter))
}

fn function(item: Tokens, says: &str) -> syn::Result<ItemFn> {
    let function: ItemFn =
        syn::parse2(item).map_err(|error| Error::new(error.span(), format!("{says}: {error}")))?;
    match function.sig.inputs.first() {
        Some(parameter) => Err(Error::new_spanned(parameter, says)),
        None => Ok(function),
    }
}

/// A function of the same name and result that says `first`, then calls the original inside of it.
fn around(function: &ItemFn, outer: &Tokens, inner: &[Attribute], first: &Tokens) -> Tokens {
    let ItemFn { vis, sig, block, .. } = function;
    let (name, output) = (&sig.ident, &sig.output);
    let mut original = sig.clone();
    original.ident = quote::format_ident!("__{name}");
    let original_name = &original.ident;
    quote! {
        #outer
        #vis fn #name() #output {
            #first
            #(#inner)*
            #original #block
            #original_name()
        }
    }
}

/// Whether the attribute makes an async function one that can be called: `#[tokio::main]` and others.
fn is_runtime(attribute: &Attribute) -> bool {
    ends_with(attribute, "main")
}

fn ends_with(attribute: &Attribute, name: &str) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(made: syn::Result<Tokens>) -> String {
        made.map_or_else(|error| error.to_string(), |tokens| tokens.to_string())
    }

    #[test]
    fn main_enters_first_and_keeps_its_runtime() {
        let made = main(
            Tokens::new(),
            quote!(
                #[tokio::main]
                async fn main() -> R {
                    body()
                }
            ),
        );
        let expected = quote! {
            fn main() -> R {
                let _entered = ::allhands::__private::enter_main();
                #[tokio::main]
                async fn __main() -> R { body() }
                __main()
            }
        };
        assert_eq!(text(made), expected.to_string());
    }

    #[test]
    fn a_test_enters_first_under_its_own_path() {
        let made = test(
            quote!(crate = a::b),
            quote!(
                #[should_panic]
                fn t() {
                    body()
                }
            ),
        );
        let expected = quote! {
            #[::core::prelude::v1::test]
            #[should_panic]
            fn t() {
                a::b::__private::enter_test(::core::concat!(::core::module_path!(), "::", "t"));
                fn __t() { body() }
                __t()
            }
        };
        assert_eq!(text(made), expected.to_string());
    }

    #[test]
    fn errors_say_what_to_do() {
        let nothing = Tokens::new;
        let runtime = text(test(
            nothing(),
            quote!(
                async fn t() {}
            ),
        ));
        assert!(runtime.contains("#[tokio::main(flavor = \"current_thread\")] below"), "{runtime}");
        let twice = text(test(
            nothing(),
            quote!(
                #[tokio::test]
                async fn t() {}
            ),
        ));
        assert!(twice.starts_with("#[allhands::test] is a #[test] already"), "{twice}");
        let parameter = text(main(
            nothing(),
            quote!(
                fn main(n: u8) {}
            ),
        ));
        assert_eq!(parameter, "#[allhands::main] goes on `fn main()`");
        let other = text(main(
            quote!(x = y),
            quote!(
                fn main() {}
            ),
        ));
        assert_eq!(other, "#[allhands::main] takes only `crate = path`");
    }
}
