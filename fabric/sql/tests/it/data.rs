//! Tables in memory: TPC-H at scale 0.01, and small tables with all that goes wrong.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use tpchgen::generators as g;
use tpchgen_arrow as a;
use weft_sql::{Table, TableColumn};

/// A table with all of its rows.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) name: &'static str,
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Data {
    pub(crate) fn new(name: &'static str, batches: Vec<RecordBatch>) -> Self {
        let batches: Vec<RecordBatch> = batches.iter().map(with_plain_strings).collect();
        let schema = batches.first().expect("a table has a batch").schema();
        Self {
            name,
            schema,
            batches,
        }
    }

    pub(crate) fn table(&self) -> Table {
        let bytes = self.batches.iter().map(RecordBatch::get_array_memory_size);
        let rows = self.batches.iter().map(RecordBatch::num_rows);
        let column = TableColumn {
            prunes: true,
            ..TableColumn::default()
        };
        Table {
            name: self.name.to_owned(),
            schema: Arc::clone(&self.schema),
            rows: Some(rows.sum::<usize>() as u64),
            bytes: Some(bytes.sum::<usize>() as u64),
            columns: vec![column; self.schema.fields().len()],
        }
    }
}

/// Scans give plain strings, generators views.
fn with_plain_strings(batch: &RecordBatch) -> RecordBatch {
    let plain = |field: &FieldRef| match field.data_type() {
        DataType::Utf8View => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)) as FieldRef
        }
        _ => Arc::clone(field),
    };
    let fields: Vec<FieldRef> = batch.schema().fields().iter().map(plain).collect();
    let columns = batch.columns().iter().zip(&fields);
    let columns = columns
        .map(|(column, field)| cast(column, field.data_type()).expect("views become strings"))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

/// One process, one partition: the results that stages must have.
pub(crate) fn plain_context(tables: &[Data]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for data in tables {
        let rows = vec![data.batches.clone()];
        let table =
            MemTable::try_new(Arc::clone(&data.schema), rows).expect("rows have the schema");
        let registered = context.register_table(data.name, Arc::new(table));
        registered.expect("names differ");
    }
    context
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future)
}

pub(crate) static TPCH: LazyLock<Vec<Data>> = LazyLock::new(|| {
    const SCALE: f64 = 0.01;
    let all = |batches: &mut dyn Iterator<Item = Result<RecordBatch, ArrowError>>| {
        let batches = batches.collect::<Result<Vec<_>, _>>();
        batches.expect("generators do not fail")
    };
    macro_rules! table {
        ($name:literal, $arrow:ident, $rows:ident, $batch_rows:literal) => {{
            let rows = a::$arrow::new(g::$rows::new(SCALE, 1, 1));
            Data::new($name, all(&mut rows.with_batch_size($batch_rows)))
        }};
    }
    vec![
        table!("nation", NationArrow, NationGenerator, 5),
        table!("region", RegionArrow, RegionGenerator, 2),
        table!("part", PartArrow, PartGenerator, 250),
        table!("supplier", SupplierArrow, SupplierGenerator, 20),
        table!("partsupp", PartSuppArrow, PartSuppGenerator, 1000),
        table!("customer", CustomerArrow, CustomerGenerator, 200),
        table!("orders", OrderArrow, OrderGenerator, 1500),
        table!("lineitem", LineItemArrow, LineItemGenerator, 4000),
    ]
});

/// Five rows a batch, a key with nulls (not in w), zeros of both signs, NaN, and a table without rows.
pub(crate) static SMALL: LazyLock<Vec<Data>> = LazyLock::new(|| {
    vec![
        small("t", "0 AND 59", 3),
        small("u", "40 AND 51", 3),
        small("w", "40 AND 51", 9),
        small("e", "1 AND 0", 3),
    ]
});

fn small(name: &'static str, ids: &str, null: u32) -> Data {
    let sql = format!(
        "SELECT value AS id, CASE WHEN value % 7 <> {null} THEN value % 7 END AS k,
             value * 37 % 61 AS v, concat('s', value % 4) AS s,
             CASE value % 4 WHEN 0 THEN 0.0 WHEN 1 THEN -0.0 WHEN 2 THEN 'NaN'::double ELSE 1.5 END AS f
         FROM generate_series(0, 59) WHERE value BETWEEN {ids} ORDER BY value"
    );
    let rows = block_on(async {
        let frame = SessionContext::new()
            .sql(&sql)
            .await
            .expect("a right statement");
        let schema = Arc::clone(frame.schema().inner());
        let batches = frame.collect().await.expect("rows without faults");
        concat_batches(&schema, &batches).expect("batches of one schema")
    });
    let n = rows.num_rows();
    let batches = (0..n.max(1))
        .step_by(5)
        .map(|at| rows.slice(at, 5.min(n - at)));
    Data::new(name, batches.collect())
}
