//! SQL planned, cut, encoded, decoded and run in memory, against DataFusion in one process.

mod adaptive;
mod data;
mod explain;
mod filters;
mod functions;
mod joins;
mod memory;
mod plans;
mod recursion;
mod refusals;
mod runner;
mod single_value;
mod stop;
mod subqueries;
mod tpch;
mod traps;
mod windows;
