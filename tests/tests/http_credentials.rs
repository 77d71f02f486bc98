//! Credentials that the agent never has: put in on the way, and nowhere else.

use anyhow::{Context as _, Result};
use interceptor_tests::needs;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::web::{Plan, Shared, Web, target};
use serde_json::{Value, json};

const RULES: &str = "version: 1\nrules: []\n";
/// Its end is in no hexadecimal digest, by whose chance four digits were found.
const SECRET: &str = "Bearer very-secret-quixotry";

/// The secret of AWS's own examples.
const AWS_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

static WEB: Shared = Shared::new(Plan {
    rules: RULES,
    config: |nginx, place| {
        let value = place.private_file("token", SECRET)?;
        let client_secret = place.private_file("client-secret", "hush-hush")?;
        let aws = place.private_file("aws", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")?;
        let id = place.private_file("aws-id", "AKIDEXAMPLE")?;
        let key =
            place.private_file("client-key", &std::fs::read_to_string(&nginx.clients.key)?)?;
        let issuer = issuer()?;
        let header =
            json!({ "credentials": { "header": "Authorization", "value": { "file": value } } });
        let tls = json!({ "ca": nginx.certificates.ca });
        Ok(json!({ "targets": [
            target("pages", nginx.port, &header),
            target("pages-tls", nginx.port_tls, &json!({ "tls": tls, "credentials": { "oauth": {
                "token_url": format!("http://127.0.0.1:{}/token", issuer.port),
                "client_id": "me", "client_secret": { "file": client_secret }, "scope": "all of it",
            } } })),
            target("pages-h2c", nginx.port_http2, &json!({ "credentials": { "aws": {
                "region": "us-east-1", "service": "service",
                "access_key_id": { "file": id }, "secret_access_key": { "file": aws },
            } } })),
            target("pages-mutual", nginx.port_mutual, &json!({ "tls": tls, "credentials": {
                "certificate": nginx.clients.certificate, "key": { "file": key },
            } })),
        ] }))
    },
});

/// Gives tokens away, numbered.
fn issuer() -> Result<Scripted> {
    let count = std::sync::atomic::AtomicU32::new(0);
    Scripted::start(move |connection| {
        connection.head()?;
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let body = format!("{{\"access_token\":\"issued-{number}\",\"expires_in\":3600}}");
        connection.say(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ))
    })
}

fn authorization(web: &Web, path: &str) -> Result<String> {
    let asked = web.nginx.asked_for(path)?;
    let one = asked.first().and_then(|one| one.get("authorization"));
    Ok(one
        .and_then(Value::as_str)
        .context("no authorization")?
        .to_owned())
}

#[test]
fn a_header_is_put_in_and_what_the_agent_sent_in_its_place_is_gone() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/with", web.nginx.port);
        let arguments = ["-v", "-H", "authorization: Bearer of-the-agent", &url];
        let done = web.curl("holder", &arguments)?.ok()?;
        assert!(done.stdout.contains(" 200"), "{}", done.stdout);
        assert_eq!(authorization(web, "/with")?, SECRET);
        assert!(!done.stdout.contains("quixotry") && !done.stderr.contains("quixotry"));
        let mut records = web.records()?;
        records.only_session_of("holder")?;
        assert_eq!(records.keys_that_hold(b"quixotry")?, Vec::<String>::new());
        assert!(!web.daemon.server().log().contains("quixotry"));
        Ok(())
    })
}

#[test]
fn a_token_is_fetched_once_for_many_requests() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("https://localhost:{}{path}", web.nginx.port_tls);
        for path in ["/oauth/1", "/oauth/2"] {
            let done = web.curl("bearer", &[&url(path)])?.ok()?;
            assert!(done.stdout.contains(" 200"), "{}", done.stdout);
            assert_eq!(authorization(web, path)?, "Bearer issued-0");
        }
        assert_eq!(
            web.records()?.keys_that_hold(b"issued-")?,
            Vec::<String>::new()
        );
        assert_eq!(
            web.records()?.keys_that_hold(b"hush-hush")?,
            Vec::<String>::new()
        );
        Ok(())
    })
}

#[test]
fn a_request_to_aws_is_signed_anew() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/signed", web.nginx.port_http2);
        let arguments = [
            "--http2-prior-knowledge",
            "-H",
            "authorization: AWS4-HMAC-SHA256 Credential=of-the-agent",
            "--data-binary",
            "a body",
            &url,
        ];
        let done = web.curl("signer", &arguments)?.ok()?;
        assert!(done.stdout.contains(" 200"), "{}", done.stdout);
        let value = authorization(web, "/signed")?;
        let (head, signature) = value.rsplit_once("Signature=").context("no signature")?;
        assert!(
            head.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
            "{value}"
        );
        assert!(head.contains("/us-east-1/service/aws4_request"), "{value}");
        assert_eq!(signature.len(), 64, "{value}");
        Ok(())
    })
}

#[test]
fn the_signature_is_the_one_that_aws_s_own_library_makes() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.body("a body".len())?;
        connection.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        connection
            .closes_within(std::time::Duration::from_secs(10))
            .map(drop)
    })?;
    let place = interceptor_tests::place::Place::new()?;
    let id = place.private_file("aws-id", "AKIDEXAMPLE")?;
    let key = place.private_file("aws", AWS_KEY)?;
    let aws = json!({ "credentials": { "aws": { "region": "us-east-1", "service": "execute-api",
        "access_key_id": { "file": id }, "secret_access_key": { "file": key } } } });
    let further = json!({ "targets": [target("scripted", server.port, &aws)] });
    let web = Web::before_with(&server, RULES, &further)?;
    let program = r#"
import sys
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
lines = sys.argv[1].split("\r\n")
method, target, _ = lines[0].split(" ")
fields = dict((name.lower(), value) for name, value in (line.split(": ", 1) for line in lines[1:] if line))
authorization = fields["authorization"]
named = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
request = AWSRequest(method, "http://" + fields["host"] + target, data=b"a body",
                     headers={name: fields[name] for name in named})
request.context["timestamp"] = fields["x-amz-date"]
auth = SigV4Auth(Credentials("AKIDEXAMPLE", sys.argv[2]), "execute-api", "us-east-1")
canonical = auth.canonical_request(request)
signature = auth.signature(auth.string_to_sign(request, canonical), request)
print("same" if authorization.endswith("Signature=" + signature) else authorization + " " + canonical)
"#;
    web.test(|web| {
        for path in ["/plain", "/a%20b/c?z=1&a=%2F&a=b", "/?x"] {
            let before = server.heads().len();
            let url = format!("http://127.0.0.1:{}{path}", server.port);
            let done = web.curl("aws", &["--data-binary", "a body", &url])?.ok()?;
            assert!(done.stdout.contains(" 200"), "{}", done.stdout);
            let heads = server.heads();
            let head = heads.get(before).context("no request")?;
            let agent = web.agent("checker");
            let done = agent.python(&web.place, program, &[head, AWS_KEY])?.ok()?;
            assert_eq!(done.stdout, "same\n", "{path}: {}", done.stderr);
        }
        Ok(())
    })
}

#[test]
fn a_token_that_the_service_refuses_is_fetched_anew_for_the_next_request() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let server = Scripted::start(|connection| {
        loop {
            let head = connection.head()?;
            let fresh = head.contains("Bearer issued-1");
            let status = if fresh { "200 OK" } else { "401 Unauthorized" };
            connection.say(&format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))?;
        }
    })?;
    let issuer = issuer()?;
    let place = interceptor_tests::place::Place::new()?;
    let secret = place.private_file("client-secret", "hush-hush")?;
    let oauth = json!({ "credentials": { "oauth": {
        "token_url": format!("http://127.0.0.1:{}/token", issuer.port),
        "client_id": "me", "client_secret": { "file": secret }, "scope": "all",
    } } });
    let further = json!({ "targets": [target("scripted", server.port, &oauth)] });
    let web = Web::before_with(&server, RULES, &further)?;
    web.test(|web| {
        let url = format!("http://127.0.0.1:{}/", server.port);
        for status in ["401", "200", "200"] {
            let done = web.curl("refetch", &[&url])?.ok()?;
            assert!(
                done.stdout.starts_with(&format!("HTTP/1.1 {status}")),
                "{}",
                done.stdout
            );
        }
        assert_eq!(issuer.heads().len(), 2);
        Ok(())
    })
}

#[test]
fn a_client_certificate_is_shown_where_the_target_has_one() -> Result<()> {
    WEB.test(|web| {
        let url = format!("https://localhost:{}/mutual", web.nginx.port_mutual);
        let done = web.curl("mutual", &["--http2", &url])?.ok()?;
        // The service has no HTTP/2, so the agent is offered none.
        assert!(done.stdout.starts_with("HTTP/1.1 200"), "{}", done.stdout);
        Ok(())
    })
}
