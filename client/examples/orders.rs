//! A workflow: an order is made of a user and a product, which are loaded at the same time; somebody is told of it,
//! and nobody waits for that. Three ways to wire it.
//!
//! ```text
//! cargo run --release --example orders
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use allhands::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Product {
    id: u64,
    name: String,
    cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    text: String,
    cents: u64,
}

#[allhands::task(retries = 3)]
fn load_user(id: u64) -> Result<User, String> {
    match id {
        0 => Err("there is no user 0".into()),
        _ => Ok(User { id, name: format!("user {id}") }),
    }
}

#[allhands::task(retries = 3)]
fn load_product(id: u64) -> Result<Product, String> {
    Ok(Product { id, name: format!("product {id}"), cents: 100 * id })
}

fn order(user: &User, product: &Product) -> Order {
    Order { text: format!("{} for {}", product.name, user.name), cents: product.cents }
}

/// By value: it starts when both are there, and does not if one of them is an error.
#[allhands::task]
fn create_order(user: User, product: Product) -> Order {
    order(&user, &product)
}

/// By reference: it is given handles, and asks itself. It starts when the product is there, and waits for the user
/// while it runs, without holding up a slot.
#[allhands::task(wait(product))]
fn create_order_of(
    user: Execution<Result<User, String>>,
    product: Execution<Result<Product, String>>,
) -> Result<Order, String> {
    let product = product.ok().map_err(|error| error.to_string())?;
    let user = user.ok().map_err(|error| error.to_string())?;
    Ok(order(&user, &product))
}

/// Returns an execution: its own work is done when the calls are made, and what comes of them is its result.
#[allhands::task]
fn order_of(user: u64, product: u64) -> Result<Execution<Order>, String> {
    let submitted = (|| {
        let (user, product) = (load_user::submit(user)?, load_product::submit(product)?);
        create_order::submit(&user, &product)
    })();
    submitted.map_err(|error| error.to_string())
}

#[allhands::task]
#[expect(clippy::print_stderr, reason = "it is what telling somebody is here")]
fn notify(order: Order) {
    eprintln!("told somebody of {}", order.text);
}

#[allhands::main]
fn main() -> allhands::Result<()> {
    let (user, product) = (load_user::submit(7)?, load_product::submit(42)?);

    let by_value = create_order::submit(&user, &product)?;
    // Nobody waits for it; it runs all the same.
    notify::submit(&by_value)?;
    println!("by value: {:?}", by_value.result()?);

    let by_reference = create_order_of::submit(&user, &product)?;
    println!("by reference: {:?}", by_reference.ok()?);

    let returned = order_of::submit(7, 42)?.flatten();
    println!("returned: {:?}", returned.result()?);

    let nobody = load_user::submit(0)?;
    if let Some(error) = create_order::submit(&nobody, &product)?.error() {
        println!("without a user: {}", error.kind());
    }
    Ok(())
}
