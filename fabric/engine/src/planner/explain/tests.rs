//! Texts of plans, of jobs over files of CSV. Nothing of them runs.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use weft_core::JobId;
use weft_core::job::{MAX_KEPT_BYTES, decode};
use weft_protocol::{PlanRequest, plan_text_key};
use weft_sql::Session;
use weft_store::Blobs;

use super::*;
use crate::planner::Planner;

/// A join whose rows are sorted, and shuffled after that: orders are the larger side.
fn request(folder: &Path, check: bool) -> PlanRequest {
    let orders: String = (0..200).map(|n| format!("{n},{},{n}\n", n % 3)).collect();
    for (name, rows) in [
        ("orders-1.csv", format!("id,user_id,amount\n{orders}")),
        ("orders-2.csv", format!("id,user_id,amount\n{orders}")),
        ("users.csv", "id,country\n0,de\n1,fr\n2,it\n".to_owned()),
    ] {
        std::fs::write(folder.join(name), rows).expect("it writes");
    }
    let sql = "SELECT u.country, o.amount FROM orders o JOIN 'users.csv' u ON o.user_id = u.id ORDER BY o.amount";
    let spec = json!({
        "name": "explained",
        "input": { "orders": { "format": "csv", "uri": folder.join("orders-*.csv") } },
        "stage": [
            { "name": "large", "from": ["orders"], "sql": sql, "folder": folder, "partitions": 3 },
            { "name": "sorted", "from": "large", "shuffle": { "keys": ["country"], "partitions": 2 } },
        ],
        "output": { "sorted": { "from": "sorted", "format": "csv", "uri": folder.join("out") } },
    });
    PlanRequest {
        job: JobId::new(1, 2),
        spec: decode(&spec).expect("it is right"),
        functions: Vec::new(),
        artefacts: BTreeMap::new(),
        started_ms: 0,
        check,
        tables: BTreeMap::new(),
        max_kept_bytes: MAX_KEPT_BYTES,
    }
}

/// The texts that a check answers with, and those that a job keeps.
async fn texts_of(request: &PlanRequest, store: &Path) -> (Vec<StageText>, Option<Vec<StageText>>) {
    let blobs = Blobs::local(store).expect("a folder");
    let (session, cancel) = (Session::new(), CancellationToken::new());
    let mut planner = Planner::new(request, &blobs, HashMap::new(), &session, cancel);
    planner.plan().await.expect("it is planned");
    let answered = std::mem::take(&mut planner.texts);
    let kept = match blobs.get(&plan_text_key(&request.job)).await {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("a list of texts")),
        Err(_) => None,
    };
    (answered, kept)
}

#[tokio::test]
async fn a_stage_says_what_it_reads_and_where_its_rows_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let request = request(folder.path(), true);
    let (texts, _) = texts_of(&request, &folder.path().join("store")).await;
    let bytes = |name: &str| {
        let metadata = std::fs::metadata(folder.path().join(name));
        metadata.expect("it is there").len()
    };
    let orders = bytes("orders-1.csv") + bytes("orders-2.csv");
    let users = bytes("users.csv");
    let reads: Vec<String> = texts.iter().map(|text| text.reads.join("\n")).collect();
    let of_orders = format!("orders: csv, 2 files, {orders} bytes; columns user_id, amount");
    assert_eq!(
        reads,
        [
            format!("users.csv: csv, 1 file, {users} bytes; columns id, country"),
            format!("large.1: broadcast; columns id, country\n{of_orders}"),
            "large.2: ranged, merged; columns country, amount".to_owned(),
            "large: partitioned, sorted by country; columns country, amount".to_owned(),
        ]
    );
    let writes: Vec<String> = texts.iter().map(|text| text.writes.join("\n")).collect();
    let out = folder.path().join("out");
    assert_eq!(
        writes,
        [
            "to 1 partition, for large.2".to_owned(),
            "to 1 partition, sorted by amount, for large".to_owned(),
            "by hash of country into 2 partitions, sorted, for sorted".to_owned(),
            format!("to the output sorted: csv in {}", out.display()),
        ]
    );
    let join: Vec<&str> = texts[1].operators.iter().map(|line| line.trim()).collect();
    for leaf in [
        "Read: large.1, all rows",
        "Scan: table=orders, columns=[user_id, amount]",
    ] {
        assert!(join.contains(&leaf), "`{leaf}` is not in {join:#?}");
    }
    assert!(texts[3].operators.is_empty(), "{texts:#?}");
    assert!(texts.iter().all(|text| text.omitted_lines == 0));
}

#[tokio::test]
async fn a_check_answers_with_what_a_job_keeps() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let (answered, kept) = texts_of(&request(folder.path(), true), &store).await;
    assert_eq!((answered.len(), kept), (4, None), "a check writes nothing");
    let (told, kept) = texts_of(&request(folder.path(), false), &store).await;
    assert_eq!((told, kept), (Vec::new(), Some(answered)));
}
