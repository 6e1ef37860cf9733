//! Values that a controller lists, as a batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use weft_core::{ErrorCode, Problem};
use weft_protocol::{Listing, ListingColumn, ListingValues, RowsFormat};

use crate::arrow_messages::schema_bytes;
use crate::encode::{self, Encoder};
use crate::planner::listed_schema;
use crate::stream::{ENCODED_BYTES, Outgoing, unwritten};

/// Encodes and sends a listing. Errors: `internal` if its columns differ in length. A table whose definition
/// cannot be read is listed without columns.
pub(crate) async fn send(
    listing: &Listing,
    format: RowsFormat,
    mut out: Outgoing,
) -> Result<(), Problem> {
    let batch = batch(listing)?;
    let encoder = Encoder::rows(format, batch.schema_ref(), out.encoded.clone());
    let mut encoder = encoder.map_err(|error| unwritten(&error))?;
    for rows in encode::slices(&batch, ENCODED_BYTES) {
        if rows.num_rows() > 0 {
            encoder.write(&rows).map_err(|error| unwritten(&error))?;
            out.send().await?;
        }
    }
    encoder.finish().map_err(|error| unwritten(&error))?;
    out.send().await
}

fn batch(listing: &Listing) -> Result<RecordBatch, Problem> {
    let columns = listing.columns.iter().map(column);
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        columns.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| {
        let detail = format!("a listing is no table: {error}");
        Problem::new(ErrorCode::Internal, detail)
    })
}

fn column(ListingColumn { name, values }: &ListingColumn) -> Result<(Field, ArrayRef), Problem> {
    match values {
        ListingValues::Texts { values, nullable } => {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(values));
            Ok((Field::new(name, DataType::Utf8, *nullable), texts))
        }
        ListingValues::Schemas { tables } => {
            let schema = |(name, definition): &(String, String)| {
                // One table of a later version, say, must not hide all others.
                let schema = listed_schema(name, definition).unwrap_or_else(|problem| {
                    tracing::warn!(table = name, %problem, "a table is listed without its columns");
                    Arc::new(Schema::empty())
                });
                schema_bytes(&schema).map_err(|error| unwritten(&error))
            };
            let schemas = tables.iter().map(schema);
            let schemas = schemas.collect::<Result<Vec<_>, Problem>>()?;
            let schemas: ArrayRef = Arc::new(BinaryArray::from_iter_values(schemas));
            Ok((Field::new(name, DataType::Binary, false), schemas))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::ipc::reader::StreamReader;

    use super::*;

    fn texts(name: &str, values: &[&str], nullable: bool) -> ListingColumn {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        ListingColumn {
            name: name.to_owned(),
            values: ListingValues::Texts { values, nullable },
        }
    }

    #[test]
    fn tables_are_listed_with_the_schemas_of_their_definitions() {
        let columns = r#"[{"name":"n","type":"int64"},{"name":"raw","type":"binary"},
            {"name":"at","type":"timestamp-us"},{"name":"price","type":"decimal128(10, 2)"}]"#;
        let view = format!(r#"{{"view":{{"sql":"SELECT 1","folder":null,"columns":{columns}}}}}"#);
        let listing = Listing {
            columns: vec![
                texts("catalog_name", &[""], true),
                texts("table_name", &["v"], false),
                ListingColumn {
                    name: "table_schema".into(),
                    values: ListingValues::Schemas {
                        tables: vec![("v".into(), view)],
                    },
                },
            ],
        };
        let batch = batch(&listing).expect("it is a table");
        let schema = batch.schema();
        let nullable: Vec<bool> = schema
            .fields()
            .iter()
            .map(|one| one.is_nullable())
            .collect();
        assert_eq!(nullable, [true, false, false]);
        let reader = StreamReader::try_new(batch.column(2).as_binary::<i32>().value(0), None);
        let schema = reader.expect("a stream").schema();
        let types: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| weft_sandbox::type_name(field.data_type()))
            .collect();
        let expected = ["int64", "binary", "timestamp-us", "decimal128(10, 2)"];
        assert_eq!(types, expected);
    }

    #[test]
    fn a_table_whose_definition_cannot_be_read_does_not_hide_others() {
        let view =
            r#"{"view":{"sql":"SELECT 1","folder":null,"columns":[{"name":"n","type":"int64"}]}}"#;
        let tables = [("later", r#"{"later":{}}"#), ("v", view)];
        let tables = tables.map(|(name, definition)| (name.into(), definition.into()));
        let values = ListingValues::Schemas {
            tables: tables.to_vec(),
        };
        let name = "table_schema".into();
        let columns = vec![ListingColumn { name, values }];
        let batch = batch(&Listing { columns }).expect("it is a table");
        let schemas = batch.column(0).as_binary::<i32>();
        let n_fields = [0, 1].map(|row| {
            let reader = StreamReader::try_new(schemas.value(row), None);
            reader.expect("a stream").schema().fields().len()
        });
        assert_eq!(n_fields, [0, 1]);
    }

    #[test]
    fn a_listing_whose_columns_differ_in_length_is_refused() {
        let columns = vec![texts("a", &["x"], false), texts("b", &[], false)];
        let refused = batch(&Listing { columns }).expect_err("it is no table");
        assert_eq!(refused.code, ErrorCode::Internal);
    }
}
