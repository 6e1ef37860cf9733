use arrow::array::{
    DictionaryArray, Float16Array, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array,
    LargeListArray, ListArray, StringArray, StringViewArray,
};
use arrow::datatypes::{Field, UnionFields, UnionMode};

use super::*;
use crate::grouping::Keys;

/// Zeros of both signs, NaNs of four kinds, null, and a number.
fn f16s() -> ArrayRef {
    let bits = [0, 0x8000, 0x7e00, 0xfe00, 0x7c01, 0x7fff];
    let values = bits.map(|bits| Some(F16::from_bits(bits)));
    let number = Some(F16::from_bits(0xbe00));
    Arc::new(Float16Array::from_iter(
        values.into_iter().chain([None, number]),
    ))
}

fn f32s() -> ArrayRef {
    let bits = [
        0,
        0x8000_0000,
        0x7fc0_0000,
        0xffc0_0000,
        0x7f80_0001,
        0x7fff_ffff,
    ];
    let values = bits.map(|bits| Some(f32::from_bits(bits)));
    Arc::new(Float32Array::from_iter(
        values.into_iter().chain([None, Some(-1.5)]),
    ))
}

fn f64s() -> ArrayRef {
    let bits = [
        0,
        0x8000_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        0xfff8_0000_0000_0000,
        0x7ff0_0000_0000_0001,
        0x7fff_ffff_ffff_ffff,
    ];
    let values = bits.map(|bits| Some(f64::from_bits(bits)));
    Arc::new(Float64Array::from_iter(
        values.into_iter().chain([None, Some(-1.5)]),
    ))
}

/// The first row of each of their rows' groups.
const FLOAT_GROUPS: [usize; 8] = [0, 0, 2, 2, 2, 2, 6, 7];

const WORDS: [Option<&str>; 6] = [
    Some("a"),
    Some("a word longer than a view holds"),
    Some("a"),
    None,
    Some("a word longer than a view holds"),
    Some(""),
];
const WORD_GROUPS: [usize; 6] = [0, 1, 0, 3, 1, 5];

/// The same words, written in all the ways that there are.
fn words() -> Vec<ArrayRef> {
    // Values that stand twice, and one that is null.
    let values = StringArray::from(vec![WORDS[1], WORDS[0], None, WORDS[5], WORDS[0]]);
    let keys = [Some(1), Some(0), Some(4), Some(2), Some(0), Some(3)];
    let views = StringViewArray::from_iter(values.iter());
    vec![
        Arc::new(StringArray::from(WORDS.to_vec())),
        Arc::new(StringViewArray::from_iter(WORDS)),
        Arc::new(DictionaryArray::new(
            Int32Array::from_iter(keys),
            Arc::new(values),
        )),
        Arc::new(DictionaryArray::new(
            Int8Array::from_iter(keys.map(|key| key.map(|key| key as i8))),
            Arc::new(views),
        )),
    ]
}

fn item(items: &ArrayRef) -> FieldRef {
    Arc::new(Field::new_list_field(items.data_type().clone(), true))
}

/// An item for each row.
fn in_lists(items: &ArrayRef) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(vec![1; items.len()]);
    Arc::new(ListArray::new(
        item(items),
        offsets,
        Arc::clone(items),
        None,
    ))
}

fn in_large_lists(items: &ArrayRef) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(vec![1; items.len()]);
    Arc::new(LargeListArray::new(
        item(items),
        offsets,
        Arc::clone(items),
        None,
    ))
}

fn in_fixed_size_lists(items: &ArrayRef) -> ArrayRef {
    let items = Arc::clone(items);
    Arc::new(FixedSizeListArray::new(item(&items), 1, items, None))
}

fn in_structs(members: &ArrayRef) -> ArrayRef {
    let member = Field::new("member", members.data_type().clone(), true);
    let plain: ArrayRef = Arc::new(Int64Array::from(vec![7; members.len()]));
    let fields = Fields::from(vec![member, Field::new("plain", DataType::Int64, false)]);
    Arc::new(StructArray::new(
        fields,
        vec![Arc::clone(members), plain],
        None,
    ))
}

fn in_maps(values: &ArrayRef) -> ArrayRef {
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["key"; values.len()]));
    let fields = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", values.data_type().clone(), true),
    ]);
    let entries = StructArray::new(fields, vec![keys, Arc::clone(values)], None);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let offsets = OffsetBuffer::from_lengths(vec![1; values.len()]);
    Arc::new(MapArray::new(field, offsets, entries, None, false))
}

fn in_dictionary(values: &ArrayRef) -> ArrayRef {
    let keys = Int32Array::from_iter_values(0..i32::try_from(values.len()).expect("a few"));
    Arc::new(DictionaryArray::new(keys, Arc::clone(values)))
}

fn batch(column: &ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("key", Arc::clone(column), true)])
        .expect("one column")
}

/// The key column on an edge.
fn on_edge(column: &ArrayRef) -> (Canonical, RecordBatch) {
    let batch = batch(column);
    let schema = edge_schema(batch.schema_ref(), &[0]);
    let canonical = Canonical::new(&schema, &[0]);
    let batch = canonical.batch(batch).expect("it has a form");
    assert_eq!(*batch.schema_ref(), schema);
    (canonical, batch)
}

/// For each row the first one with the same key.
fn groups(column: &ArrayRef) -> Vec<usize> {
    let (_, batch) = on_edge(column);
    let keys = Keys::new(batch.schema_ref(), &[0]).expect("keys");
    let rows = keys.rows(&batch).expect("rows");
    let first = |row: usize| (0..row).find(|first| rows.row(*first) == rows.row(row));
    (0..rows.num_rows())
        .map(|row| first(row).unwrap_or(row))
        .collect()
}

/// All the ways in which values may lie in a column.
fn nested(values: &ArrayRef) -> Vec<ArrayRef> {
    let once: [fn(&ArrayRef) -> ArrayRef; 6] = [
        in_lists,
        in_large_lists,
        in_fixed_size_lists,
        in_structs,
        in_maps,
        in_dictionary,
    ];
    let mut columns = vec![Arc::clone(values)];
    columns.extend(once.map(|nest| nest(values)));
    columns.push(in_lists(&in_structs(&in_dictionary(values))));
    columns.push(in_structs(&in_fixed_size_lists(&in_lists(values))));
    columns.push(in_dictionary(&in_structs(values)));
    columns
}

#[test]
fn floats_that_are_equal_are_one_group_wherever_they_lie() {
    for values in [f16s(), f32s(), f64s()] {
        for column in nested(&values) {
            let what = column.data_type();
            assert_eq!(groups(&column), FLOAT_GROUPS, "{what}");
            // The same where a column is a part of another.
            assert_eq!(groups(&column.slice(1, 5)), [0, 1, 1, 1, 1], "{what}");
            assert!(groups(&column.slice(6, 0)).is_empty(), "{what}");
        }
    }
}

#[test]
fn floats_have_one_form() {
    let nan = f64::from_bits(0x7ff8_0000_0000_0000);
    let head = [0.0, 0.0, nan, nan, nan, nan].map(Some);
    let expected: ArrayRef = Arc::new(Float64Array::from_iter(
        head.into_iter().chain([None, Some(-1.5)]),
    ));
    // Arrow compares floats by their bits here.
    assert_ne!(&f64s(), &expected);
    let nests: [fn(&ArrayRef) -> ArrayRef; 3] = [Arc::clone, in_lists, in_structs];
    for nest in nests {
        let (canonical, found) = on_edge(&nest(&f64s()));
        assert_eq!(found, batch(&nest(&expected)));
        let again = canonical.batch(found.clone()).expect("it has a form");
        assert!(
            Arc::ptr_eq(again.column(0), found.column(0)),
            "it is shared"
        );
    }
}

#[test]
fn words_are_one_group_however_they_are_written() {
    for values in words() {
        for column in nested(&values) {
            assert_eq!(groups(&column), WORD_GROUPS, "{}", column.data_type());
        }
        let (_, found) = on_edge(&values);
        let plain: ArrayRef = Arc::new(StringArray::from(WORDS.to_vec()));
        assert_eq!(found, batch(&plain));
        let (_, found) = on_edge(&in_lists(&values).slice(2, 3));
        assert_eq!(found, batch(&in_lists(&plain).slice(2, 3)));
    }
}

#[test]
fn what_has_the_form_is_shared() {
    let dirty = f64s();
    let clean: ArrayRef = Arc::new(Float64Array::from(vec![1.5; dirty.len()]));
    let number: ArrayRef = Arc::new(Int64Array::from(vec![7; dirty.len()]));
    let columns = [
        ("number", &number),
        ("clean", &clean),
        ("dirty", &dirty),
        ("aside", &dirty),
        ("lists", &in_lists(&clean)),
    ];
    let columns = columns.map(|(name, column)| (name, Arc::clone(column), true));
    let before = RecordBatch::try_from_iter_with_nullable(columns).expect("of one length");
    let keys = [0, 1, 2, 4];
    let schema = edge_schema(before.schema_ref(), &keys);
    assert!(Arc::ptr_eq(&schema, before.schema_ref()), "all are plain");
    let after = Canonical::new(&schema, &keys).batch(before.clone());
    let after = after.expect("it has a form");
    let shared = |column: usize| Arc::ptr_eq(before.column(column), after.column(column));
    assert_eq!([0, 1, 2, 3, 4].map(shared), [true, true, false, true, true]);
}

#[test]
fn edges_have_plain_keys_and_leave_the_rest() {
    let words = words();
    let columns = [
        ("key", &words[2]),
        ("aside", &words[2]),
        ("view", &words[1]),
    ];
    let columns = columns.map(|(name, column)| (name, Arc::clone(column), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("of one length");
    let schema = edge_schema(batch.schema_ref(), &[0, 2]);
    let types: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.data_type())
        .collect();
    let dictionary = words[2].data_type();
    assert_eq!(types, [&DataType::Utf8, dictionary, &DataType::Utf8]);
    let after = Canonical::new(&schema, &[0, 2]).batch(batch.clone());
    let after = after.expect("it has a form");
    assert_eq!(*after.schema_ref(), schema);
    assert!(
        Arc::ptr_eq(after.column(1), batch.column(1)),
        "it is shared"
    );
}

#[test]
fn types_without_a_form_are_no_keys() {
    let float = Arc::new(Field::new("x", DataType::Float64, true));
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    for data_type in [
        DataType::ListView(Arc::clone(&float)),
        DataType::Union(UnionFields::empty(), UnionMode::Sparse),
        DataType::RunEndEncoded(ends, Arc::clone(&float)),
    ] {
        assert!(!is_key_type(&data_type), "{data_type}");
        let inside = Arc::new(Field::new("inside", data_type, true));
        assert!(!is_key_type(&DataType::List(inside)));
    }
    for column in nested(&f64s()).iter().chain(&nested(&words()[3])) {
        assert!(is_key_type(column.data_type()), "{}", column.data_type());
    }
}

/// A dictionary whose first value has a megabyte and stands in all rows.
fn megabytes(rows: usize) -> ArrayRef {
    let values = StringArray::from(vec!["x".repeat(1 << 20)]);
    let keys = Int32Array::from(vec![0; rows]);
    Arc::new(DictionaryArray::new(keys, Arc::new(values)))
}

#[test]
fn few_megabytes_become_plain_at_once() {
    let column = megabytes(20);
    let (canonical, whole) = on_edge(&column);
    let rows = batch(&column);
    let parts = canonical.parts(rows.clone()).expect("it is cut");
    assert!(parts.len() > 2, "{}", parts.len());
    for part in &parts {
        let thought = canonical.grouped_bytes(part);
        let part = canonical.batch(part.clone()).expect("it has a form");
        let plain = canonical.grouped_bytes(&part);
        assert!(plain <= thought, "{plain} and {thought}");
    }
    let parts = canonical.batches(parts).expect("they have a form");
    let joined = arrow::compute::concat_batches(whole.schema_ref(), &parts);
    assert_eq!(joined.expect("of one schema"), whole);
    let plain = canonical.parts(whole.clone()).expect("nothing to cut");
    assert_eq!(plain, [whole]);
}

#[test]
fn rows_whose_keys_would_be_gigabytes_are_refused() {
    let items = megabytes(1100);
    let offsets = OffsetBuffer::from_lengths([1100]);
    let list: ArrayRef = Arc::new(ListArray::new(item(&items), offsets, items, None));
    let schema = edge_schema(batch(&list).schema_ref(), &[0]);
    let refused = Canonical::new(&schema, &[0]).parts(batch(&list));
    let refused = refused.expect_err("it is too much");
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert!(refused.detail.contains("1024 are allowed"), "{refused}");
}
