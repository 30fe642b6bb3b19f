#[allhands::main]
async fn main() {}
