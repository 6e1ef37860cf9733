//! Following a job through its stream of events, across restarts of the server.
//!
//! ```text
//!   connect --> job, job, .. --> end
//!      ^           |
//!      +-- wait <--+  the stream broke, or nobody answers: again, less and less often,
//!                     until patience ends
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::client::{Call, Client, Lost, innermost};
use crate::endpoint::path;
use crate::error::Error;
use crate::events::{Event, Parser};
use crate::model::{self, Job};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A server without news sends comments far more often than this.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a server may be away.
const PATIENCE: Duration = Duration::from_secs(300);

/// News about a job.
pub enum Update {
    /// The job has a new state. It has ended where [`Job::has_ended`] says so.
    State {
        /// The job.
        job: Box<Job>,
        /// The document as it came.
        json: String,
    },
    /// The stream broke; it is being connected again. Reported once for each break.
    Lost {
        /// The last error.
        reason: String,
    },
}

/// The stream of a job's events.
pub struct Follow<'a> {
    client: &'a Client,
    id: String,
    body: Option<Incoming>,
    parser: Parser,
    events: VecDeque<Event>,
    /// Since when there has been no connection, if so, and how long to wait for the next attempt.
    lost_since: Option<Instant>,
    delay: Duration,
}

impl<'a> Follow<'a> {
    /// The events of job `id`.
    pub fn new(client: &'a Client, id: &str) -> Self {
        Self {
            client,
            id: id.into(),
            body: None,
            parser: Parser::default(),
            events: VecDeque::new(),
            lost_since: None,
            delay: Duration::ZERO,
        }
    }

    /// The next news. Cancel-safe: what arrived is kept, and a connection that was being made is
    /// made again.
    ///
    /// Errors: `Problem` where the server does not know the job, `Unreachable` once patience has
    /// ended.
    pub async fn next(&mut self) -> Result<Update, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if let Some(update) = self.read(&event)? {
                    return Ok(update);
                }
                continue;
            }
            let lost = match &mut self.body {
                Some(_) => self.receive().await,
                None => self.connect().await?,
            };
            if let Err(reason) = lost
                && let Some(update) = self.lose(reason)?
            {
                return Ok(update);
            }
        }
    }

    fn read(&mut self, event: &Event) -> Result<Option<Update>, Error> {
        if !matches!(event.kind.as_str(), "job" | "end") {
            return Ok(None);
        }
        let job = model::read(event.data.as_bytes())?;
        self.lost_since = None;
        self.delay = Duration::ZERO;
        let json = event.data.clone();
        Ok(Some(Update::State {
            job: Box::new(job),
            json,
        }))
    }

    async fn receive(&mut self) -> Result<(), String> {
        let body = self.body.as_mut().expect("there is a connection");
        let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await;
        let frame = frame.map_err(|_| "the server is silent".to_owned())?;
        let frame = frame
            .ok_or("the stream ended early")?
            .map_err(|error| innermost(&error))?;
        let events = self.parser.push(frame.data_ref().map_or(&[], |data| data));
        self.events
            .extend(events.map_err(|error| error.to_string())?);
        Ok(())
    }

    async fn connect(&mut self) -> Result<Result<(), String>, Error> {
        tokio::time::sleep(self.delay).await;
        let call = Call::get(path(&["jobs", &self.id, "events"]));
        match self.client.open(&call).await {
            Ok(body) => {
                self.body = Some(body);
                self.parser = Parser::default();
                Ok(Ok(()))
            }
            Err(Lost::Connection(reason)) => Ok(Err(reason)),
            Err(Lost::Here(failure)) => Err(failure),
        }
    }

    fn lose(&mut self, reason: String) -> Result<Option<Update>, Error> {
        self.body = None;
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
        let Some(since) = self.lost_since else {
            self.lost_since = Some(Instant::now());
            return Ok(Some(Update::Lost { reason }));
        };
        if since.elapsed() < PATIENCE {
            return Ok(None);
        }
        Err(Error::Unreachable(format!(
            "lost the server ({reason}); the job may go on: `weft job {}` shows it",
            self.id
        )))
    }
}
