//! Scores card payments, one by one, and sums the scores up by browser and operating system.

mod agent;
mod payment;
mod rows;
mod sums;
#[cfg(test)]
mod tests;

weft::component! {
    /// Scores each payment: browser and system, kilometres between its two places, and how suspicious it is.
    map "score" = rows::Score;
    /// Adds up a task's scores by browser and system.
    map "task-sums" = sums::TaskSums;
    /// Adds up the sums of all tasks.
    reduce "sums" = sums::Sums;
}
