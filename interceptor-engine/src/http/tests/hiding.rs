//! Masks by place and by field, in what comes and in what goes; and rules that
//! look at bodies and answers.

use super::*;

const PLACES: &str = "
version: 1
rules:
  - name: no-ssn
    match: { protocol: http }
    mask:
      - json: [\"/user/ssn\", \"/**/iban\"]
        with: redact
      - header: [x-internal]
        with: redact
      - detect: [credit_card]
        with: redact
";
const REQUESTS: &str = "
version: 1
rules:
  - name: nothing-out
    match: { protocol: http }
    mask:
      - { json: [\"/secret\"], with: redact, direction: request }
      - { detect: [credit_card], with: redact, direction: request }
";
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_place_is_hidden_in_a_short_answer_and_in_a_long_one() {
    let short = r#"{"user":{"ssn":"078-05-1120","name":"a"},"x":[{"iban":1}]}"#;
    let hidden = r#"{"user":{"ssn":"[redacted]","name":"a"},"x":[{"iban":"[redacted]"}]}"#;
    let length = short.len().to_string();
    let mut talk = Talk::new(PLACES);
    let id = talk.get("/");
    talk.respond(
        id,
        &[JSON, ("content-length", length.as_str())],
        &[short.as_bytes()],
    );
    assert_eq!(talk.text(), hidden);
    assert_eq!(
        talk.field("content-length"),
        Some(&*hidden.len().to_string())
    );
    for size in [1, 7, 500] {
        let mut talk = Talk::new(PLACES);
        let id = talk.get("/");
        let pieces: Vec<&[u8]> = short.as_bytes().chunks(size).collect();
        talk.respond(id, &[JSON], &pieces);
        assert_eq!(talk.text(), hidden, "by {size}");
        assert_eq!(talk.recorded(), hidden);
    }
}

#[test]
fn what_is_not_the_json_that_it_says_is_cut_where_a_place_in_it_may_be_hidden() {
    let mut talk = Talk::new(PLACES);
    let id = talk.get("/");
    talk.head(id, 200, &[JSON], false);
    talk.data(id, br#"{"user":{ssn:"078-05-1120"}}"#);
    assert!(talk.broken && talk.dropped);
    assert!(!talk.text().contains("078"));
    let mut talk = Talk::new(PLACES);
    let id = talk.get("/");
    talk.respond(id, &[JSON, ("content-length", "5")], &[b"{x:1}"]);
    assert_eq!(talk.status(), 502);
}

#[test]
fn a_place_is_hidden_in_what_is_not_called_json_and_may_be_read_as_it() {
    let body = r#"{"user":{"ssn":"078-05-1120"}}"#;
    let length = body.len().to_string();
    for fields in [
        vec![("content-type", "text/plain"), ("content-length", &*length)],
        vec![("content-type", "application/octet-stream")],
        vec![("content-length", &*length)],
        vec![],
    ] {
        let mut talk = Talk::new(PLACES);
        let id = talk.get("/");
        talk.respond(id, &fields, &[body.as_bytes()]);
        assert_eq!(
            talk.text(),
            r#"{"user":{"ssn":"[redacted]"}}"#,
            "{fields:?}"
        );
    }
}

#[test]
fn by_looks_alone_what_is_not_the_json_that_it_says_is_masked_as_text() {
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    let body = b"<p>4111111111111111</p>";
    let length = body.len().to_string();
    talk.respond(id, &[JSON, ("content-length", length.as_str())], &[body]);
    assert_eq!(talk.text(), "<p>[redacted]</p>");
}

#[test]
fn a_number_that_is_hidden_leaves_json_behind() {
    let mut talk = Talk::new(MASKS);
    let id = talk.get("/");
    talk.respond(id, &[JSON], &[br#"{"card": 4111111111111111, "n": 1}"#]);
    let read: Value = serde_json::from_slice(&talk.down).unwrap();
    assert_eq!(
        (&read["card"], &read["n"]),
        (&"[redacted]".into(), &1.into())
    );
}

#[test]
fn a_field_of_an_answer_is_hidden() {
    let mut talk = Talk::new(PLACES);
    let id = talk.get("/");
    talk.respond(id, &[("x-internal", "10.0.0.1"), ("x-own", "1")], &[b"ok"]);
    assert_eq!(talk.field("x-internal"), Some("[redacted]"));
    assert_eq!(talk.field("x-own"), Some("1"));
    assert!(!talk.all().contains("10.0.0.1"), "{}", talk.all());
}

#[test]
fn an_event_s_data_is_hidden_by_place_and_what_is_no_json_by_looks() {
    let mut talk = Talk::new(PLACES);
    let id = talk.get("/");
    talk.head(id, 200, &[("content-type", "text/event-stream")], false);
    talk.data(id, b"event: a\ndata: {\"user\":{\"ss");
    talk.data(id, b"n\":\"078-05-1120\"}}\n");
    assert_eq!(talk.text(), "");
    talk.data(
        id,
        b"\n: left alone\ndata: hello\n\ndata: see 4111111111111111\r\n\r\n",
    );
    assert_eq!(
        talk.text(),
        "event: a\ndata: {\"user\":{\"ssn\":\"[redacted]\"}}\n\n: left alone\ndata: hello\n\ndata: see [redacted]\n\n"
    );
    talk.finish(id);
    assert!(talk.down_ended);
}

#[test]
fn events_are_the_same_however_they_are_cut() {
    let events =
        "id: 1\ndata: {\"iban\": \"x\",\ndata:  \"y\": 1}\n\ndata\n\nretry: 5\r\n\r\ndata: end";
    let run = |size: usize| {
        let mut talk = Talk::new(PLACES);
        let id = talk.get("/");
        let pieces: Vec<&[u8]> = events.as_bytes().chunks(size).collect();
        talk.respond(id, &[("content-type", "text/event-stream")], &pieces);
        talk.text()
    };
    let whole = run(usize::MAX);
    assert!(whole.contains("[redacted]"), "{whole}");
    for size in 1..20 {
        assert_eq!(run(size), whole, "by {size}");
    }
}

#[test]
fn what_goes_out_is_hidden_whether_it_is_whole_or_still_comes() {
    let body = br#"{"secret":"x","card":"4111111111111111"}"#;
    let mut talk = Talk::new(REQUESTS);
    talk.post("/", &[JSON], &[body]);
    let hidden = r#"{"secret":"[redacted]","card":"[redacted]"}"#;
    assert_eq!(String::from_utf8_lossy(&talk.up), hidden);
    assert_eq!(
        talk.sent_field("content-length"),
        Some(&*hidden.len().to_string())
    );
    let mut talk = Talk::new(REQUESTS);
    let id = talk.begin(request("PUT", "/", &[JSON]), false);
    for byte in body {
        let data = Bytes::copy_from_slice(&[*byte]);
        talk.call(|session, now, out| session.request_data(now, id, data, out));
    }
    talk.call(|session, now, out| session.request_end(now, id, None, out));
    assert_eq!(String::from_utf8_lossy(&talk.up), hidden);
    assert!(talk.up_ended);
    assert!(!talk.all().contains("4111"), "{}", talk.all());
}

#[test]
fn a_rule_that_looks_at_a_body_is_asked_when_the_body_is_whole() {
    let rules = "
version: 1
rules:
  - name: no-removal
    match: { http: { mcp: { method: tools/call, tool: rm } } }
    verdict: block
    message: No.
";
    let call = |tool: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
    };
    let mut talk = Talk::new(rules);
    talk.post("/mcp", &[JSON], &[call("rm").as_bytes()]);
    assert!(talk.sent.is_none());
    assert_eq!(talk.json()["error"]["data"]["rule"], "no-removal");
    let mut talk = Talk::new(rules);
    let text = call("ls");
    let (a, b) = text.split_at(20);
    talk.post("/mcp", &[JSON], &[a.as_bytes(), b.as_bytes()]);
    assert_eq!(talk.up, text.as_bytes());
    // Nothing can be said of a body that is too long, and so it does not pass.
    let mut talk = Talk::new(rules);
    let long = vec![b' '; 3000];
    talk.post("/mcp", &[JSON], &[&long, &long, call("rm").as_bytes()]);
    assert!(talk.sent.is_none());
    assert_eq!(talk.status(), 403);
}

#[test]
fn a_rule_that_looks_at_an_answer_s_head_refuses_the_answer() {
    let rules = "
version: 1
rules:
  - name: no-teapots
    match: { http: { status: 418 } }
    verdict: block
    message: Not that one.
";
    let mut talk = Talk::new(rules);
    let id = talk.get("/");
    talk.head(id, 418, &[], false);
    assert_eq!(talk.status(), 403);
    assert!(talk.dropped);
    assert_eq!(talk.json()["rule"], "no-teapots");
    let mut talk = Talk::new(rules);
    let id = talk.get("/");
    talk.respond(id, &[], &[b"ok"]);
    assert_eq!(talk.status(), 200);
}

#[test]
fn a_host_that_does_not_belong_passes_only_where_a_rule_allows_it() {
    let mut talk = Talk::new(NOTHING);
    let head = request("GET", "/", &[]);
    talk.call(|session, now, out| session.begin(now, head, true, true, out));
    assert_eq!(talk.status(), 421);
    assert!(talk.sent.is_none());
    let allows = "
version: 1
rules:
  - name: fronted
    match: { http: { host_mismatch: true } }
    verdict: allow
";
    let mut talk = Talk::new(allows);
    let head = request("GET", "/", &[]);
    talk.call(|session, now, out| session.begin(now, head, true, true, out));
    assert!(talk.sent.is_some());
}
