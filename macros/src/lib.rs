//! `#[task]`, `#[main]` and `#[test]` of allhands. Users get them from the crate `allhands`, where
//! they are documented with the rest.
//!
//! `task.rs` is the map: it reads the attribute (`attribute.rs`), judges the signature
//! (`signature.rs`), hashes the source (`digest.rs`) and writes the items. `enter.rs` has the two
//! attributes by which a program, or a test, becomes an executor when it was started as one.
//!
//! On an error the user's own tokens are handed back with it, so that the editor goes on.

mod attribute;
mod digest;
mod enter;
mod signature;
mod task;
mod units;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;

/// Gives a function a stable name, a policy, and the forms `heavy::delayed(..)` and `heavy::submit(..)`.
///
/// ```ignore
/// #[allhands::task(retries = 3, timeout = "30s", resources(cpus = 2, memory = "4GiB"))]
/// fn mean(xs: &[f64]) -> f64 {
///     xs.iter().sum::<f64>() / xs.len() as f64
/// }
///
/// mean(&data);                    // runs here and now
/// mean::delayed(&data);           // a call for `Parallel`
/// mean::submit(&data)?;           // sent at once; what comes of it is in an `Execution`
/// ```
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `name = "..."` | stable name | path of the function |
/// | `retries = n` | runs after a panic, timeout or `Err` | 0 |
/// | `when = predicate` | which failures `retries` is about: a `fn(&E) -> bool`, or a `fn(&str) -> bool` on the text | all |
/// | `backoff = "100ms"`, `backoff(first = "100ms", max = "30s")` | wait before a retry, doubling | 100 ms, 30 s |
/// | `delay = "2s"` | how long after its submit it starts at the earliest | none |
/// | `recurrent` | it returns `Option<T>`, or a `Result` of one, and is run again (after `delay`) until that is `Some`; its call gives a `T`. `delayed(f)` of it runs once | it runs once |
/// | `memo` | equal calls that are submitted are one, the first; those of a `Parallel` all run | each runs |
/// | `defer` | of equal calls that are submitted and were not begun the newest runs, and is all of them; usually with `delay` | each runs |
/// | `group = "..."` | what its calls are part of, for people and to cancel them together | none |
/// | `deadline = "1h"` | how long a call may take from its submit, with all its waits, tries and rounds | none |
/// | `timeout = "30s"` | how long a run may take | none |
/// | `queue_timeout = "5m"` | how long a call may wait for a slot, once its delay is over and those are there that it waits for | none |
/// | `priority = n` | higher first | 0 |
/// | `resources(cpus = 2, memory = "2GiB", gpu = 1)` | what a run needs | one cpu |
/// | `idempotent = false` | never run a second time after a lost worker | `true` |
/// | `codec = "bincode"`, `"cbor"` | forces the codec of arguments and results | found by trying |
/// | `wait`, `wait(x, y)` | parameters that are (or hold) executions have them ended before it starts | it asks itself |
/// | `crate = path` | where the crate `allhands` is | `::allhands` |
///
/// Times are numbers with `ms`, `s`, `m` or `h`; sizes with `B`, `KiB`, `MiB`, `GiB`, `TiB` or
/// their decimal forms.
///
/// Parameters may be `&str`, `&Path`, `&[T]` and `&T`: the executor owns the value and lends it. A
/// generic task returns a serde type; for other errors it returns `Result<T, allhands::Failure>`.
/// The attribute goes on free functions; for methods there is `delayed(Type::method)`. The item that
/// it makes is a type of the function's name: a task must not be named like a type, module or crate
/// that is used beside it.
///
/// # `async fn`
///
/// While an `async fn` awaits executions it has neither slot nor thread: thousands wait in one process. It goes on in
/// whichever thread is free, so its future has to be `Send`; if it is not, or if the task is generic, it frees its slot
/// while it waits, but keeps a thread. While it awaits anything else, a timer or a socket, it keeps its slot. tokio's
/// runtime is there, with time and I/O. What it spawns there is not the task: that has no `allhands::context()` and can
/// neither submit nor await executions; `join!` and `FuturesUnordered` are the task itself.
///
/// # The source digest
///
/// The digest covers the function's tokens (not comments, not whitespace), the values of the `cfg`s
/// and the files and variables that its body includes at compile time. It does not follow calls. A
/// spurious change costs one recomputation; a change outside the function is not seen.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = Tokens::from(item);
    let made = task::expand(attribute.into(), item.clone());
    // The function itself is never touched, whatever becomes of the rest.
    let rest = made.unwrap_or_else(|error| error.to_compile_error());
    quote!(#item #rest).into()
}

/// Makes `main` enter the executor when this process was started as one, and ends the cluster that
/// calls have started when it is left (`allhands::shutdown`).
///
/// Works above and below `#[tokio::main]`. Takes `crate = path`.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    entered(enter::main, attribute.into(), item.into())
}

/// `#[test]` for tests that run something through allhands: the test's own executable is the program,
/// and enters the executor in this test when it was started as one.
///
/// Works with `#[should_panic]`, `#[ignore]` and `-> Result`; for an `async` test put
/// `#[tokio::main(flavor = "current_thread")]` below it. Takes `crate = path`.
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    entered(enter::test, attribute.into(), item.into())
}

fn entered(
    expand: fn(Tokens, Tokens) -> syn::Result<Tokens>,
    attribute: Tokens,
    item: Tokens,
) -> TokenStream {
    let made = expand(attribute, item.clone()).unwrap_or_else(|error| {
        let error = error.to_compile_error();
        quote!(#item #error)
    });
    made.into()
}
