//! Asks for credentials of a role: AWS's Security Token Service, and servers of S3 that speak its protocol.
//!
//! Source: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpRequest, HttpRequestBody, SpawnedReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};
use tokio::runtime::Handle;
use weft_core::Location;
use weft_protocol::{Secret, SessionCredential, StoreSettings};

use crate::error::{Error, Result};
use crate::fault::{self, Fault};
use crate::remote::s3_builder;
use crate::signed::{answer, element, escaped, generic};

/// How long credentials are valid: what AWS allows to a role that another role assumes.
const SESSION_SECONDS: u64 = 3_600;
/// Time for a connection, and for one request.
const CONNECT_WALL_MAX: Duration = Duration::from_secs(3);
const REQUEST_WALL_MAX: Duration = Duration::from_secs(10);
/// Tries of a request whose failure may pass, and the pause between two. Executors that start wait for all of them.
const MAX_TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Region of S3 without another one.
const DEFAULT_REGION: &str = "us-east-1";

/// A service that gives credentials of roles.
pub(super) struct Sts {
    endpoint: String,
    region: String,
    /// Those of the server.
    credentials: AwsCredentialProvider,
    client: HttpClient,
}

/// Credentials that are wanted.
pub(super) struct Wanted<'a> {
    /// The role, as an ARN.
    pub(super) role: &'a str,
    /// Name of the session, for the logs of the service.
    pub(super) session: &'a str,
    /// The policy of the session: it allows a part of what the role may do.
    pub(super) policy: &'a str,
}

impl Sts {
    /// The service of a store; nothing is sent yet. The runtime that this is called in drives its connections.
    ///
    /// Errors: `Settings` if an option of the store is wrong.
    pub(super) fn open(
        settings: &StoreSettings,
        location: &Location,
        partition: &str,
    ) -> Result<Self> {
        let io = Handle::current();
        let wrong = |error: object_store::Error| Error::settings(&settings.url, error.to_string());
        let builder = s3_builder(settings, location, &io)?;
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let endpoint = endpoint(settings, &region, partition);
        let credentials = Arc::clone(builder.build().map_err(wrong)?.credentials());
        let mut options = ClientOptions::new()
            .with_allow_http(endpoint.starts_with("http://"))
            .with_connect_timeout(CONNECT_WALL_MAX)
            .with_timeout(REQUEST_WALL_MAX);
        if let Some(proxy) = settings.options.get("proxy_url") {
            options = options.with_proxy_url(proxy.reveal());
        }
        let client = SpawnedReqwestConnector::new(io).connect(&options);
        Ok(Self {
            endpoint,
            region,
            credentials,
            client: client.map_err(wrong)?,
        })
    }

    /// Gives credentials of a role.
    ///
    /// Errors: `NotAssumed`, with the reason.
    pub(super) async fn assume(&self, wanted: &Wanted<'_>) -> Result<SessionCredential> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (fault, cause) = match self.ask(wanted).await {
                Ok(text) => match parsed(&text) {
                    Some(credential) => return Ok(credential),
                    None => (
                        Some(Fault::NotAStore),
                        "the answer has no credentials".into(),
                    ),
                },
                Err(error) => (Fault::of(&error), fault::cause(&error)),
            };
            let error = Error::NotAssumed {
                role: wanted.role.to_owned(),
                endpoint: self.endpoint.clone(),
                fault,
                cause,
            };
            if tries >= MAX_TRIES || error.kind() != crate::ErrorKind::Unavailable {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, wanted: &Wanted<'_>) -> object_store::Result<String> {
        let mut request = HttpRequest::new(HttpRequestBody::from(body(wanted)));
        *request.method_mut() = "POST".parse().map_err(|_| generic("no method"))?;
        let endpoint = format!("{}/", self.endpoint.trim_end_matches('/'));
        *request.uri_mut() = endpoint
            .parse()
            .map_err(|_| generic("the address is no URL"))?;
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert("content-type", form);
        let credential = self.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "sts", &self.region).authorize(&mut request, None);
        answer(&self.client, request).await
    }
}

/// Address of the service: that of settings, or the store's own, or AWS's in the region.
fn endpoint(settings: &StoreSettings, region: &str, partition: &str) -> String {
    let named = settings.sts_endpoint.as_ref();
    let named = named.or(settings.endpoint.as_ref()).cloned();
    named.unwrap_or_else(|| {
        let end = match partition {
            "aws-cn" => "amazonaws.com.cn",
            _ => "amazonaws.com",
        };
        format!("https://sts.{region}.{end}")
    })
}

/// The request's body.
fn body(wanted: &Wanted<'_>) -> String {
    format!(
        "Action=AssumeRole&Version=2011-06-15&RoleArn={}&RoleSessionName={}&DurationSeconds={SESSION_SECONDS}&Policy={}",
        escaped(wanted.role),
        escaped(wanted.session),
        escaped(wanted.policy)
    )
}

/// The credentials of an answer. Nothing if it is none.
fn parsed(text: &str) -> Option<SessionCredential> {
    let expires = chrono::DateTime::parse_from_rfc3339(element(text, "Expiration")?).ok()?;
    Some(SessionCredential {
        access_key_id: element(text, "AccessKeyId")?.to_owned(),
        secret_access_key: Secret::new(element(text, "SecretAccessKey")?),
        session_token: Secret::new(element(text, "SessionToken")?),
        expires_ms: u64::try_from(expires.timestamp_millis()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_key_a_token_and_an_end() {
        let text = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>\
            <SecretAccessKey>a/b+c=</SecretAccessKey><SessionToken>t==</SessionToken>\
            <Expiration>2026-12-01T01:07:55Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";
        let found = parsed(text).expect("credentials");
        assert_eq!(found.access_key_id, "ASIA1");
        assert_eq!(found.secret_access_key.reveal(), "a/b+c=");
        assert_eq!(found.session_token.reveal(), "t==");
        assert_eq!(found.expires_ms, 1_796_087_275_000);
        assert_eq!(parsed("<html>It works!</html>"), None);
    }

    #[test]
    fn requests_name_the_role_the_session_and_the_policy() {
        let wanted = Wanted {
            role: "arn:aws:iam::1:role/weft",
            session: "weft-default-7",
            policy: "{\"a\":1}",
        };
        assert_eq!(
            body(&wanted),
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fweft&\
             RoleSessionName=weft-default-7&DurationSeconds=3600&Policy=%7B%22a%22%3A1%7D"
        );
    }

    #[test]
    fn the_service_is_beside_the_store() {
        let mut settings = StoreSettings::of_url("s3://lake/");
        let of = |settings: &StoreSettings, partition| endpoint(settings, "eu-west-1", partition);
        assert_eq!(of(&settings, "aws"), "https://sts.eu-west-1.amazonaws.com");
        assert!(of(&settings, "aws-cn").ends_with(".com.cn"));
        settings.endpoint = Some("http://minio:9000".into());
        assert_eq!(of(&settings, "aws"), "http://minio:9000");
        settings.sts_endpoint = Some("http://sts:1".into());
        assert_eq!(of(&settings, "aws"), "http://sts:1");
    }
}
