//! Clients in Python, as agents use them: they trust what `exec` tells them to, and
//! are judged as curl is.

use anyhow::Result;
use interceptor_tests::web::{Plan, Shared, all_targets};

static WEB: Shared = Shared::new(Plan {
    rules: "
version: 1
rules:
  - name: no-admin
    match: { http: { path: [\"/admin\", \"/admin/**\"] } }
    verdict: block
",
    config: all_targets,
});

#[test]
fn requests_and_httpx_work_under_tls_without_being_told_whom_to_trust() -> Result<()> {
    WEB.test(|web| {
        let program = r#"
import sys, requests, httpx
base = sys.argv[1]
with requests.Session() as session:
    for path in ("/py/1", "/admin/py", "/py/2"):
        answer = session.get(base + path)
        print("requests", path, answer.status_code, answer.headers.get("content-type"))
    print("requests post", session.post(base + "/upload", data=b"z" * 100000).text.strip())
for http2 in (False, True):
    with httpx.Client(http2=http2) as client:
        for path in ("/py/3", "/admin/py"):
            answer = client.get(base + path)
            print("httpx", path, answer.status_code, answer.http_version)
        def chunks():
            for _ in range(3):
                yield b"abc"
        print("httpx post", client.post(base + "/upload", content=chunks()).status_code)
"#;
        let base = format!("https://localhost:{}", web.nginx.port_tls);
        let agent = web.agent("python");
        let done = agent.python(&web.place, program, &[&base])?.ok()?;
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(
            lines,
            [
                "requests /py/1 200 text/plain",
                "requests /admin/py 403 application/problem+json",
                "requests /py/2 200 text/plain",
                "requests post took 100000",
                "httpx /py/3 200 HTTP/1.1",
                "httpx /admin/py 403 HTTP/1.1",
                "httpx post 200",
                "httpx /py/3 200 HTTP/2",
                "httpx /admin/py 403 HTTP/2",
                "httpx post 200",
            ],
            "{}",
            done.stderr
        );
        Ok(())
    })
}
