//! Session policies: what an executor may do in a bucket, as AWS writes it down.
//!
//! A session may do what both its role and its policy allow. Executors delete nothing but what their own shards no
//! longer need: controllers do.

use serde_json::{Value, json};
use weft_core::{Location, TenantId};
use weft_protocol::{KEPT_OUTPUTS, shards_prefix};

/// Bytes of a policy, as AWS bounds them.
const MAX_POLICY_BYTES: usize = 2_048;
/// Letters of the id of a job behind `job-`.
const JOB_ID_LETTERS: usize = 26;
/// Requests that read and write objects.
const READ_WRITE: [&str; 3] = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"];
/// The request that removes an object.
const DELETE: &str = "s3:DeleteObject";

/// The partition of AWS that a role is in. Errors: it is no ARN of a role.
pub(super) fn partition(role: &str) -> Result<&str, String> {
    let mut parts = role.splitn(4, ':');
    let (arn, partition, service) = (parts.next(), parts.next(), parts.next());
    let is_role = parts.next().is_some_and(|rest| rest.contains("role/"));
    match partition {
        Some(partition) if (arn, service) == (Some("arn"), Some("iam")) && is_role => Ok(partition),
        _ => Err(format!(
            "`executor_role` is `{role}`, and must be the ARN of a role, such as \
             `arn:aws:iam::123456789012:role/weft-executors`"
        )),
    }
}

/// Allows the requests of a tenant's executors in the cluster's own store: they read and write objects of jobs and
/// outputs that it keeps, read artefacts, and write texts of plans. Lists are of one job each, whose id is random and
/// long: so nobody finds the objects of jobs that he does not know. Shards are those of the tenant, with all rights.
///
/// Errors: no policy can say it.
pub(super) fn own(partition: &str, store: &Location, tenant: &TenantId) -> Result<String, String> {
    let bucket = bucket(partition, store);
    let prefix = match literal(store)? {
        "" => String::new(),
        key => format!("{key}/"),
    };
    let objects = |keys: &str| format!("{bucket}/{prefix}{keys}");
    let kept = format!("{KEPT_OUTPUTS}/*");
    let of_job = format!("job-{}/*", "?".repeat(JOB_ID_LETTERS));
    let shards = format!("{}/*", shards_prefix(tenant));
    let [jobs, outputs] = ["jobs", KEPT_OUTPUTS].map(|folder| format!("{folder}/{of_job}"));
    let lists = [&jobs, &outputs, &shards].map(|keys| format!("{prefix}{keys}"));
    let read_write = [objects("jobs/*"), objects(&kept), objects(&shards)];
    finished(vec![
        allow(&READ_WRITE, json!(read_write)),
        allow(&[DELETE], json!([objects(&shards)])),
        allow(&["s3:GetObject"], json!([objects("artefacts/*")])),
        allow(&["s3:PutObject"], json!([objects("archive/*.plan.json")])),
        lists_of(&bucket, json!(lists)),
        keys(),
    ])
}

/// Allows the requests of executors in a store of jobs: they read and write below its roots, which are of one bucket.
///
/// Errors: no policy can say it.
pub(super) fn granted(partition: &str, roots: &[Location]) -> Result<String, String> {
    let Some(first) = roots.first() else {
        return Err("it has no roots".into());
    };
    let bucket = bucket(partition, first);
    let keys_of_roots = roots.iter().map(literal).collect::<Result<Vec<_>, _>>()?;
    if keys_of_roots.contains(&"") {
        let list = allow(&["s3:ListBucket"], json!([bucket]));
        let all = allow(&READ_WRITE, json!([format!("{bucket}/*")]));
        return finished(vec![all, list, keys()]);
    }
    // A root is one object, or a folder.
    let both = |key: &&str| [(*key).to_owned(), format!("{key}/*")];
    let lists: Vec<String> = keys_of_roots.iter().flat_map(both).collect();
    let objects: Vec<String> = lists.iter().map(|key| format!("{bucket}/{key}")).collect();
    finished(vec![
        allow(&READ_WRITE, json!(objects)),
        lists_of(&bucket, json!(lists)),
        keys(),
    ])
}

fn bucket(partition: &str, of: &Location) -> String {
    format!("arn:{partition}:s3:::{}", of.bucket)
}

/// The key of a location, in which a policy must not find patterns.
fn literal(location: &Location) -> Result<&str, String> {
    let key = location.key.trim_end_matches('/');
    match key.contains(['*', '?', '$']) {
        false => Ok(key),
        true => Err(format!(
            "`{location}` has `*`, `?` or `$`, which stand for something else in the policies that `executor_role` \
             needs: choose another prefix"
        )),
    }
}

fn allow(actions: &[&str], resources: Value) -> Value {
    json!({ "Effect": "Allow", "Action": actions, "Resource": resources })
}

fn lists_of(bucket: &str, prefixes: Value) -> Value {
    let mut list = allow(&["s3:ListBucket"], json!([bucket]));
    list["Condition"] = json!({ "StringLike": { "s3:prefix": prefixes } });
    list
}

/// Keys of encrypted buckets, by way of S3 alone; the role says which.
fn keys() -> Value {
    let mut keys = allow(&["kms:Decrypt", "kms:GenerateDataKey"], json!(["*"]));
    keys["Condition"] = json!({ "StringLike": { "kms:ViaService": ["s3.*"] } });
    keys
}

fn finished(statements: Vec<Value>) -> Result<String, String> {
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    match policy.len() <= MAX_POLICY_BYTES {
        true => Ok(policy),
        false => Err(format!(
            "the policy for `executor_role` would have {} bytes, and AWS takes {MAX_POLICY_BYTES}: name fewer or shorter \
             roots, or make several stores of them",
            policy.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use weft_core::{Digest, JobId};
    use weft_protocol::{
        artefact_key, component_key, job_prefix, kept_output_key, plan_text_key, shard_prefix,
    };

    use super::*;

    fn at(text: &str) -> Location {
        Location::parse(text).expect("it is right")
    }

    /// Matches `*` and `?` as AWS does.
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
            (Some((b'?', rest)), Some((_, text))) => matches(rest, text),
            (Some((letter, rest)), Some((first, text))) => letter == first && matches(rest, text),
            _ => false,
        }
    }

    fn is_in(patterns: &Value, text: &str) -> bool {
        let patterns = patterns.as_array().expect("a list").iter();
        let mut patterns = patterns.filter_map(Value::as_str);
        patterns.any(|pattern| matches(pattern.as_bytes(), text.as_bytes()))
    }

    /// Whether a policy allows an action on a key of the bucket, or a list of a prefix.
    fn allows(policy: &str, action: &str, bucket: &str, key: &str) -> bool {
        let policy: Value = serde_json::from_str(policy).expect("JSON");
        let statements = policy["Statement"].as_array().expect("a list");
        statements.iter().any(|statement| {
            let resource = match action {
                "s3:ListBucket" => format!("arn:aws:s3:::{bucket}"),
                _ => format!("arn:aws:s3:::{bucket}/{key}"),
            };
            let prefixes = statement.pointer("/Condition/StringLike/s3:prefix");
            is_in(&statement["Action"], action)
                && is_in(&statement["Resource"], &resource)
                && prefixes.is_none_or(|prefixes| is_in(prefixes, key))
        })
    }

    #[test]
    fn executors_use_their_part_of_the_own_store() {
        let acme: TenantId = "acme".parse().expect("an id");
        let policy = own("aws", &at("s3://cluster/weft"), &acme).expect("it is short");
        let (job, digest) = (JobId::new(1, 2), Digest::from_sha256(&[1; 32]));
        let may = |action: &str, key: &str| {
            let key = format!("weft/{key}");
            allows(&policy, &format!("s3:{action}"), "cluster", &key)
        };
        let segment = format!("{}/0/0-a-1-1.shuffle", job_prefix(&job));
        let kept = format!("{}/part-0", kept_output_key(&job, "rows"));
        for key in [&segment, &kept] {
            assert!(
                may("GetObject", key) && may("PutObject", key) && may("AbortMultipartUpload", key)
            );
            assert!(
                may("ListBucket", key),
                "so that what is not there is told apart"
            );
        }
        // The database in a shard removes what it no longer needs.
        let wal = format!("{}/wal/1.sst", shard_prefix(&acme, 7));
        let manifests = format!("{}/manifest/", shard_prefix(&acme, 7));
        assert!(may("GetObject", &wal) && may("PutObject", &wal) && may("DeleteObject", &wal));
        assert!(may("ListBucket", &manifests));
        for other in ["acme-2", "default"] {
            let other: TenantId = other.parse().expect("an id");
            let wal = format!("{}/wal/1.sst", shard_prefix(&other, 7));
            for action in ["GetObject", "PutObject", "DeleteObject", "ListBucket"] {
                assert!(!may(action, &wal), "{action} of another tenant");
            }
        }
        assert!(may("GetObject", &artefact_key(&digest, "1")));
        assert!(may("PutObject", &plan_text_key(&job)));
        assert!(may(
            "ListBucket",
            &format!("{}/", kept_output_key(&job, "rows"))
        ));
        for (action, key) in [
            ("DeleteObject", segment.as_str()),
            ("PutObject", &artefact_key(&digest, "1")),
            ("GetObject", &component_key(&digest)),
            ("PutObject", &component_key(&digest)),
            ("GetObject", &plan_text_key(&job)),
            ("PutObject", &format!("archive/{job}.json.zst")),
            ("PutObject", "owner"),
            // Jobs of others are not to be found.
            ("ListBucket", "jobs/"),
            ("ListBucket", "jobs/job-"),
            ("ListBucket", "outputs/job-0"),
            ("ListBucket", "shards/"),
            ("ListBucket", ""),
        ] {
            assert!(!may(action, key), "{action} {key}");
        }
        assert!(!allows(
            &policy,
            "s3:GetObject",
            "other",
            &format!("weft/{segment}")
        ));
        assert!(
            !allows(&policy, "s3:GetObject", "cluster", &segment),
            "another prefix"
        );
    }

    #[test]
    fn executors_use_the_roots_of_stores_of_jobs() {
        let roots = [at("s3://lake/raw"), at("s3://lake/out/")];
        let policy = granted("aws", &roots).expect("it is short");
        let may = |action: &str, key: &str| allows(&policy, &format!("s3:{action}"), "lake", key);
        for key in ["raw/a.csv", "raw", "out/day=1/part-0"] {
            assert!(may("GetObject", key) && may("PutObject", key) && may("ListBucket", key));
        }
        for key in ["rawer/a.csv", "secret", "", "ou"] {
            assert!(!may("GetObject", key) && !may("PutObject", key) && !may("ListBucket", key));
        }
        assert!(!may("DeleteObject", "raw/a.csv"));
        let whole = granted("aws", &[at("s3://lake/")]).expect("it is short");
        assert!(allows(&whole, "s3:ListBucket", "lake", ""));
        assert!(allows(&whole, "s3:PutObject", "lake", "a/b"));
        assert!(!allows(&whole, "s3:GetObject", "other", "a/b"));
    }

    #[test]
    fn what_no_policy_can_say_is_refused() {
        let error = granted("aws", &[at("s3://lake/a*")]).expect_err("a pattern");
        assert!(error.contains("another prefix"), "{error}");
        let root = |number: u32| {
            at(&format!(
                "s3://lake/a-root-with-a-rather-long-name-{number}"
            ))
        };
        let many: Vec<Location> = (0..50).map(root).collect();
        let error = granted("aws", &many).expect_err("too long");
        assert!(error.contains("2048") && error.contains("fewer"), "{error}");
        let error = partition("weft-executors").expect_err("a name alone");
        assert!(error.contains("arn:aws:iam::"), "{error}");
        let role = "arn:aws-cn:iam::123456789012:role/weft-executors";
        assert_eq!(partition(role), Ok("aws-cn"));
    }
}
