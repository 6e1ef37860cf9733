//! Locations in object stores: `s3://bucket/key`, `gs://`, `az://`.

/// Bytes of a location, which S3 bounds to 1,024 for a key.
pub const MAX_LOCATION_BYTES: usize = 2048;

/// Kind of an object store, as locations begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    /// Amazon S3, and what speaks its protocol: `s3://bucket`.
    S3,
    /// Google Cloud Storage: `gs://bucket`.
    Gcs,
    /// Azure Blob Storage: `az://container`.
    Azure,
}

impl StoreKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    /// The scheme of its locations.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket, and a key or a beginning of keys in it. Keys stand as they are: nothing in them is an escape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Kind of the store.
    pub kind: StoreKind,
    /// The bucket; a container of Azure.
    pub bucket: String,
    /// The key without a slash at its front; one at its end means a folder.
    pub key: String,
}

impl Location {
    /// Returns whether a text names an object store rather than a path.
    pub fn is_one(text: &str) -> bool {
        StoreKind::ALL.iter().any(|kind| {
            let rest = text.strip_prefix(kind.scheme());
            rest.is_some_and(|rest| rest.starts_with("://"))
        })
    }

    /// Parses a location; parts that are empty or `.` are left out. Errors: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{}` {what}", Self::shown(text));
        if text.len() > MAX_LOCATION_BYTES {
            return Err(format!(
                "a location has {} bytes, and may have {MAX_LOCATION_BYTES}",
                text.len()
            ));
        }
        let found = StoreKind::ALL.into_iter().find_map(|kind| {
            let rest = text.strip_prefix(kind.scheme())?.strip_prefix("://")?;
            Some((kind, rest))
        });
        let (kind, rest) = found.ok_or_else(|| {
            wrong("is not a location such as `s3://bucket/key`, `gs://`, `az://`")
        })?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if bucket.is_empty() || !bucket.bytes().all(is_name) {
            return Err(wrong(
                "has no name of a bucket (letters, digits, `-`, `_`, `.`) behind `://`; credentials stand in the \
                 server's settings alone",
            ));
        }
        if key.chars().any(char::is_control) || key.split('/').any(|part| part == "..") {
            return Err(wrong("must have neither `..` nor control characters"));
        }
        let parts = key.split('/');
        let parts: Vec<&str> = parts
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let end = match key.ends_with('/') && !parts.is_empty() {
            true => "/",
            false => "",
        };
        Ok(Self {
            kind,
            bucket: bucket.to_owned(),
            key: format!("{}{end}", parts.join("/")),
        })
    }

    /// A text that may be a location, for people: without what stands before an `@`, where URLs of other programs have
    /// credentials. A secret may hold slashes.
    pub fn shown(text: &str) -> String {
        let Some((before, rest)) = text.rsplit_once('@') else {
            return text.escape_debug().to_string();
        };
        match before.split_once("://") {
            Some((scheme, _)) => {
                format!("{}://..@{}", scheme.escape_debug(), rest.escape_debug())
            }
            None => format!("..@{}", rest.escape_debug()),
        }
    }

    /// Returns whether another location lies in this one, by whole parts of the key.
    pub fn contains(&self, other: &Self) -> bool {
        let root = self.key.trim_end_matches('/');
        let rest = other.key.strip_prefix(root);
        self.kind == other.kind
            && self.bucket == other.bucket
            && (root.is_empty()
                || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// A location of the same bucket.
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..self.clone()
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/{}", self.kind.scheme(), self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_have_one_spelling() {
        let check = |text: &str, expected: &str| {
            let location = Location::parse(text).expect("it is right");
            assert_eq!(location.to_string(), expected);
            assert!(Location::is_one(text));
        };
        check("s3://lake/a//b/./c.parquet", "s3://lake/a/b/c.parquet");
        check("gs://lake", "gs://lake/");
        check("az://lake/day=*/", "az://lake/day=*/");
        check("s3://lake/a%20b?#.csv", "s3://lake/a%20b?#.csv");
    }

    #[test]
    fn wrong_locations_say_what_is_wrong() {
        for (text, expected) in [
            ("s3:///a", "name of a bucket"),
            ("s3://key:secret@lake/a", "settings alone"),
            ("s3://lake/../a", "neither `..`"),
            ("ftp://lake/a", "is not a location"),
        ] {
            let error = Location::parse(text).expect_err("it is wrong");
            assert!(error.contains(expected), "{error}");
        }
        for text in [
            "s3://KEY:SE/CRET@lake/a",
            "s3://KEY@lake",
            "KEY:SECRET@lake",
        ] {
            let error = Location::parse(text).expect_err("it is wrong");
            for secret in ["KEY", "CRET"] {
                assert!(!error.contains(secret), "{error}");
            }
            assert!(error.contains("..@lake"), "{error}");
        }
        let long = format!("s3://lake/{}", "a".repeat(MAX_LOCATION_BYTES));
        assert!(Location::parse(&long).is_err());
    }

    #[test]
    fn roots_contain_whole_parts() {
        let at = |text: &str| Location::parse(text).expect("it is right");
        let root = at("s3://lake/raw/");
        for (text, expected) in [
            ("s3://lake/raw/a.csv", true),
            ("s3://lake/raw", true),
            ("s3://lake/raw2/a.csv", false),
            ("s3://lake/", false),
            ("s3://other/raw/a.csv", false),
            ("gs://lake/raw/a.csv", false),
        ] {
            assert_eq!(root.contains(&at(text)), expected, "{text}");
        }
        assert!(at("s3://lake").contains(&at("s3://lake/a")));
    }
}
