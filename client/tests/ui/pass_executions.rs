//! Which executions a parameter takes, and that literals and empty values are still inferred.
#![deny(warnings, missing_docs, unreachable_pub, private_interfaces)]
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use allhands::{Cluster, Execution, Until, as_completed, call, delayed, select, wait};

/// Takes a value.
#[allhands::task]
pub fn number(n: u64) -> u64 {
    n
}

/// May fail.
#[allhands::task]
pub fn load(id: u64) -> Result<String, String> {
    Ok(id.to_string())
}

/// Leads elsewhere.
#[allhands::task]
pub fn leads(id: u64) -> Result<Execution<Result<String, String>>, String> {
    load::submit(id).map_err(|error| error.to_string())
}

/// Takes what was returned, whole.
#[allhands::task]
pub fn whole(loaded: Result<String, String>) -> bool {
    loaded.is_ok()
}

/// Takes handles.
#[allhands::task(wait(first))]
pub fn handles(first: Execution<u64>, others: Vec<Execution<u64>>) -> usize {
    others.len() + usize::from(first.done())
}

/// Borrows.
#[allhands::task(wait)]
pub fn borrows(text: &str, path: &Path, numbers: &[u64], pair: &(u8, u8)) -> usize {
    text.len() + path.as_os_str().len() + numbers.len() + usize::from(pair.0)
}

/// Many things to infer.
#[allhands::task]
pub fn inferred(a: i64, b: f64, c: Option<u8>, d: Vec<String>, e: (u8, f32)) -> bool {
    a > 0 && b > 0.0 && c.is_some() && d.is_empty() && e.0 > 0
}

/// Of any type.
#[allhands::task]
pub fn total<T>(all: Vec<T>) -> usize
where
    T: serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    all.len()
}

#[expect(dead_code, reason = "it only has to compile")]
fn arguments(cluster: &Cluster) -> allhands::Result<()> {
    let n = number::submit(1)?;
    number::submit(&n)?;
    number::submit(n.clone())?;
    number::submit(&cluster.submit(call(|n: Execution<u64>| n, (&n,)))?)?;

    let loaded = load::submit(&n)?;
    whole::submit(&loaded)?;
    let length = |text: String| text.len();
    call(length, (&loaded,)).submit()?;
    let led = leads::submit(7)?;
    call(length, (&led,)).submit()?;
    let nested = call(|n: u64| load::submit(n).ok(), (&n,)).submit()?;
    let _: Execution<Option<Execution<Result<String, String>>>> = nested;
    let inner: Execution<Result<String, String>> = led.flatten();
    call(length, (inner,)).submit()?;

    let many: Vec<Execution<u64>> = vec![n.clone(), n.clone()];
    handles::submit(&n, many.clone())?;
    call(|all: Vec<u64>| all.len(), (&many,)).submit()?;
    call(|all: Vec<u64>| all.len(), (&many[..],)).submit()?;
    total::submit::<u64>(&many)?;

    let text = delayed(|| String::from("a"))().submit()?;
    let path = delayed(|| PathBuf::from("a"))().submit()?;
    let numbers = delayed(|| vec![1u64])().submit()?;
    let fallible = delayed(|| Ok::<_, String>(vec![1u64]))().submit()?;
    let pair = delayed(|| (1u8, 2u8))().submit()?;
    borrows::submit(&text, &path, &numbers, &pair)?;
    borrows::submit("a", Path::new("a"), &fallible, (1, 2))?;
    borrows::submit(&text, path, &many, pair)?;
    borrows::submit(&String::new(), "a", &many[..], (1, 2))?;

    inferred::submit(-1, 1.5, None, vec![], (1, 2.0))?;
    inferred::submit(1 << 3, -1.0, Some(3), vec!["a".into()], (1, 2.0))?.cancel();
    let executions: Vec<Execution<u64>> =
        (0..4).map(number::delayed).map(|call| call.submit()).collect::<Result<_, _>>()?;
    wait(&executions, Until::FirstError);
    select(&executions, true);
    for (_, result) in as_completed(&executions) {
        let _: u64 = result?;
    }
    number::delayed(&n).retries(3).submit()?.on_done(|n| drop(n.result()));
    Ok(())
}

#[expect(dead_code, reason = "it only has to compile")]
async fn awaits() -> allhands::Result<u64> {
    let n = number::submit(1)?;
    Ok((&n).await? + n.await?)
}

#[expect(dead_code, reason = "it only has to compile")]
fn travels<T: Send + Sync + Clone + serde::Serialize + serde::de::DeserializeOwned>() {
    fn checked<T: Send + Sync + Clone + serde::Serialize + serde::de::DeserializeOwned>() {}
    checked::<Execution<std::cell::Cell<u8>>>();
}

fn main() {}
