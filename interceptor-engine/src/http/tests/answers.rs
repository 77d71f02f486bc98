//! What is refused is told in the form that the client reads.

use super::*;

#[test]
fn a_refusal_is_a_problem_with_rule_message_exchange_and_session() {
    let mut talk = Talk::new(BLOCKS);
    talk.get("/");
    assert!(talk.sent.is_none());
    assert_eq!(talk.status(), 403);
    assert_eq!(talk.field("content-type"), Some("application/problem+json"));
    let body = talk.json();
    assert_eq!(body["status"], 403);
    assert_eq!(body["rule"], "nothing-goes");
    assert_eq!(body["message"], "Not today.");
    assert_eq!(body["detail"], "Not today.");
    assert_eq!(body["exchange"], format!("{}/1", Uuid::nil()));
    assert_eq!(body["session"], Uuid::nil().to_string());
    let length = talk.down.len().to_string();
    assert_eq!(talk.field("content-length"), Some(&*length));
}

#[test]
fn a_refusal_of_a_head_request_has_no_body() {
    let mut talk = Talk::new(BLOCKS);
    talk.begin(request("HEAD", "/", &[]), true);
    assert_eq!(talk.status(), 403);
    assert!(talk.down.is_empty() && talk.down_ended);
}

#[test]
fn a_refusal_of_grpc_is_its_status_and_nothing_else() {
    let mut talk = Talk::new(BLOCKS);
    talk.begin(
        request(
            "POST",
            "/pkg.Service/Call",
            &[("content-type", "application/grpc")],
        ),
        false,
    );
    assert_eq!(talk.status(), 200);
    assert_eq!(talk.field("grpc-status"), Some("7"));
    assert!(
        talk.field("grpc-message")
            .unwrap()
            .starts_with("Not today.")
    );
    assert_eq!(talk.field("content-type"), Some("application/grpc"));
    assert!(talk.down.is_empty() && talk.down_ended);
}

#[test]
fn a_refusal_of_json_rpc_is_an_error_under_its_own_id() {
    let json = [("content-type", "application/json")];
    let mut talk = Talk::new(BLOCKS);
    let call = br#"{"jsonrpc":"2.0","id":"a7","method":"tools/call","params":{"name":"rm"}}"#;
    talk.post("/mcp", &json, &[call]);
    assert_eq!(talk.status(), 200);
    let body = talk.json();
    assert_eq!(body["id"], "a7");
    assert_eq!(body["error"]["message"], "Not today.");
    assert_eq!(body["error"]["data"]["rule"], "nothing-goes");
    let mut talk = Talk::new(BLOCKS);
    let batch = br#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":2,"method":"b"}]"#;
    talk.post("/mcp", &json, &[batch]);
    assert_eq!(talk.json().as_array().unwrap().len(), 2);
    let mut talk = Talk::new(BLOCKS);
    talk.post("/mcp", &json, &[br#"{"jsonrpc":"2.0","method":"a"}"#]);
    assert_eq!(talk.status(), 403);
}

#[test]
fn a_refusal_of_graphql_is_its_list_of_errors() {
    let query = br#"{"query":"mutation { drop }"}"#;
    let mut talk = Talk::new(BLOCKS);
    talk.post(
        "/graphql",
        &[("content-type", "application/json")],
        &[query],
    );
    assert_eq!(talk.status(), 200);
    assert_eq!(talk.json()["errors"][0]["message"], "Not today.");
    assert_eq!(
        talk.json()["errors"][0]["extensions"]["rule"],
        "nothing-goes"
    );
    let mut talk = Talk::new(BLOCKS);
    let modern = [
        ("content-type", "application/json"),
        ("accept", "application/graphql-response+json"),
    ];
    talk.post("/graphql", &modern, &[query]);
    assert_eq!(talk.status(), 403);
}

#[test]
fn a_kill_answers_ends_the_flow_and_lets_nothing_more_begin() {
    let kills = "
version: 1
rules:
  - name: not-that
    match: { http: { path: /kill } }
    verdict: kill
";
    let mut talk = Talk::new(kills);
    talk.get("/kill");
    assert_eq!(talk.status(), 403);
    assert!(matches!(talk.end, Some(End::Refused(_))));
    (talk.answer, talk.down_ended) = (None, false);
    talk.down.clear();
    talk.get("/again");
    assert_eq!(talk.status(), 403);
    assert!(talk.sent.is_none());
}

#[test]
fn what_is_no_http_is_answered_with_the_status_of_its_error() {
    let mut talk = Talk::new(NOTHING);
    let error = interceptor_proto::http::HttpError::TransferCoding;
    let answer = talk.call(|session, now, out| session.malformed(now, &error, out));
    let text = String::from_utf8(answer).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 501 Not Implemented\r\n"),
        "{text}"
    );
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    assert!(head.contains("Connection: close"));
    assert_eq!(talk.of(Kind::Error).len(), 1);
    assert!(talk.end.is_some());
}

#[test]
fn an_answer_that_a_rule_would_hold_is_refused_since_it_is_too_late_to_ask() {
    for verdict in ["block", "hold"] {
        let yaml = format!(
            "version: 1\nrules:\n  - name: no-teapots\n    \
             match: {{ http: {{ status: 418 }} }}\n    verdict: {verdict}\n"
        );
        let mut talk = Talk::new(&yaml);
        let id = talk.get("/");
        talk.head(id, 418, &[("content-length", "5")], false);
        assert_eq!(talk.status(), 403, "{verdict}");
        assert_eq!(talk.json()["rule"], "no-teapots");
        assert_eq!(talk.meta(Kind::Verdict)["verdict"], "block");
        let mut talk = Talk::new(&yaml);
        let id = talk.get("/");
        talk.respond(id, &[], &[b"hello"]);
        assert_eq!(talk.status(), 200);
    }
}
