//! Rows of a job's output, by way of the API: no folder is shared with the nodes.
//!
//! ```text
//!   GET .. /rows?format=arrow ──pieces──▶ Program::row_decoder ──▶ table, document
//!   GET .. /rows?format=csv   ──pieces──▶ standard output
//! ```

use serde_json::json;
use weft_client::{AnswerStream, Call, Client, Error, Job, JobOutput, path};

use crate::failure::Failure;
use crate::terminal::{Interrupts, Output};
use crate::{Preview, Program};

/// Opens the rows of an output.
async fn open(
    client: &Client,
    job: &str,
    output: &str,
    format: &str,
    limit: Option<u32>,
) -> Result<AnswerStream, Failure> {
    let mut query = vec![("format", format.to_owned())];
    query.extend(limit.map(|limit| ("limit", limit.to_string())));
    let call = Call::get(path(&["jobs", job, "outputs", output, "rows"])).query(&query);
    Ok(client.open_rows(&call).await?)
}

/// Reads the first rows of an output, as text.
///
/// Errors: `Problem` if the server has no such rows, `Interrupted` at Ctrl-C.
pub(crate) async fn first(
    program: &dyn Program,
    client: &Client,
    job: &Job,
    output: &JobOutput,
    rows: u32,
) -> Result<Preview, Failure> {
    let mut decoder = program.row_decoder();
    let answer = open(client, &job.id, &output.name, "arrow", Some(rows)).await?;
    each_piece(answer, |piece| decoder.push(piece).map_err(Failure::from)).await?;
    let table = decoder.finish()?;
    Ok(Preview {
        manifest: json!({
            "job": job.id,
            "output": output.name,
            "schema": table.schema,
            "rows": output.rows,
            "bytes": output.bytes,
        }),
        schema: table.schema,
        n_rows: output.rows,
        n_files: usize::try_from(output.files).unwrap_or(usize::MAX),
        rows: table.rows,
    })
}

/// Writes the rows of an output to standard output as they come, at most `limit` of them.
///
/// Errors: as those of [`first`]. What was written before an error is not all.
pub(crate) async fn copy(
    client: &Client,
    (job, output): (&str, &str),
    format: &str,
    limit: Option<u32>,
    to: &mut Output,
) -> Result<(), Failure> {
    let answer = open(client, job, output, format, limit).await?;
    each_piece(answer, |piece| to.piece(piece)).await
}

/// Takes the pieces of an answer until its end, or Ctrl-C.
pub(crate) async fn each_piece(
    mut answer: AnswerStream,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Whoever has followed the job has taken Ctrl-C over from the system.
    let mut interrupts = Interrupts::new()?;
    loop {
        let piece: Result<_, Error> = tokio::select! {
            biased;
            () = interrupts.next() => return Err(Failure::Interrupted),
            piece = answer.next() => piece,
        };
        match piece? {
            Some(piece) => take(&piece)?,
            None => return Ok(()),
        }
    }
}
