//! The HTTP client of Weft's API, as the command line uses it.
//!
//! ```text
//!   Call ──▶ Client::send ────▶ Answer        one document, sent again while nobody answers
//!   Call ──▶ Client::stream ──▶ AnswerStream  bytes both ways, sent once
//!   Call ──▶ Client::open_rows ▶ AnswerStream rows of an output
//!            Pages ───────────▶ Page, ..      a list, page by page
//!            Follow ──────────▶ Update, ..    a job's events, across restarts of the server
//! ```
//!
//! Everything the server says is read leniently, so that an older client works with a newer server:
//! unknown fields are ignored, and missing ones are empty.

mod answer_stream;
mod client;
mod endpoint;
mod error;
mod events;
mod follow;
mod model;
mod pages;
mod problem;

pub use answer_stream::AnswerStream;
pub use client::{Answer, Call, Client};
pub use endpoint::path;
pub use error::Error;
pub use follow::{Follow, Update};
pub use model::{
    Actor, Component, DeadLetter, Function, Job, JobOutput, Label, LogLine, Skew, SlowestTask,
    Stage, Task, read_value,
};
pub use pages::{Page, Pages};
pub use problem::ApiProblem;
