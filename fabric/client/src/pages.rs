//! Lists, which the server hands out page by page.

use serde::Deserialize;
use serde_json::Value;

use crate::client::{Call, Client};
use crate::endpoint::encode;
use crate::error::Error;

/// One page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Page {
    /// The entries.
    pub items: Vec<Value>,
    /// The beginning of the next page; none on the last one.
    next_cursor: Option<String>,
    /// For logs: lines that were dropped because there were too many.
    pub dropped: u64,
}

/// A list that is read from its beginning.
pub struct Pages<'a> {
    client: &'a Client,
    path: String,
    cursor: Option<String>,
    ended: bool,
}

impl<'a> Pages<'a> {
    /// The list at `path`.
    pub fn new(client: &'a Client, path: String) -> Self {
        Self {
            client,
            path,
            cursor: None,
            ended: false,
        }
    }

    /// The next page, or none after the last one.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.ended {
            return Ok(None);
        }
        let path = match &self.cursor {
            Some(cursor) => format!("{}?cursor={}", self.path, encode(cursor)),
            None => self.path.clone(),
        };
        let page: Page = self.client.send(&Call::get(path)).await?.read()?;
        // A cursor that leads to itself would never end.
        self.ended = page.next_cursor.is_none() || page.next_cursor == self.cursor;
        self.cursor = page.next_cursor.clone();
        Ok(Some(page))
    }

    /// The first `limit` entries, and whether there are more.
    pub async fn take(mut self, limit: usize) -> Result<(Vec<Value>, bool), Error> {
        let mut items = Vec::new();
        while items.len() <= limit {
            match self.next().await? {
                Some(page) => items.extend(page.items),
                None => break,
            }
        }
        let more = items.len() > limit;
        items.truncate(limit);
        Ok((items, more))
    }

    /// All entries.
    pub async fn all(self) -> Result<Vec<Value>, Error> {
        Ok(self.take(usize::MAX - 1).await?.0)
    }
}
