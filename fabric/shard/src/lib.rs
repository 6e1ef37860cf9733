//! A shard of actors' state: one database with one writer, on a folder or a bucket.
