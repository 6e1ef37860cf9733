//! The whole `weft` binary as its users meet it: servers on data folders of their own, asked over HTTP, killed and started
//! again.
//!
//! `cargo xtask test` builds the guests, installs an S3 server, and sets `WEFT_GUESTS` and `WEFT_SEAWEEDFS`. What is
//! random comes from a seed, which is printed and which `WEFT_TEST_SEED` replaces. Tests of corpora are left out where
//! `WEFT_CORPORA` names none.

mod access_log;
mod actors;
mod adaptive;
mod api;
mod bad_input;
mod bucket;
mod cases;
mod catalog;
mod clock;
mod cluster;
mod conservation;
mod corpora;
mod crash;
mod determinism;
#[cfg(feature = "etcd")]
mod discovery;
mod examples;
mod explain;
mod expressions;
mod fixture;
mod flight;
mod folder;
mod formats;
mod full_disk;
mod guests;
mod hostile;
mod hostile_actors;
mod http;
mod invoke;
mod job;
mod kept_folder;
mod members;
mod openapi;
mod order_by;
mod outputs;
#[path = "../../../store/tests/it/process.rs"]
mod process;
#[expect(dead_code, reason = "tests of stores use more of it")]
#[path = "../../../store/tests/it/proxy.rs"]
mod proxy;
mod python;
mod random;
mod results;
mod s3_outputs;
#[path = "../../../store/tests/it/seaweedfs.rs"]
mod seaweedfs;
mod server;
mod sql;
mod sql_functions;
mod sql_guards;
mod store_folder;
mod stores;
mod streams;
mod survivor;
mod tasks;
mod tpch;
mod traces;
