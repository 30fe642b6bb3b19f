use allhands::task;

#[task(cache)]
fn cached() {}

#[task(retry = 3)]
fn unknown() {}

#[task(timeout = "5 days")]
fn slow() {}

#[task(codec = "json")]
fn coded() {}

#[task(resources(memory = "much"))]
fn large() {}

fn main() {}
