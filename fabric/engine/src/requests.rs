//! Requests to buckets on the meters of whoever makes them.

use weft_core::{FunctionUsage, Meters};
use weft_store::{Blobs, RequestKind};

/// Sets the requests that were made by way of `blobs`, which have counters of their own.
pub(crate) fn set_requests(meters: &mut Meters, blobs: &Blobs) {
    meters.get_requests = blobs.requests_of(RequestKind::Get);
    meters.put_requests = blobs.requests_of(RequestKind::Put);
    meters.list_requests = blobs.requests_of(RequestKind::List);
    meters.head_requests = blobs.requests_of(RequestKind::Head);
    meters.delete_requests = blobs.requests_of(RequestKind::Delete);
}

/// A line with the requests of planning. Nothing if it made none, such as where the store is a folder.
pub(crate) fn of_planning(blobs: &Blobs) -> Option<FunctionUsage> {
    let mut billed = Meters::default();
    set_requests(&mut billed, blobs);
    (billed != Meters::default()).then(|| FunctionUsage {
        function: "-".into(),
        billed_attempts: 1,
        billed,
        ..FunctionUsage::default()
    })
}

#[cfg(test)]
mod tests {
    use weft_store::{Grants, Remote};

    use super::*;

    #[tokio::test]
    async fn planning_in_a_bucket_has_a_line() {
        let remote = Remote::in_memory("s3://bucket/weft").expect("it opens");
        let blobs = Blobs::of_remote(remote, Grants::default()).metered();
        assert_eq!(of_planning(&blobs), None);
        blobs.put("plan", "{}").await.expect("it is written");
        blobs.get("plan").await.expect("it is there");
        let line = of_planning(&blobs).expect("it made requests").billed;
        assert_eq!((line.put_requests, line.get_requests), (1, 1));
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a store");
        blobs.put("plan", "{}").await.expect("it is written");
        assert_eq!(of_planning(&blobs), None, "files cost none");
    }
}
