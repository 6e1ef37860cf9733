//! Picking rows out of columns, for native builds; in a component the host does it.

use crate::bits::Bits;
use crate::buffer::Buffer;
use crate::column::Column;
use crate::schema::Kind;

/// The picked rows in order. `parts`: columns of one kind, at least one; `picks`: part and row in it.
pub(crate) fn gather(parts: &[&Column], picks: &[(usize, usize)]) -> Column {
    let kind = parts[0].kind;
    let mut column = Column::flat(kind, picks.len(), vec![]);
    match kind {
        Kind::Boolean => {
            let bits: Bits = picks
                .iter()
                .map(|&(part, row)| bytes(parts[part], 0)[row / 8] >> (row % 8) & 1 == 1)
                .collect();
            column.buffers.push(bits.as_bytes().to_vec().into());
        }
        Kind::Utf8 | Kind::Binary => {
            column.buffers.push(offsets(parts, picks).into());
            let values = picks
                .iter()
                .flat_map(|&(part, row)| &bytes(parts[part], 1)[items(parts[part], row)]);
            column
                .buffers
                .push(values.copied().collect::<Vec<u8>>().into());
        }
        Kind::ArrayOf => {
            column.buffers.push(offsets(parts, picks).into());
            let below: Vec<_> = picks
                .iter()
                .flat_map(|&(part, row)| items(parts[part], row).map(move |item| (part, item)))
                .collect();
            column.children.push(gather(&children(parts, 0), &below));
        }
        Kind::StructOf => {
            let n_members = parts[0].children.len();
            column
                .children
                .extend((0..n_members).map(|member| gather(&children(parts, member), picks)));
        }
        _ => {
            let width = kind.width();
            let values = picks
                .iter()
                .flat_map(|&(part, row)| &bytes(parts[part], 0)[row * width..][..width]);
            column
                .buffers
                .push(Buffer::values(kind, values.copied().collect()));
        }
    }
    let is_valid = |&(part, row): &(usize, usize)| {
        parts[part]
            .validity
            .as_ref()
            .is_none_or(|bits| bits.get(row))
    };
    column.with_validity(picks.iter().map(is_valid).collect())
}

fn bytes(column: &Column, buffer: usize) -> &[u8] {
    column.buffers[buffer].as_bytes()
}

fn items(column: &Column, row: usize) -> std::ops::Range<usize> {
    let offsets: &[i32] = column.buffers[0].as_slice();
    offsets[row] as usize..offsets[row + 1] as usize
}

fn offsets(parts: &[&Column], picks: &[(usize, usize)]) -> Vec<i32> {
    let mut end = 0;
    let ends = picks.iter().map(|&(part, row)| {
        end += items(parts[part], row).len() as i32;
        end
    });
    std::iter::once(0).chain(ends).collect()
}

fn children<'a>(parts: &[&'a Column], index: usize) -> Vec<&'a Column> {
    parts.iter().map(|part| &part.children[index]).collect()
}
