//! Checkpoints on S3 or what speaks like it: how the store is opened, and what its errors mean.

use std::sync::Arc;

use object_store::{Error as StoreError, ObjectStore, path::Path};

use crate::error::{Error, Result};

/// The bucket of `s3://BUCKET/PREFIX`, and the prefix in it. Region, credentials and endpoint come from the environment's `AWS_…`.
#[cfg(feature = "s3")]
pub(super) fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    use std::time::Duration;

    use object_store::{
        ClientConfigKey, RetryConfig,
        aws::{AmazonS3Builder, AmazonS3ConfigKey},
    };

    let invalid = |e: &dyn std::fmt::Display| Error::Invalid(format!("nothing can be kept at '{url}': {e}"));
    let rest = url.strip_prefix("s3://").unwrap_or(url);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(invalid(&"write s3://BUCKET/PREFIX"));
    }
    // Whoever writes a checkpoint tries again by itself; whoever starts a server wants to know soon.
    let retry = RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
    // Who names an endpoint without TLS means it.
    let plain = |name| std::env::var(name).is_ok_and(|endpoint| endpoint.starts_with("http://"));
    if ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"].into_iter().any(plain) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    let store = builder.build().map_err(|e| invalid(&e))?;
    Ok((Arc::new(store), Path::parse(prefix.trim_end_matches('/')).map_err(|e| invalid(&e))?))
}

/// S3 was left out of this program.
#[cfg(not(feature = "s3"))]
pub(super) fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    Err(Error::Unsupported(format!("nothing can be kept at '{url}': this program was built without S3; build it with `cargo build --features s3`")))
}

/// What an error of the store means, and what to do.
pub(super) fn explain(error: &StoreError) -> String {
    let text = error.to_string();
    let says = |codes: &[&'static str]| codes.iter().copied().find(|code| text.contains(code));
    if let Some(code) = says(&["NoSuchBucket"]) {
        return format!("the store knows no such bucket ({code}): create it, or check the URL, AWS_REGION and AWS_ENDPOINT_URL");
    }
    let refused = says(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AccessDenied"]);
    if let Some(code) = refused.or(matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }).then_some("forbidden")) {
        return format!(
            "the store refuses the credentials ({code}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and that they may list, read, write and delete there"
        );
    }
    if text.contains("error sending request") {
        return format!("the store does not answer: check AWS_ENDPOINT_URL and AWS_REGION, and that it can be reached from here ({text})");
    }
    text
}
