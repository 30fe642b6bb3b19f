//! What the compiler says to a user who got something wrong, word for word.
//!
//! The passing case is also what makes trybuild run `cargo build` rather than `cargo check`: the
//! assertion on captures needs code generation. After a change on purpose:
//! `TRYBUILD=overwrite cargo test -p allhands --no-default-features --test ui`, and read the difference.

#[test]
fn compile_errors() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass*.rs");
    cases.compile_fail("tests/ui/fail_*.rs");
}
