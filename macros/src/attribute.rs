//! What stands in `#[task(...)]`, and in `#[main(...)]` and `#[test(...)]`.

use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Ident, LitBool, LitInt, LitStr, Path, Token, parse_quote};

use crate::signature::Parameter;
use crate::units;

/// Arguments that a later release will have.
const LATER: [&str; 3] = ["cache", "depends_on", "version"];

/// `#[task(...)]`, read.
#[derive(Default)]
pub(crate) struct TaskAttribute {
    pub(crate) name: Option<LitStr>,
    pub(crate) retries: Option<u32>,
    /// First and longest wait, in milliseconds.
    pub(crate) backoff: Option<(u64, u64)>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) queue_timeout_ms: Option<u64>,
    pub(crate) priority: Option<i16>,
    pub(crate) resources: Option<Resources>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) codec: Option<Codec>,
    pub(crate) wait: Option<Wait>,
    krate: Option<Path>,
}

/// `resources(...)`
pub(crate) struct Resources {
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) custom: Vec<(String, u32)>,
}

/// `wait`, `wait(...)`
pub(crate) enum Wait {
    /// For all executions among the arguments.
    All,
    /// For those in these.
    Only(Vec<Ident>),
}

/// `codec = "..."`
#[derive(Clone, Copy)]
pub(crate) enum Codec {
    Bincode,
    Cbor,
}

impl TaskAttribute {
    pub(crate) fn parse(tokens: Tokens) -> syn::Result<Self> {
        let mut read = Self::default();
        let mut seen = Vec::new();
        syn::meta::parser(|meta| read.argument(&meta, &mut seen)).parse2(tokens)?;
        Ok(read)
    }

    fn argument(&mut self, meta: &ParseNestedMeta<'_>, seen: &mut Vec<String>) -> syn::Result<()> {
        let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        if seen.contains(&key) {
            return Err(meta.error(format!("`{key}` is said twice")));
        }
        match key.as_str() {
            "name" => self.name = Some(name(meta)?),
            "retries" => self.retries = Some(number(meta)?),
            "backoff" => self.backoff = Some(backoff(meta)?),
            "timeout" => self.timeout_ms = Some(units::millis(&meta.value()?.parse()?)?),
            "queue_timeout" => {
                self.queue_timeout_ms = Some(units::millis(&meta.value()?.parse()?)?)
            }
            "priority" => self.priority = Some(signed(meta)?),
            "resources" => self.resources = Some(resources(meta)?),
            "idempotent" => self.idempotent = Some(flag(meta)?),
            "codec" => self.codec = Some(codec(meta)?),
            "wait" => self.wait = Some(wait(meta)?),
            "crate" => self.krate = Some(path(meta)?),
            later if LATER.contains(&later) => {
                return Err(
                    meta.error(format!("`{later}` is not available yet: remove it from #[task]"))
                );
            }
            _ => {
                return Err(meta.error(
                    "#[task] takes `name`, `retries`, `backoff`, `timeout`, `queue_timeout`, \
                     `priority`, `resources`, `idempotent`, `codec`, `wait` and `crate`",
                ));
            }
        }
        seen.push(key);
        Ok(())
    }

    /// The path of the crate `allhands`.
    pub(crate) fn krate(&self) -> Path {
        self.krate.clone().unwrap_or_else(|| parse_quote!(::allhands))
    }
}

/// The path of the crate `allhands` in an attribute that takes only `crate = path`.
pub(crate) fn only_crate(tokens: Tokens, attribute: &str) -> syn::Result<Path> {
    let mut krate = parse_quote!(::allhands);
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("crate") {
            return Err(meta.error(format!("#[{attribute}] takes only `crate = path`")));
        }
        krate = path(&meta)?;
        Ok(())
    });
    parser.parse2(tokens)?;
    Ok(krate)
}

fn path(meta: &ParseNestedMeta<'_>) -> syn::Result<Path> {
    meta.value()?.call(Path::parse_mod_style)
}

fn name(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    let name: LitStr = meta.value()?.parse()?;
    if name.value().trim().is_empty() {
        return Err(syn::Error::new(name.span(), "a task's name has at least one letter"));
    }
    Ok(name)
}

fn number(meta: &ParseNestedMeta<'_>) -> syn::Result<u32> {
    meta.value()?.parse::<LitInt>()?.base10_parse()
}

fn signed(meta: &ParseNestedMeta<'_>) -> syn::Result<i16> {
    let value = meta.value()?;
    let minus: Option<Token![-]> = value.parse()?;
    let number: LitInt = value.parse()?;
    let sign = if minus.is_some() { "-" } else { "" };
    format!("{sign}{}", number.base10_digits())
        .parse()
        .map_err(|_| syn::Error::new(number.span(), "a priority lies between -32768 and 32767"))
}

fn flag(meta: &ParseNestedMeta<'_>) -> syn::Result<bool> {
    if !meta.input.peek(Token![=]) {
        return Ok(true);
    }
    Ok(meta.value()?.parse::<LitBool>()?.value)
}

fn wait(meta: &ParseNestedMeta<'_>) -> syn::Result<Wait> {
    if !meta.input.peek(syn::token::Paren) {
        return Ok(Wait::All);
    }
    let listed;
    syn::parenthesized!(listed in meta.input);
    if listed.is_empty() {
        return Err(meta.error("`wait` alone waits for all executions, `wait(x)` for those in `x`"));
    }
    let names = listed.parse_terminated(Ident::parse_any, Token![,])?;
    Ok(Wait::Only(names.into_iter().collect()))
}

fn codec(meta: &ParseNestedMeta<'_>) -> syn::Result<Codec> {
    let name: LitStr = meta.value()?.parse()?;
    match name.value().as_str() {
        "bincode" => Ok(Codec::Bincode),
        "cbor" => Ok(Codec::Cbor),
        _ => Err(syn::Error::new(name.span(), "a codec is \"bincode\" or \"cbor\"")),
    }
}

fn backoff(meta: &ParseNestedMeta<'_>) -> syn::Result<(u64, u64)> {
    /// As in `allhands_common::policy::Backoff::default()`.
    const DEFAULT: (u64, u64) = (100, 30_000);

    if meta.input.peek(Token![=]) {
        let first = units::millis(&meta.value()?.parse()?)?;
        return Ok((first, first.max(DEFAULT.1)));
    }
    let (mut first, mut max) = (None, None);
    meta.parse_nested_meta(|part| {
        let place = match part.path.get_ident().map(ToString::to_string).as_deref() {
            Some("first") => &mut first,
            Some("max") => &mut max,
            _ => return Err(part.error("`backoff` takes `first` and `max`")),
        };
        *place = Some(units::millis(&part.value()?.parse()?)?);
        Ok(())
    })?;
    let first = first.unwrap_or(DEFAULT.0);
    let max = max.unwrap_or_else(|| first.max(DEFAULT.1));
    if max < first {
        return Err(meta.error("`max` of a backoff is at least its `first`"));
    }
    Ok((first, max))
}

fn resources(meta: &ParseNestedMeta<'_>) -> syn::Result<Resources> {
    let mut read = Resources { cpus: 1, memory_bytes: 0, custom: Vec::new() };
    meta.parse_nested_meta(|part| {
        let name = part.path.require_ident().map(Ident::unraw)?.to_string();
        match name.as_str() {
            "cpus" => read.cpus = number(&part)?,
            "memory" => read.memory_bytes = units::bytes(&part.value()?.parse()?)?,
            _ if read.custom.iter().any(|(there, _)| *there == name) => {
                return Err(part.error(format!("`{name}` is said twice")));
            }
            _ => read.custom.push((name, number(&part)?)),
        }
        Ok(())
    })?;
    Ok(read)
}

impl TaskAttribute {
    /// The policy as a constant `TaskPolicy`.
    pub(crate) fn policy(&self, private: &Tokens) -> Tokens {
        let retries = option(self.retries.map(|n| quote!(#n)));
        let backoff = option(self.backoff.map(
            |(first_ms, max_ms)| quote!(#private::Backoff { first_ms: #first_ms, max_ms: #max_ms }),
        ));
        let timeout_ms = option(self.timeout_ms.map(|n| quote!(#n)));
        let queue_timeout_ms = option(self.queue_timeout_ms.map(|n| quote!(#n)));
        let priority = option(self.priority.map(|n| quote!(#n)));
        let resources = option(self.resources.as_ref().map(|resources| {
            let Resources { cpus, memory_bytes, custom } = resources;
            let custom = custom.iter().map(|(name, count)| quote!((#name, #count)));
            quote!(#private::TaskResources {
                cpus: #cpus,
                memory_bytes: #memory_bytes,
                custom: &[#(#custom),*],
            })
        }));
        let idempotent = option(self.idempotent.map(|flag| quote!(#flag)));
        quote!(#private::TaskPolicy {
            retries: #retries,
            backoff: #backoff,
            timeout_ms: #timeout_ms,
            queue_timeout_ms: #queue_timeout_ms,
            priority: #priority,
            resources: #resources,
            idempotent: #idempotent,
        })
    }

    /// In which arguments executions have to have ended, a bit each.
    pub(crate) fn waits(&self, parameters: &[Parameter]) -> syn::Result<u8> {
        let names = match &self.wait {
            None => return Ok(0),
            Some(Wait::All) => return Ok(u8::MAX),
            Some(Wait::Only(names)) => names,
        };
        let bit = |name: &Ident| {
            let place = parameters.iter().position(|parameter| parameter.name == *name);
            place.map(|place| 1u8 << place).ok_or_else(|| {
                syn::Error::new(name.span(), format!("`{name}` is not a parameter of the task"))
            })
        };
        names.iter().try_fold(0, |bits, name| Ok(bits | bit(name)?))
    }

    /// The codec as a constant `Option<Codec>`.
    pub(crate) fn codec(&self, private: &Tokens) -> Tokens {
        option(self.codec.map(|codec| match codec {
            Codec::Bincode => quote!(#private::Codec::Bincode),
            Codec::Cbor => quote!(#private::Codec::Cbor),
        }))
    }
}

fn option(value: Option<Tokens>) -> Tokens {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(tokens: Tokens) -> String {
        TaskAttribute::parse(tokens).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn everything_at_once() {
        let read = TaskAttribute::parse(quote!(
            name = "a.b",
            retries = 3,
            backoff(first = "10ms", max = "1s"),
            timeout = "30s",
            queue_timeout = "5m",
            priority = -4,
            resources(cpus = 2, memory = "2GiB", gpu = 1),
            idempotent = false,
            codec = "cbor",
            crate = crate::inner
        ))
        .unwrap();
        assert_eq!(read.name.as_ref().unwrap().value(), "a.b");
        assert_eq!((read.retries, read.backoff), (Some(3), Some((10, 1000))));
        assert_eq!((read.timeout_ms, read.queue_timeout_ms), (Some(30_000), Some(300_000)));
        assert_eq!((read.priority, read.idempotent), (Some(-4), Some(false)));
        let resources = read.resources.as_ref().unwrap();
        assert_eq!((resources.cpus, resources.memory_bytes), (2, 2 << 30));
        assert_eq!(resources.custom, [("gpu".to_owned(), 1)]);
        assert!(matches!(read.codec, Some(Codec::Cbor)));
        let krate = read.krate();
        assert_eq!(quote!(#krate).to_string(), "crate :: inner");
    }

    #[test]
    fn what_is_not_said_stays_open() {
        let read = TaskAttribute::parse(Tokens::new()).unwrap();
        assert!(read.retries.is_none() && read.resources.is_none() && read.idempotent.is_none());
    }

    #[test]
    fn executions_to_wait_for_are_bits() {
        let function = syn::parse_quote!(
            fn f(user: u8, product: &str, _: u8) {}
        );
        let parameters = crate::signature::parameters(&function).unwrap();
        let waits = |tokens| TaskAttribute::parse(tokens).unwrap().waits(&parameters);
        assert_eq!(waits(Tokens::new()).unwrap(), 0);
        assert_eq!(waits(quote!(wait)).unwrap(), u8::MAX);
        assert_eq!(waits(quote!(wait(product))).unwrap(), 0b10);
        assert_eq!(waits(quote!(wait(product, user))).unwrap(), 0b11);
        let error = waits(quote!(wait(produce))).unwrap_err().to_string();
        assert_eq!(error, "`produce` is not a parameter of the task");
        assert!(self::error(quote!(wait())).starts_with("`wait` alone waits for all"));
    }

    #[test]
    fn errors_say_what_to_do() {
        for later in LATER {
            let ident = Ident::new(later, proc_macro2::Span::call_site());
            let says = format!("`{later}` is not available yet: remove it from #[task]");
            assert_eq!(error(quote!(#ident)), says);
        }
        assert!(error(quote!(retry = 3)).starts_with("#[task] takes `name`, `retries`"));
        assert_eq!(error(quote!(retries = 3, retries = 4)), "`retries` is said twice");
        assert!(error(quote!(timeout = "5 days")).starts_with("a time is a whole number"));
        assert_eq!(error(quote!(codec = "json")), "a codec is \"bincode\" or \"cbor\"");
        assert!(error(quote!(priority = 40000)).starts_with("a priority lies between"));
        assert!(error(quote!(backoff(first = "2s", max = "1s"))).starts_with("`max` of a backoff"));
    }
}
