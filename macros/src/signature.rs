//! Judges the signature of a task: which functions cannot be one, and what each parameter sends.

use proc_macro2::Span;
use quote::format_ident;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{
    Error, FnArg, GenericParam, Generics, Ident, ItemFn, Lifetime, Pat, ReturnType, Signature,
    Type, TypeImplTrait, TypeReference, parse_quote,
};

/// Most parameters, as in `allhands::Function`.
const PARAMETERS_MAX: usize = 8;

/// One parameter of a task.
pub(crate) struct Parameter {
    /// What the made functions call it: its own name, where its pattern is one.
    pub(crate) name: Ident,
    /// The type that travels, or what is behind the reference.
    pub(crate) ty: Type,
    /// Whether the function takes a reference to it.
    pub(crate) lent: bool,
}

/// The parameters of a function that can be a task.
pub(crate) fn parameters(function: &ItemFn) -> syn::Result<Vec<Parameter>> {
    let signature = &function.sig;
    let mut errors = Errors::default();
    refuse_kinds(signature, &mut errors);
    let mut parameters = Vec::new();
    for (place, input) in signature.inputs.iter().enumerate() {
        match input {
            FnArg::Receiver(receiver) => errors.add(
                receiver.span(),
                "#[task] goes on free functions: for a method that takes `self` use \
                 `delayed(Type::method)`",
            ),
            FnArg::Typed(typed) => {
                refuse_impl_trait(&typed.ty, "parameter", &mut errors);
                parameters.push(parameter(place, &typed.pat, &typed.ty, &mut errors));
            }
        }
    }
    if parameters.len() > PARAMETERS_MAX {
        let ninth = signature.inputs[PARAMETERS_MAX].span();
        errors
            .add(ninth, "a task has eight parameters at most: put several into a struct or tuple");
    }
    errors.into_result()?;
    Ok(parameters)
}

fn refuse_kinds(signature: &Signature, errors: &mut Errors) {
    if signature.ident.to_string().starts_with("r#") {
        errors.add(
            signature.ident.span(),
            "a task cannot have a raw identifier as its name: rename the function",
        );
    }
    if let Some(unsafety) = &signature.unsafety {
        let says = "a task cannot be `unsafe`: put the unsafe call into a safe function";
        errors.add(unsafety.span(), says);
    }
    if let Some(abi) = &signature.abi {
        errors.add(abi.span(), "a task cannot be `extern`: call it from an ordinary function");
    }
    if let Some(variadic) = &signature.variadic {
        errors.add(variadic.span(), "a task has a fixed number of parameters");
    }
    let ReturnType::Type(_, output) = &signature.output else {
        return;
    };
    refuse_impl_trait(output, "result", errors);
    if let Type::Reference(reference) = output.as_ref() {
        errors.add(
            reference.span(),
            "a task cannot return a reference: its result travels, so return an owned value",
        );
    }
}

fn parameter(place: usize, pattern: &Pat, ty: &Type, errors: &mut Errors) -> Parameter {
    let name = match pattern {
        Pat::Ident(ident) if ident.subpat.is_none() => ident.ident.clone(),
        _ => format_ident!("arg{place}", span = pattern.span()),
    };
    let (mut ty, lent) = match ty {
        Type::Reference(TypeReference { mutability: Some(mutability), .. }) => {
            errors.add(
                mutability.span(),
                "a task cannot change its caller's value: take it by value and return it",
            );
            (ty.clone(), false)
        }
        Type::Reference(reference) => (reference.elem.as_ref().clone(), true),
        owned => (owned.clone(), false),
    };
    StaticLifetimes.visit_type_mut(&mut ty);
    Parameter { name, ty, lent }
}

fn refuse_impl_trait(ty: &Type, what: &str, errors: &mut Errors) {
    struct Find<'a>(&'a mut Errors, &'a str);

    impl Visit<'_> for Find<'_> {
        fn visit_type_impl_trait(&mut self, found: &TypeImplTrait) {
            let what = self.1;
            let says = format!(
                "a task's {what} has a name: write a generic `T` (or the type) in place of `impl`"
            );
            self.0.add(found.span(), &says);
        }
    }

    Find(errors, what).visit_type(ty);
}

/// Lifetimes have no place in what travels: all become `'static`.
struct StaticLifetimes;

impl VisitMut for StaticLifetimes {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        *lifetime = Lifetime::new("'static", lifetime.span());
    }

    fn visit_type_bare_fn_mut(&mut self, _: &mut syn::TypeBareFn) {
        // Its lifetimes are its own.
    }
}

/// The type that the function returns.
pub(crate) fn output(signature: &Signature) -> Type {
    match &signature.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => {
            let mut ty = ty.as_ref().clone();
            StaticLifetimes.visit_type_mut(&mut ty);
            ty
        }
    }
}

/// The generics that the made functions have: types and constants, no lifetimes.
pub(crate) fn generics(signature: &Signature) -> Generics {
    let mut generics = signature.generics.clone();
    let kept = |parameter: &GenericParam| !matches!(parameter, GenericParam::Lifetime(_));
    generics.params = generics.params.into_iter().filter(kept).collect();
    if let Some(bounds) = &mut generics.where_clause {
        let kept = |bound: &syn::WherePredicate| !matches!(bound, syn::WherePredicate::Lifetime(_));
        bounds.predicates =
            std::mem::take(&mut bounds.predicates).into_iter().filter(kept).collect();
    }
    StaticLifetimes.visit_generics_mut(&mut generics);
    generics
}

/// All that is wrong, as one error.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, span: Span, says: &str) {
        let error = Error::new(span, says);
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn into_result(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
