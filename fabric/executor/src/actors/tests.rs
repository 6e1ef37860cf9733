//! Actors as their agent sees them, with guests that are fake and shards that lie in a folder.

mod alarms;
mod answers;
mod failures;
mod fixture;
mod messages;
mod takeover;
