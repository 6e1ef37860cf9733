//! Access logs in the combined format: how many visitors came each day, and which pages they asked for most.

mod line;
mod pages;
mod tally;
#[cfg(test)]
mod tests;
mod visitors;
mod visits;

weft::component! {
    /// Parses lines of a log; malformed ones are skipped and counted.
    map "parse" = visits::Parse;
    /// Keeps one row for each address of a day.
    combine "daily-partial" = visitors::DailyPartial;
    /// Counts the distinct addresses of a day.
    reduce "daily" = visitors::Daily;
    /// Adds up the hits of each page of a day.
    combine "top-partial" = pages::TopPartial;
    /// Finds the ten most requested pages of a day.
    reduce "top" = pages::Top;
}
