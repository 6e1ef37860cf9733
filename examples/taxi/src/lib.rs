//! Taxi trips of New York: the mean fare by zone and hour of the day.

mod fares;
mod mean;
mod partial;
#[cfg(test)]
mod tests;
mod trips;

weft::component! {
    /// Adds up the fares of a task's trips, by the zone and the hour in which they began.
    map "fares" = trips::TaskFares;
    /// Divides the fares of a zone and hour by their number.
    reduce "mean" = mean::Mean;
}
