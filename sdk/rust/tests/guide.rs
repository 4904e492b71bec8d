//! The program in docs/guide.md is one that compiles.

const GUIDE: &str = include_str!("../../../docs/guide.md");
const EXAMPLE: &str = include_str!("../examples/tally.rs");

#[test]
fn the_guide_shows_the_example_as_it_is() {
    let shown = GUIDE.split("```rust\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    assert_eq!(shown, EXAMPLE.trim_end(), "copy sdk/rust/examples/tally.rs into docs/guide.md");
}
