//! The commands that ask a server, and those that look at this machine: one file for each noun.
//!
//! ```text
//!   components:  deploy, components        receipt:  receipt, and the end of run
//!   run:         run                       invoke:   invoke
//!   jobs:        jobs, job, logs, cancel   show:     show, of a folder or a job
//!   usage:       usage, of all jobs        doctor:   doctor, of this machine and the server
//!   cluster:     cluster, on this machine  nodes:    nodes, drain
//!   certs:       certs, on this machine    why:      why, of a job or of the queue
//!   members:     members, of the group of controllers
//!   sql:         sql, by way of run and rows
//!   script:      sql of a file with several statements
//!   rows:        rows of a job's output, for sql and show
//!   explain:     --explain and --analyze, and the plan of a job
//!   tables:      tables, which sql makes
//!   tasks:       task, by way of run and rows
//!   actor:       actor invoke, list, show, delete
//! ```

pub(crate) mod actor;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod components;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod invoke;
pub(crate) mod jobs;
pub(crate) mod members;
pub(crate) mod nodes;
pub(crate) mod receipt;
pub(crate) mod rows;
pub(crate) mod run;
mod script;
pub(crate) mod show;
pub(crate) mod sql;
pub(crate) mod tables;
pub(crate) mod tasks;
pub(crate) mod usage;
pub(crate) mod why;
