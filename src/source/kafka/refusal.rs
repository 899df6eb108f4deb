//! Why a broker, or the way to it, does not let a client in or does not let it do something, and what to do about that. Words in, words out.

use std::fmt;

use rdkafka::error::RDKafkaErrorCode as Code;

/// A refusal: trying again alone does not help, somebody has to change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    what: String,
    advice: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.advice)
    }
}

/// What is written in messages of TLS, in lower case, and what it means.
const TLS: [(&str, &str, &str); 14] = [
    (
        "hostname mismatch",
        "the broker's certificate is made out to another name than the one it is reached by",
        "write the name of the certificate in 'bootstrap.servers', or 'ssl.endpoint.identification.algorithm' = 'none' if that can't be",
    ),
    (
        "ip address mismatch",
        "the broker's certificate is not made out to the address it is reached by",
        "write the name of the certificate in 'bootstrap.servers', or 'ssl.endpoint.identification.algorithm' = 'none' if that can't be",
    ),
    ("certificate has expired", "the broker's certificate has expired", "who runs the broker has to renew it"),
    ("alert certificate expired", "the client's certificate has expired", "give a new one as 'ssl.certificate.pem' and 'ssl.key.pem'"),
    (
        "alert certificate required",
        "the broker wants a certificate of the client",
        "give one of an authority that it trusts as 'ssl.certificate.pem', and its key as 'ssl.key.pem'",
    ),
    (
        "alert bad certificate",
        "the broker does not accept the client's certificate",
        "give one of an authority that it trusts as 'ssl.certificate.pem', and its key as 'ssl.key.pem'",
    ),
    (
        "alert certificate unknown",
        "the broker does not accept the client's certificate",
        "give one that is valid now, of an authority that it trusts, as 'ssl.certificate.pem', and its key as 'ssl.key.pem'",
    ),
    (
        "alert unknown ca",
        "the broker does not know the authority of the client's certificate",
        "give one of an authority that it trusts as 'ssl.certificate.pem', and its key as 'ssl.key.pem'",
    ),
    (
        "no matching issuer found",
        "the client's certificate is of no authority that the broker trusts",
        "give one of an authority that it trusts as 'ssl.certificate.pem', and its key as 'ssl.key.pem'",
    ),
    ("certificate verify failed", "the broker's certificate is of no authority that is trusted here", "give the certificate of its authority as 'ssl.ca.pem'"),
    (
        "certificate could not be verified",
        "the broker's certificate is of no authority that is trusted here",
        "give the certificate of its authority as 'ssl.ca.pem'",
    ),
    (
        "connecting to a plaintext broker listener",
        "the broker speaks no TLS at this address",
        "name its TLS listener in 'bootstrap.servers', or write 'security.protocol' = 'PLAINTEXT' or 'SASL_PLAINTEXT'",
    ),
    (
        "wrong version number",
        "the broker speaks no TLS at this address",
        "name its TLS listener in 'bootstrap.servers', or write 'security.protocol' = 'PLAINTEXT' or 'SASL_PLAINTEXT'",
    ),
    ("no shared cipher", "the broker and this server have no cipher in common", "leave 'ssl.cipher.suites' out, or name one that the broker has"),
];

/// What a code and the client library's words about it mean, if they are a refusal.
pub fn refusal(code: Code, reason: &str) -> Option<Refusal> {
    let words = reason.to_ascii_lowercase();
    let says = |part: &str| words.contains(part);
    let refused = |what: &str, advice: &'static str| Some(Refusal { what: what.into(), advice });
    match code {
        Code::TopicAuthorizationFailed => {
            return refused(
                "the broker does not allow this user that topic",
                "who runs the broker has to grant READ and DESCRIBE on it (WRITE to send records)",
            );
        }
        Code::GroupAuthorizationFailed => {
            return refused(
                "the broker does not allow this user the consumer group, so Kafka's own tools don't see the lag; reading goes on",
                "who runs the broker has to grant READ on the group tidegate-<source>, or name another one in 'properties.group.id'",
            );
        }
        Code::ClusterAuthorizationFailed => {
            return refused("the broker does not allow this user that on the cluster", "who runs the broker has to grant it (IDEMPOTENT_WRITE on old brokers)");
        }
        Code::TransactionalIdAuthorizationFailed => {
            return refused("the broker does not allow this user the transactional id", "who runs the broker has to grant WRITE and DESCRIBE on it");
        }
        _ => {}
    }
    if let Some((_, what, advice)) = TLS.iter().find(|(part, ..)| says(part)) {
        return refused(what, advice);
    }
    if says("oidc") || says("oauthbearer token") {
        return refused(
            &format!("no token could be had for the login ({})", quoted(reason)),
            "check 'sasl.oauthbearer.token.endpoint.url', 'sasl.oauthbearer.client.id' and 'sasl.oauthbearer.client.secret'; for a token endpoint with a certificate of one's own authority give 'https.ca.pem'",
        );
    }
    if code == Code::UnsupportedSASLMechanism || says("mechanism not supported") || says("unsupported sasl") || says("broker's supported mechanisms") {
        return refused(&format!("the broker does not take this kind of login ({})", quoted(reason)), "write one of those that it has as 'sasl.mechanism'");
    }
    let login = matches!(code, Code::Authentication | Code::SaslAuthenticationFailed) || says("sasl authentication error") || says("authentication failed");
    if login {
        let what = match quoted(reason) {
            said if said.is_empty() => "the broker refuses the login".to_string(),
            said => format!("the broker refuses the login ({said})"),
        };
        return refused(&what, "check 'sasl.username', 'sasl.password' and 'sasl.mechanism', or what they are with OAUTHBEARER");
    }
    None
}

/// The library's words without the names of its threads and places before them and the times behind them.
fn quoted(reason: &str) -> String {
    let reason = reason.rsplit_once("/bootstrap: ").map_or(reason, |(_, rest)| rest);
    let reason = match reason.rsplit_once("]: ") {
        Some((before, rest)) if before.contains("[thrd:") => rest,
        _ => reason,
    };
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    reason.trim().trim_end_matches(['.', ':']).chars().take(240).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_with_advice() {
        for (code, reason, words) in [
            (Code::TopicAuthorizationFailed, "", "grant READ and DESCRIBE"),
            (Code::GroupAuthorizationFailed, "", "'properties.group.id'"),
            (
                Code::Authentication,
                "sasl_plaintext://127.0.0.1:1/bootstrap: SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256 (after 300ms in state AUTH_REQ)",
                "the broker refuses the login (SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256): check 'sasl.username'",
            ),
            (
                Code::SSL,
                "ssl://127.0.0.1:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified",
                "'ssl.ca.pem'",
            ),
            (Code::SSL, "SSL handshake failed: ... sslv3 alert certificate expired: SSL alert number 45", "the client's certificate has expired"),
            (Code::SSL, "ssl://x: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", "speaks no TLS"),
            (Code::Authentication, "Failed to acquire SASL OAUTHBEARER token: Failed to retrieve OIDC token", "'sasl.oauthbearer.client.secret'"),
        ] {
            let told = refusal(code, reason).unwrap().to_string();
            assert!(told.contains(words), "{told}");
        }
        for (code, reason) in [
            (Code::BrokerTransportFailure, "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
            (Code::AllBrokersDown, "1/1 brokers are down"),
            (Code::SSL, "ssl://x: SSL handshake failed: Disconnected"),
        ] {
            assert_eq!(refusal(code, reason), None, "{reason}");
        }
    }
}
