//! What each command does, case by case. Long random histories are in `tests/it`.

mod actors;
mod adaptive;
mod catalog;
mod durations;
mod jobs;
mod kept;
mod keys;
mod leases;
mod lost;
mod reads;
mod submissions;
mod support;
mod tables;
mod usage;
mod wire;
