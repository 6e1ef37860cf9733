//! Every type of the contract goes from the host to a guest and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array,
    DictionaryArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeBinaryArray, LargeListArray, LargeStringArray, ListArray,
    RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Int8Type, Int32Type, Schema, SchemaRef};

use crate::support::{check_schema, map, start};

const ROWS: usize = 67;

/// True for rows that are not null.
fn valid(row: usize) -> bool {
    row % 5 != 2
}

fn some<T>(make: impl Fn(usize) -> T) -> impl Iterator<Item = Option<T>> {
    (0..ROWS).map(move |row| valid(row).then(|| make(row)))
}

fn texts() -> Vec<Option<String>> {
    some(|row| "ä".repeat(row % 4) + &row.to_string()).collect()
}

fn bytes() -> Vec<Option<Vec<u8>>> {
    some(|row| vec![row as u8 | 0x80; row % 7]).collect()
}

fn list_of(items: ArrayRef, nullable: bool) -> ListArray {
    let field = Arc::new(Field::new("item", items.data_type().clone(), true));
    let lengths = (0..ROWS).map(|row| usize::from(row + 1 < ROWS && valid(row)));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let nulls = nullable.then(|| (0..ROWS).map(valid).collect::<NullBuffer>());
    ListArray::new(field, offsets, items, nulls)
}

fn decimals() -> Decimal128Array {
    let values = some(|row| (row as i128 - 30) * 1_000_000_000_000_000_000_000);
    let array: Decimal128Array = values.collect();
    array.with_precision_and_scale(38, 9).expect("it fits")
}

fn structs(members: Vec<(&str, ArrayRef)>) -> StructArray {
    let fields: Fields = members
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = members.into_iter().map(|(_, array)| array).collect();
    let nulls = (0..ROWS).map(|row| row % 3 != 1).collect::<NullBuffer>();
    StructArray::new(fields, arrays, Some(nulls))
}

/// A column of every type that guests see, with nulls.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let texts: ArrayRef = Arc::new(StringArray::from(texts()));
    let numbers: ArrayRef = Arc::new(some(|row| row as i64 * 7).collect::<Int64Array>());
    let list: ArrayRef = Arc::new(list_of(Arc::clone(&texts), true));
    let pair: ArrayRef = Arc::new(structs(vec![("n", numbers), ("list", Arc::clone(&list))]));
    let bytes = BinaryArray::from_iter(bytes());
    vec![
        (
            "boolean",
            Arc::new(some(|row| row % 2 == 0).collect::<BooleanArray>()),
        ),
        (
            "int8",
            Arc::new(some(|row| row as i8 - 30).collect::<Int8Array>()),
        ),
        (
            "int16",
            Arc::new(some(|row| row as i16 * -300).collect::<Int16Array>()),
        ),
        (
            "int32",
            Arc::new(some(|row| i32::MIN + row as i32).collect::<Int32Array>()),
        ),
        (
            "int64",
            Arc::new(some(|row| i64::MAX - row as i64).collect::<Int64Array>()),
        ),
        (
            "uint8",
            Arc::new(some(|row| 255 - row as u8).collect::<UInt8Array>()),
        ),
        (
            "uint16",
            Arc::new(some(|row| u16::MAX - row as u16).collect::<UInt16Array>()),
        ),
        (
            "uint32",
            Arc::new(some(|row| u32::MAX - row as u32).collect::<UInt32Array>()),
        ),
        (
            "uint64",
            Arc::new(some(|row| u64::MAX - row as u64).collect::<UInt64Array>()),
        ),
        (
            "float32",
            Arc::new(some(|row| row as f32 / 3.0).collect::<Float32Array>()),
        ),
        (
            "float64",
            Arc::new(some(|row| -(row as f64) / 7.0).collect::<Float64Array>()),
        ),
        (
            "date32",
            Arc::new(some(|row| row as i32 * 1000).collect::<Date32Array>()),
        ),
        (
            "timestamp",
            Arc::new(some(|row| row as i64 * 1_000_003).collect::<TimestampMicrosecondArray>()),
        ),
        ("decimal", Arc::new(decimals())),
        ("utf8", texts),
        ("binary", Arc::new(bytes)),
        ("list", Arc::clone(&list)),
        ("list-of-list", Arc::new(list_of(list, true))),
        ("struct", Arc::clone(&pair)),
        ("list-of-struct", Arc::new(list_of(pair, false))),
    ]
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("equally long")
}

#[tokio::test]
async fn columns_of_all_types_come_back() {
    let input = batch(columns());
    let output = map("mirror", "copy", std::slice::from_ref(&input)).await;
    assert_eq!(output, [input]);
}

#[tokio::test]
async fn columns_without_nulls_come_back() {
    let keep = arrow::array::BooleanArray::from_iter((0..ROWS).map(|row| Some(valid(row))));
    let input = arrow::compute::filter_record_batch(&batch(columns()), &keep).expect("a mask");
    let output = map("mirror", "copy", std::slice::from_ref(&input)).await;
    assert_eq!(output, [input]);
}

#[tokio::test]
async fn slices_come_back_as_what_they_show() {
    let whole = batch(columns());
    let slices = [(0, 1), (1, 9), (13, 40), (ROWS - 1, 1), (63, 3)];
    let input = slices.map(|(offset, rows)| whole.slice(offset, rows));
    let output = map("mirror", "copy", &input).await;
    assert_eq!(output.len(), input.len());
    for (output, input) in output.iter().zip(&input) {
        assert_eq!(output, input);
    }
    let passed = map("mirror", "pass", &input).await;
    assert_eq!(passed, input);
}

#[tokio::test]
async fn empty_batches_are_taken_and_not_emitted() {
    let input = batch(columns()).slice(5, 0);
    for function in ["copy", "pass", "reverse", "halve"] {
        let output = map("mirror", function, std::slice::from_ref(&input)).await;
        assert!(output.is_empty(), "{function}");
    }
}

#[tokio::test]
async fn the_host_picks_rows_of_all_types() {
    let input = batch(columns()).slice(3, 41);
    let rows = input.num_rows();
    let pick = |rows: Vec<usize>| {
        let rows: Vec<_> = rows.into_iter().map(|row| input.slice(row, 1)).collect();
        concat_batches(&input.schema(), &rows).expect("one schema")
    };
    let one = std::slice::from_ref(&input);
    let reversed = map("mirror", "reverse", one).await;
    assert_eq!(reversed, [pick((0..rows).rev().collect())]);
    let halved = map("mirror", "halve", one).await;
    assert_eq!(halved, [pick((0..rows).step_by(2).collect())]);
}

/// Columns of types that guests do not see, beside what they see instead.
fn materialised() -> Vec<(ArrayRef, ArrayRef)> {
    let text: ArrayRef = Arc::new(StringArray::from(texts()));
    let binary: ArrayRef = Arc::new(BinaryArray::from_iter(bytes()));
    let fixed = some(|row| [row as u8; 3]);
    let fixed =
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 3).expect("equal sizes");
    let of_fixed: BinaryArray = some(|row| [row as u8; 3]).collect();
    let nanoseconds: TimestampNanosecondArray = some(|row| row as i64 * 1_000).collect();
    let microseconds: TimestampMicrosecondArray = some(|row| row as i64).collect();
    let words = || some(|row| ["one", "two", "three"][row % 3]);
    let dictionary: DictionaryArray<Int8Type> = words().collect();
    let large = |list: &ListArray| {
        let DataType::List(field) = list.data_type() else {
            unreachable!("it is a list")
        };
        let offsets = OffsetBuffer::from_lengths(list.offsets().lengths());
        let nulls = list.nulls().cloned();
        let values = Arc::clone(list.values());
        LargeListArray::new(Arc::clone(field), offsets, values, nulls)
    };
    let views: ArrayRef = Arc::new(StringViewArray::from_iter(texts()));
    vec![
        (Arc::clone(&views), Arc::clone(&text)),
        (Arc::new(LargeStringArray::from(texts())), Arc::clone(&text)),
        (
            Arc::new(BinaryViewArray::from_iter(bytes())),
            Arc::clone(&binary),
        ),
        (Arc::new(LargeBinaryArray::from_iter(bytes())), binary),
        (Arc::new(fixed), Arc::new(of_fixed)),
        (
            Arc::new(nanoseconds.with_timezone("+02:00")),
            Arc::new(microseconds),
        ),
        (
            Arc::new(dictionary),
            Arc::new(words().collect::<StringArray>()),
        ),
        (
            Arc::new(list_of(Arc::clone(&views), true)),
            Arc::new(list_of(Arc::clone(&text), true)),
        ),
        (
            Arc::new(large(&list_of(Arc::clone(&text), true))),
            Arc::new(list_of(Arc::clone(&text), true)),
        ),
        (
            Arc::new(structs(vec![("text", views)])),
            Arc::new(structs(vec![("text", text)])),
        ),
    ]
}

#[tokio::test]
async fn views_dictionaries_and_large_offsets_are_materialised() {
    for (seen_by_host, seen_by_guest) in materialised() {
        let what = seen_by_host.data_type().clone();
        let input = batch(vec![("c", seen_by_host)]);
        let expected = batch(vec![("c", seen_by_guest)]);
        // Whether the guest looks at them or not.
        for function in ["copy", "pass"] {
            let output = map("mirror", function, std::slice::from_ref(&input)).await;
            assert_eq!(
                output,
                std::slice::from_ref(&expected),
                "{function} of {what}"
            );
        }
    }
}

#[tokio::test]
async fn a_dictionary_is_charged_for_what_becomes_of_it() {
    let values: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20)]));
    let keys = Int32Array::from(vec![0; 1000]);
    let dictionary: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(keys, values));
    let input = batch(vec![("c", dictionary)]);
    let mut guest = start("mirror").await;
    let bound = guest.bind("pass", &input.schema(), &[]).await;
    let opened = guest.open_mapper("pass", &[], bound.expect("it binds"));
    opened.await.expect("it opens");
    let fault = guest.push_mapper(input).await;
    crate::support::check_limit(fault, weft_core::LimitKind::Memory, "64 MiB");
}

#[tokio::test]
async fn schemas_come_back_from_bind() {
    let schema = batch(columns()).schema();
    let bound = start("mirror").await.bind("copy", &schema, &[]).await;
    assert_eq!(bound, Ok(schema));
}

#[tokio::test]
async fn types_that_do_not_cross_are_refused_when_the_job_is_planned() {
    let months = DataType::Interval(arrow::datatypes::IntervalUnit::YearMonth);
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("d", months, true)]));
    let bound = start("mirror").await.bind("copy", &schema, &[]).await;
    check_schema(bound, "column `d` has type Interval");
}

#[tokio::test]
async fn numbers_are_computed_with() {
    let count = |n: i32| (0..1024).map(move |i| n * i);
    let a: ArrayRef = Arc::new(Int32Array::from_iter_values(count(1)));
    let b: ArrayRef = Arc::new(Int32Array::from_iter_values(count(2)));
    let input = RecordBatch::try_from_iter([("a", a), ("b", b)]).expect("a batch");
    let output = map("mirror", "gcd", &[input]).await;
    assert_eq!(output[0].column(2), output[0].column(0));
}
