//! How often each word occurs in a text.

mod count;
mod counts;
mod split;
mod sum;
#[cfg(test)]
mod tests;

weft::component! {
    /// Counts the words of lines: some rows for each word of a task, most often one.
    map "count" = count::Count;
    /// Adds up the counts of each word.
    reduce "sum" = sum::Sum;
}
