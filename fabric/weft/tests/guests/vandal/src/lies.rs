//! Columns whose buffers do not hold what they say: the SDK makes none, so these go past it.

use weft::Result;

/// Tells the host the lie of this name about `rows` rows.
#[cfg(target_arch = "wasm32")]
pub(crate) fn tell(lie: &str, rows: usize) -> Result<()> {
    use weft::bindings::weft::fabric::data::{Batch, ColumnParam, DataType, FieldParam, Node};
    use weft::bindings::weft::fabric::output;

    let rows = rows as u32;
    let (data_type, nodes, buffers): (DataType, Vec<Node>, Vec<Vec<u8>>) = match lie {
        "short-values" => (DataType::Int64, node(rows, 0), vec![vec![], vec![0; 8]]),
        "too-many-rows" => (DataType::Int64, node(u32::MAX, 0), vec![vec![], vec![0; 8]]),
        "too-many-nulls" => (DataType::Int64, node(1, 9), vec![vec![0], vec![0; 8]]),
        "no-buffers" => (DataType::Int64, node(rows, 0), vec![]),
        "offsets-past-the-end" => (
            DataType::Utf8,
            node(1, 0),
            vec![vec![], offsets(&[0, 1 << 30]), b"x".to_vec()],
        ),
        "offsets-that-fall" => (
            DataType::Utf8,
            node(2, 0),
            vec![vec![], offsets(&[0, 3, 1]), b"abc".to_vec()],
        ),
        "negative-offsets" => (
            DataType::Utf8,
            node(1, 0),
            vec![vec![], offsets(&[-4, 1]), b"abc".to_vec()],
        ),
        "bytes-as-text" => (
            DataType::Utf8,
            node(1, 0),
            vec![vec![], offsets(&[0, 2]), vec![0xff, 0xfe]],
        ),
        other => return Err(format!("there is no deed `{other}`").into()),
    };
    let name = "rows";
    let field = FieldParam {
        name,
        data_type,
        nullable: true,
        children: 0,
        precision: 0,
        scale: 0,
    };
    let buffers: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
    let column = ColumnParam {
        nodes: &nodes,
        buffers: &buffers,
    };
    let batch = Batch::create(&[field], &[column])?;
    Ok(output::emit(batch)?)
}

#[cfg(target_arch = "wasm32")]
fn node(rows: u32, nulls: u32) -> Vec<weft::bindings::weft::fabric::data::Node> {
    vec![weft::bindings::weft::fabric::data::Node { rows, nulls }]
}

#[cfg(target_arch = "wasm32")]
fn offsets(offsets: &[i32]) -> Vec<u8> {
    offsets
        .iter()
        .flat_map(|offset| offset.to_le_bytes())
        .collect()
}

/// In native builds the functions only have to compile.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn tell(lie: &str, _: usize) -> Result<()> {
    Err(format!("there is no deed `{lie}`").into())
}
