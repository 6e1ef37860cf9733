//! Components that lie about themselves.

use weft_core::Description;
use weft_sandbox::Result;

use crate::support::{check_schema, start};

async fn describe(lie: &str) -> Result<Description> {
    let mut guest = start("hostile").await;
    let prepared = guest.run_task("describe", &[], 0, lie.as_bytes()).await;
    prepared.expect("the lie is known");
    guest.describe().await
}

#[tokio::test]
async fn lies_are_found_and_quoted_with_care() {
    for (lie, part) in [
        ("name", "`../../etc/passwd`"),
        ("no-name", "the name ``"),
        ("escaping-name", r"\u{1b}[2J"),
        ("huge-name", "nnnn"),
        ("version", "the version `1`, which is not semver"),
        ("huge-version", "not semver"),
        ("function-name", "at position 1"),
        ("twice", "lists `spin` twice"),
        ("twice-of-two-kinds", "lists `spin` twice"),
        ("twice-as-an-actor", "lists `spin` twice"),
        ("actor-name", "at position 1"),
        ("no-functions", "lists 0 functions"),
        ("many-functions", "lists 2000 functions"),
        ("huge-summary", "the summary of `spin`"),
    ] {
        check_schema(describe(lie).await, part);
    }
}

#[tokio::test]
async fn the_truth_is_taken() {
    let found = describe("").await.expect("it is no lie");
    assert_eq!(found.name, "hostile");
    assert_eq!(found.functions.len(), 1);
}
