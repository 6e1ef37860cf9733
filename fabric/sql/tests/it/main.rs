//! SQL planned, cut, encoded, decoded and run in memory, against DataFusion in one process.

mod data;
mod functions;
mod memory;
mod plans;
mod refusals;
mod runner;
mod tpch;
mod traps;
