//! Writes what `#[task]` makes beside the untouched function `heavy`: an empty enum `heavy` (it lives
//! in the type namespace, where the function does not) with `heavy::delayed`, and in an unnamed
//! constant the task's record, its registration and the checks of its types.

use proc_macro2::TokenStream as Tokens;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, GenericParam, Generics, Ident, ItemFn, Type};

use crate::attribute::{Codec, TaskAttribute};
use crate::digest;
use crate::signature::{self, Parameter};

/// The items that stand beside the function.
pub(crate) fn expand(attribute: Tokens, item: Tokens) -> syn::Result<Tokens> {
    let function: ItemFn = syn::parse2(item.clone()).map_err(|error| {
        syn::Error::new(error.span(), format!("#[task] goes on free functions: {error}"))
    })?;
    let attribute = TaskAttribute::parse(attribute)?;
    let parameters = signature::parameters(&function)?;
    if let Some(when) = &attribute.when
        && !signature::generics(&function.sig).params.is_empty()
    {
        let says = "of a generic task, `when` is said at the call: `.retry_when(predicate)`";
        return Err(syn::Error::new_spanned(when, says));
    }
    let krate = attribute.krate();
    let task = Task {
        wait: attribute.waits(&parameters)?,
        private: quote!(#krate::__private),
        krate: quote!(#krate),
        name: &function.sig.ident,
        output: signature::output(&function.sig),
        generics: signature::generics(&function.sig),
        parameters,
        attribute,
        function: &function,
    };
    Ok(task.items(item))
}

struct Task<'a> {
    krate: Tokens,
    private: Tokens,
    name: &'a Ident,
    output: Type,
    generics: Generics,
    parameters: Vec<Parameter>,
    /// In which arguments executions have to have ended, a bit each.
    wait: u8,
    attribute: TaskAttribute,
    function: &'a ItemFn,
}

impl Task<'_> {
    fn items(&self, item: Tokens) -> Tokens {
        let Self { name, function, .. } = self;
        let vis = &function.vis;
        let cfgs: Vec<&Attribute> =
            function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
        let parts =
            [self.record(item), self.marker(), self.wrapper(), self.delayed(), self.checks()];
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            #[allow(non_camel_case_types, dead_code)]
            #vis enum #name {}

            #(#cfgs)*
            const _: () = { #(#parts)* };
        }
    }

    /// The task's record, in the program's list of tasks.
    fn record(&self, item: Tokens) -> Tokens {
        let Self { private, name, attribute, wait, output, .. } = self;
        let full_name = match &attribute.name {
            Some(given) => quote!(#given),
            None => {
                let own = name.to_string();
                quote!(::core::concat!(::core::module_path!(), "::", #own))
            }
        };
        let codec_name = match attribute.codec {
            None => "",
            Some(Codec::Bincode) => "bincode",
            Some(Codec::Cbor) => "cbor",
        };
        let digest = digest::constant(item, codec_name, private);
        let policy = attribute.policy(private, output);
        let begin = self.begin();
        let codec = attribute.codec(private);
        // A generic function has many types, known only where it is used.
        let function = (!self.is_generic()).then(|| quote!(#private::type_id_of(&#name)));
        quote! {
            #[#private::linkme::distributed_slice(#private::TASKS)]
            #[linkme(crate = #private::linkme)]
            static __ALLHANDS_TASK: #private::Task = #private::Task {
                name: #full_name,
                digest: #digest,
                policy: #policy,
                wait: #wait,
                codec: #codec,
                functions: &[#function],
                begin: #begin,
            };
        }
    }

    /// What asks how its calls begin, where it is async; of a generic one that is not asked.
    fn begin(&self) -> Tokens {
        let Self { private, name, function, .. } = self;
        if function.sig.asyncness.is_none() || self.is_generic() {
            return quote!(::core::option::Option::None);
        }
        let called = self.called();
        let types = self.parameters.iter().map(|parameter| self.owned(parameter));
        quote_spanned! {name.span()=> {
            fn begin() -> ::core::option::Option<#private::BeginFn> {
                #[allow(unused_imports)]
                use #private::Stays as _;
                #private::Begins::<_, (#(#types,)*), _>::of(&#called).begin()
            }
            ::core::option::Option::Some(begin)
        }}
    }

    fn marker(&self) -> Tokens {
        let Self { private, name, .. } = self;
        let debug = if self.is_generic() {
            quote!(::core::option::Option::None)
        } else {
            let texts = self.parameters.iter().enumerate().map(|(place, parameter)| {
                let ty = self.owned(parameter);
                quote!((&#private::ArgText::<#ty>::new()).text(codec, args, #place))
            });
            let names: Vec<String> = self
                .parameters
                .iter()
                .map(|parameter| format!("{} = {{}}", parameter.name))
                .collect();
            let format = format!("({})", names.join(", "));
            quote! {{
                fn debug(codec: #private::Codec, args: &[&[u8]]) -> ::std::string::String {
                    #[allow(unused_imports)]
                    use #private::{BytesText as _, DebugText as _};
                    let _ = (codec, args);
                    ::std::format!(#format, #(#texts),*)
                }
                ::core::option::Option::Some(debug)
            }}
        };
        quote! {
            impl #private::Marker for #name {
                const TASK: ::core::option::Option<&'static #private::Task> =
                    ::core::option::Option::Some(&__ALLHANDS_TASK);
                const DEBUG: ::core::option::Option<#private::DebugFn> = #debug;
            }
        }
    }

    /// For a function that borrows: one that owns, and lends.
    fn wrapper(&self) -> Tokens {
        if !self.lends() {
            return Tokens::new();
        }
        let Self { krate, name, output, generics, .. } = self;
        let asyncness = &self.function.sig.asyncness;
        let wait = asyncness.map(|_| quote!(.await));
        let turbofish = self.turbofish();
        let bounds = &generics.where_clause;
        let names = self.parameters.iter().map(|parameter| &parameter.name);
        let types = self.parameters.iter().map(|parameter| self.owned(parameter));
        let arguments = self.parameters.iter().map(|parameter| {
            let Parameter { name, ty, lent } = parameter;
            match lent {
                true => quote_spanned!(ty.span()=> <#ty as #krate::TaskRef>::lend(&#name)),
                false => quote!(#name),
            }
        });
        quote! {
            #[allow(clippy::too_many_arguments)]
            #asyncness fn __allhands_lend #generics(#(#names: #types),*) -> #output #bounds {
                #name #turbofish(#(#arguments),*) #wait
            }
        }
    }

    fn delayed(&self) -> Tokens {
        let Self { krate, private, name, output, .. } = self;
        let vis = &self.function.vis;
        let turbofish = self.turbofish();
        let called = self.called();
        let names: Vec<&Ident> = self.parameters.iter().map(|parameter| &parameter.name).collect();
        let types: Vec<Tokens> =
            self.parameters.iter().map(|parameter| self.owned(parameter)).collect();
        // What kind of result it is, is for inference to find; but a generic function is called with
        // its own parameters in a turbofish, which leaves no room for one more.
        let mut generics = self.generics.clone();
        let kind = if self.is_generic() {
            quote!(#krate::Value)
        } else {
            generics.params.push(syn::parse_quote!(__Kind));
            let bound = syn::parse_quote!(#output: #krate::Ret<__Kind>);
            generics.make_where_clause().predicates.push(bound);
            quote!(__Kind)
        };
        let mut value = quote!(<#output as #krate::Ret<#kind>>::Value);
        let recurrent = self.attribute.recurrent.then(|| quote!(.recurrent()));
        if recurrent.is_some() {
            let bound = syn::parse_quote!(#value: #krate::Recurs);
            generics.make_where_clause().predicates.push(bound);
            value = quote!(<#value as #krate::Recurs>::Value);
        }
        let bounds = &generics.where_clause;
        let kind_of_call = match &self.function.sig.asyncness {
            Some(_) => quote!(#krate::Async<#kind>),
            None => quote!(#kind),
        };
        let doc = format!("The call `{name}(..)`, to be run by `Parallel`.");
        let doc_submit =
            format!("Submits the call `{name}(..)`; what comes of it is in the `Execution`.");
        let call = quote! {
            #private::task_call::<#name, _, (#(#types,)*), #kind_of_call, _>(
                #called #turbofish,
                (#(#names,)*),
            ) #recurrent
        };
        quote! {
            #[allow(dead_code, non_camel_case_types, clippy::too_many_arguments)]
            impl #name {
                #[doc = #doc]
                #[inline]
                #vis fn delayed #generics(
                    #(#names: impl #krate::IntoArg<#types>),*
                ) -> #krate::Delayed<#value>
                #bounds
                {
                    #call
                }

                #[doc = #doc_submit]
                #[inline]
                #vis fn submit #generics(
                    #(#names: impl #krate::IntoArg<#types>),*
                ) -> #krate::Result<#krate::Execution<#value>>
                #bounds
                {
                    #call.submit()
                }
            }
        }
    }

    /// Each type on its own, so that an error points at it even if the task is never used.
    fn checks(&self) -> Tokens {
        let Self { krate, output, generics, .. } = self;
        let bounds = &generics.where_clause;
        let parameters = self.parameters.iter().map(|parameter| {
            let ty = self.owned(parameter);
            quote_spanned!(parameter.ty.span()=> argument::<#ty>();)
        });
        let kind = if self.is_generic() { quote!(#krate::Value) } else { quote!(_) };
        let mut result = quote_spanned!(output.span()=> result::<#output, #kind>(););
        if self.attribute.recurrent && !self.is_generic() {
            result.extend(quote_spanned!(output.span()=> recurs::<#output, #kind>();));
        }
        quote! {
            #[allow(dead_code)]
            fn __allhands_check #generics() #bounds {
                fn argument<T: #krate::Arg>() {}
                fn result<R: #krate::Ret<K>, K>() {}
                fn recurs<R: #krate::Ret<K, Value: #krate::Recurs>, K>() {}
                #(#parameters)*
                #result
            }
        }
    }

    /// The type of a parameter that travels.
    fn owned(&self, parameter: &Parameter) -> Tokens {
        let (krate, ty) = (&self.krate, &parameter.ty);
        match parameter.lent {
            true => quote_spanned!(ty.span()=> <#ty as #krate::TaskRef>::Owned),
            false => quote!(#ty),
        }
    }

    /// The function that takes what travels.
    fn called(&self) -> Tokens {
        let name = self.name;
        if self.lends() { quote!(__allhands_lend) } else { quote!(#name) }
    }

    fn lends(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.lent)
    }

    fn is_generic(&self) -> bool {
        !self.generics.params.is_empty()
    }

    /// The generic parameters as arguments, `::<T, N>`, if there are any.
    fn turbofish(&self) -> Option<Tokens> {
        let arguments = self.generics.params.iter().filter_map(|parameter| match parameter {
            GenericParam::Type(ty) => Some(&ty.ident),
            GenericParam::Const(constant) => Some(&constant.ident),
            GenericParam::Lifetime(_) => None,
        });
        self.is_generic().then(|| quote!(::<#(#arguments),*>))
    }
}
