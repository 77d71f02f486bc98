//! HTTP: what its fields match, when rules are asked, what has to be read.

use interceptor_policy::operation::http::{
    GraphQlOperation, HttpBody, HttpRequest, HttpResponse, Json, WebSocketMessage,
};
use interceptor_policy::operation::sample::Sample;
use interceptor_policy::{HttpNeeds, HttpOperation};

use super::*;

/// `POST https://api.example.com/v1/users`, with a body of JSON if there is one.
fn sample(line: &str, headers: &[(&str, &str)], body: Option<&str>) -> Sample {
    let (method, url) = line.split_once(' ').unwrap();
    let mut sample = Sample {
        method: method.to_owned(),
        body: body.map(str::to_owned),
        ..Sample::default()
    };
    assert!(sample.set_url(url), "{url}");
    for (name, value) in headers {
        sample.headers.push((name.to_string(), value.to_string()));
    }
    sample
}

fn get(path: &str) -> HttpRequest {
    sample(&format!("GET https://api.example.com{path}"), &[], None).request()
}

fn with(headers: &[(&str, &str)]) -> HttpRequest {
    sample("GET https://api.example.com/", headers, None).request()
}

fn post(body: &str) -> HttpRequest {
    sample("POST https://api.example.com/", &[], Some(body)).request()
}

fn web(default: DefaultVerdict) -> Subject {
    let mut subject = subject();
    subject.protocol = Protocol::Http;
    subject.target.default = default;
    subject
}

fn ask(scope: &Scope, request: &HttpRequest) -> Judgement {
    scope.decide(&Operation::Http(HttpOperation {
        request,
        response: None,
        message: None,
    }))
}

fn answer(scope: &Scope, request: &HttpRequest, response: &HttpResponse) -> Judgement {
    scope.decide(&Operation::Http(HttpOperation {
        request,
        response: Some(response),
        message: None,
    }))
}

fn blocks(http: &str, request: &HttpRequest) -> bool {
    let rules = rule(&format!("match: {{ http: {http} }}, verdict: block"));
    word(&ask(&rules.scope(&web(DefaultVerdict::Allow)), request)) == "block"
}

fn allows(http: &str, request: &HttpRequest) -> bool {
    let rules = rule(&format!("match: {{ http: {http} }}, verdict: allow"));
    word(&ask(&rules.scope(&web(DefaultVerdict::Block)), request)) == "allow"
}

/// What holds for certain, either way.
fn holds(http: &str, request: &HttpRequest) -> bool {
    let blocks = blocks(http, request);
    assert_eq!(blocks, allows(http, request), "uncertain: {http}");
    blocks
}

fn response(status: u16, headers: &[(&str, &str)]) -> HttpResponse {
    HttpResponse {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| (Arc::from(*name), Arc::from(*value)))
            .collect(),
        ..HttpResponse::default()
    }
}

fn unread(mut request: HttpRequest) -> HttpRequest {
    request.body = HttpBody::Unread;
    request.size = None;
    request.mcp.clear();
    request
}

#[test]
fn every_field_of_a_request_matches_what_it_says_and_nothing_else() {
    let post = |headers: &[(&str, &str)], body| {
        sample(
            "POST https://api.example.com/v1/users?page=2&tag=a&tag=b",
            headers,
            body,
        )
        .request()
    };
    let plain = post(&[("Accept", "text/html"), ("X-Team", "core")], None);
    let json = post(
        &[("Content-Type", "Application/JSON; charset=utf-8")],
        Some(r#"{"customer":{"id":42,"tags":["x","y"],"vip":true,"note":null},"amount":"12.50"}"#),
    );
    for (yes, no, request) in [
        ("{ method: POST }", "{ method: GET }", &plain),
        (
            "{ method: [GET, POST] }",
            "{ method: { not: POST } }",
            &plain,
        ),
        ("{ host: api.example.com }", "{ host: example.com }", &plain),
        (
            "{ host: '*.Example.com' }",
            "{ host: { not: '*.example.com' } }",
            &plain,
        ),
        ("{ path: /v1/users }", "{ path: /v1 }", &plain),
        ("{ path: '/v1/*' }", "{ path: '/*' }", &plain),
        ("{ path: '/**' }", "{ path: '/v2/**' }", &plain),
        (
            "{ path: { regex: '^/v[0-9]/' } }",
            "{ path: { regex: '^/users' } }",
            &plain,
        ),
        ("{ query.page: '2' }", "{ query.page: '3' }", &plain),
        (
            "{ query: { page: { regex: '^[0-9]$' } } }",
            "{ query.sort: '*' }",
            &plain,
        ),
        (
            "{ header.x-team: core }",
            "{ header.x-team: other }",
            &plain,
        ),
        (
            "{ header: { X-TEAM: 'c*', accept: text/html } }",
            "{ header: { X-TEAM: core, accept: '*json' } }",
            &plain,
        ),
        (
            "{ header.x-none: { not: 'yes' } }",
            "{ header.x-none: '*' }",
            &plain,
        ),
        (
            "{ content_type: application/json }",
            "{ content_type: text/plain }",
            &json,
        ),
        ("{ size: { over: 70 } }", "{ size: { over: 1000 } }", &json),
        ("{ websocket: false }", "{ websocket: true }", &plain),
        (
            "{ host_mismatch: false }",
            "{ host_mismatch: true }",
            &plain,
        ),
        (
            "{ body: { /customer/id: 42 } }",
            "{ body: { /customer/id: 43 } }",
            &json,
        ),
        (
            "{ body: { /customer/id: { over: 41 } } }",
            "{ body: { /customer/id: { over: 42 } } }",
            &json,
        ),
        (
            "{ body: { /customer/id: '4*' } }",
            "{ body: { /customer/id: '5*' } }",
            &json,
        ),
        (
            "{ body: { /customer/vip: true } }",
            "{ body: { /customer/vip: false } }",
            &json,
        ),
        (
            "{ body: { /customer/note: null } }",
            "{ body: { /customer/id: null } }",
            &json,
        ),
        (
            "{ body: { '/**/amount': '12*' } }",
            "{ body: { /customer/amount: '*' } }",
            &json,
        ),
        (
            "{ body: { /amount: '*', /customer: '*' } }",
            "{ body: { /amount: '*', /missing: '*' } }",
            &json,
        ),
        (
            "{ body: { /missing: { not: x } } }",
            "{ body: { /customer/tags/2: '*' } }",
            &json,
        ),
        (
            "{ body: { '/customer/tags/*': [x, y] } }",
            "{ body: { '/customer/tags/*': z } }",
            &json,
        ),
        (
            "{ body: { /x: { not: a } } }",
            "{ body: { /x: '*' } }",
            &plain,
        ),
    ] {
        assert!(holds(yes, request), "{yes}");
        assert!(!holds(no, request), "{no}");
    }
}

#[test]
fn a_path_is_matched_in_every_way_that_a_server_may_read_it() {
    for hidden in [
        "/admin/x",
        "//admin/x",
        "/a/../admin/x",
        "/a/%2e%2e/admin/x",
        "/%61dmin/x",
        "/%2561dmin/x",
        "/admin;v=1/x",
        "/a/..;/admin/x",
        "/admin%2fx",
        "/\\admin\\x",
        "/ADMIN/x",
        "/admin%00/x",
        "/admin",
        "/admin/",
    ] {
        assert!(blocks("{ path: '/admin/**' }", &get(hidden)), "{hidden}");
    }
    assert!(!blocks("{ path: '/admin/**' }", &get("/administrators")));
    for unsure in [
        "/public/../admin",
        "/public/..%2fadmin",
        "/public/%252e%252e/admin",
        "/PUBLIC/x",
    ] {
        assert!(!allows("{ path: '/public/**' }", &get(unsure)), "{unsure}");
    }
    for sure in ["/public/x", "/public/%61", "/public/a%20b", "/public/a.b"] {
        assert!(allows("{ path: '/public/**' }", &get(sure)), "{sure}");
    }
}

#[test]
fn a_header_or_a_name_of_the_query_that_is_there_twice_counts_in_every_reading() {
    let twice = with(&[("x-role", "user"), ("X-Role", "admin")]);
    assert!(blocks("{ header.x-role: admin }", &twice));
    assert!(blocks("{ header.x-role: user }", &twice));
    assert!(blocks("{ header.x-role: 'user, admin' }", &twice));
    assert!(!allows("{ header.x-role: user }", &twice));
    assert!(allows("{ header.x-role: ['user*', admin] }", &twice));
    let twice = get("/?role=user&role=admin&Role=other&a[]=x");
    assert!(blocks("{ query.role: admin }", &twice));
    assert!(!allows("{ query.role: user }", &twice));
    assert!(blocks("{ query.role: other }", &twice));
    assert!(blocks("{ query.a: x }", &twice) && !allows("{ query.a: x }", &twice));
}

#[test]
fn a_key_that_is_there_twice_counts_in_every_reading() {
    let twice = post(r#"{"role":"user","role":"admin"}"#);
    assert!(blocks("{ body: { /role: admin } }", &twice));
    assert!(blocks("{ body: { /role: user } }", &twice));
    assert!(!allows("{ body: { /role: user } }", &twice));
    assert!(allows("{ body: { /role: [user, admin] } }", &twice));
    let other_case = post(r#"{"Role":"admin"}"#);
    assert!(blocks("{ body: { /role: admin } }", &other_case));
    assert!(!allows("{ body: { /role: admin } }", &other_case));
}

#[test]
fn every_line_of_ndjson_counts_and_pointers_are_asked_of_one_document() {
    let lines = post("{\"op\":\"read\"}\n{\"op\":\"drop\"}\n{\"id\":1}");
    assert!(blocks("{ body: { /op: drop } }", &lines));
    assert!(!allows("{ body: { /op: [read, drop] } }", &lines));
    assert!(!blocks("{ body: { /op: drop, /id: 1 } }", &lines));
}

#[test]
fn a_form_is_matched_like_an_object_of_texts() {
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let form = sample(
        "POST https://h/",
        &kind,
        Some("role=admin&n=5&ok=true&user[role]=x"),
    );
    let form = form.request();
    assert!(holds("{ body: { /role: admin } }", &form));
    assert!(holds("{ body: { /n: { over: 4 } } }", &form));
    assert!(holds("{ body: { /ok: true } }", &form));
    assert!(blocks("{ body: { /user/role: x } }", &form));
    assert!(!allows("{ body: { /user/role: x } }", &form));
}

#[test]
fn a_method_that_a_header_overrides_is_both() {
    let tunnelled = sample(
        "POST https://h/",
        &[("X-HTTP-Method-Override", "DELETE")],
        None,
    );
    let tunnelled = tunnelled.request();
    assert!(blocks("{ method: DELETE }", &tunnelled));
    assert!(blocks("{ method: POST }", &tunnelled));
    assert!(!allows("{ method: POST }", &tunnelled));
    assert!(blocks("{ method: DELETE }", &get("/?_method=delete")));
}

#[test]
fn a_body_that_cannot_be_read_blocks_where_a_rule_asks_for_it() {
    let mut bad = post("{}");
    bad.body = HttpBody::Unreadable("it is no JSON");
    for effect in ["verdict: block", "verdict: allow", "risk: 1"] {
        let rules = rule(&format!(
            "match: {{ http: {{ body: {{ /a: x }} }} }}, {effect}"
        ));
        let judged = ask(&rules.scope(&web(DefaultVerdict::Allow)), &bad);
        assert_eq!(verdict(&judged), ("block", Some("r")), "{effect}");
        let Verdict::Block(refusal) = &judged.verdict else {
            panic!();
        };
        assert!(
            refusal
                .message
                .contains("could not be evaluated: it is no JSON")
        );
    }
    // Where the rest of a rule keeps it from applying, nobody asks.
    assert!(!blocks("{ method: GET, body: { /a: x } }", &bad));
    let excepted = rule(
        "match: { http: { path: '/**' } }, unless: { http: { body: { /a: x } } }, verdict: block",
    );
    assert_eq!(
        word(&ask(&excepted.scope(&web(DefaultVerdict::Allow)), &bad)),
        "block"
    );
    let both = rule(
        "match: { http: { body: { /a: x } } }, unless: { http: { body: { /b: y } } }, verdict: block",
    );
    assert_eq!(
        word(&ask(&both.scope(&web(DefaultVerdict::Allow)), &bad)),
        "block"
    );
    let spared = rule(
        "match: { http: { body: { /a: x } } }, unless: { http: { method: POST } }, verdict: block",
    );
    assert_eq!(
        word(&ask(&spared.scope(&web(DefaultVerdict::Allow)), &bad)),
        "allow"
    );
    // And mail is no JSON, for certain.
    let mut bytes = post("{}");
    bytes.body = HttpBody::Bytes(b"hello".as_slice().into());
    assert!(!blocks("{ body: { /a: x } }", &bytes));
    assert!(!allows("{ body: { /a: { not: x } } }", &bytes));
}

#[test]
fn a_body_is_read_only_for_rules_that_could_apply() {
    let rules = rules(
        "rules:
  - { name: pass, match: { http: { host: '*' } }, verdict: allow }
  - { name: deep, match: { http: { method: POST, path: '/v1/**', body: { /admin: true } } }, verdict: block }
  - { name: tools, match: { http: { host: mcp.internal, mcp: { tool: shell } } }, verdict: block }
  - { name: big, match: { http: { path: /up, size: { over: 10 } } }, verdict: block }
  - { name: errors, match: { http: { path: '/v2/**', status: 5xx } }, risk: 5 }
  - { name: hide, match: { http: { path: '/v3/**' } }, mask: [{ json: /email, with: hash }] }
  - { name: chat, match: { http: { path: /ws, body: { /op: drop } } }, verdict: block }
",
    );
    let scope = rules.scope(&web(DefaultVerdict::Block));
    let needs = |line: &str| {
        let request = unread(sample(line, &[], Some("{}")).request());
        scope.http_needs(&request)
    };
    let nothing = HttpNeeds::default();
    let body = HttpNeeds {
        request_body: true,
        ..nothing
    };
    assert_eq!(needs("POST https://h/v1/x"), body);
    assert_eq!(needs("POST https://h//v1/x"), body);
    assert_eq!(needs("GET https://h/v1/x"), nothing);
    assert_eq!(needs("POST https://h/other"), nothing);
    assert_eq!(needs("POST https://mcp.internal/other"), body);
    assert_eq!(needs("POST https://h/up"), body);
    let head = needs("POST https://h/v2/x");
    assert!(head.response_head && !head.request_body && !head.response_body);
    let masked = needs("GET https://h/v3/x");
    assert!(masked.response_body && !masked.response_head);
    // A size that is told needs no reading, nor does a body that is not there.
    let mut sized = unread(sample("POST https://h/up", &[], None).request());
    sized.size = Some(5);
    assert_eq!(scope.http_needs(&sized), nothing);
    let bare = sample("POST https://h/v1/x", &[], None).request();
    assert_eq!(scope.http_needs(&bare), nothing);
    let upgrade = [("upgrade", "websocket")];
    let socket = sample("GET https://h/ws", &upgrade, None).request();
    assert!(scope.http_needs(&socket).messages);
    let socket = sample("GET https://h/other", &upgrade, None).request();
    assert!(!scope.http_needs(&socket).messages);
}

#[test]
fn what_needs_no_body_is_refused_before_it_is_read_and_nothing_is_counted() {
    let rules = rules(
        "rules:
  - { name: pass, match: { http: { method: POST, body: { /ok: true } } }, verdict: allow }
  - { name: no, match: { http: { path: /no } }, verdict: block, risk: 50 }
  - { name: deep, match: { http: { path: /deep, body: { /x: y } } }, verdict: block }
  - { name: sized, match: { http: { path: /sized }, if: 'http.size > 10' }, verdict: block }
",
    );
    let memory = Memory::default();
    let subject = web(DefaultVerdict::Block);
    let scope = rules.scope(&subject);
    let standing = memory.standing(&subject.principal, at(0));
    let early = |line: &str| {
        let request = unread(sample(line, &[], Some("{}")).request());
        scope.refuses_early(&request, &standing, at(1))
    };
    assert!(early("POST https://h/no"));
    assert!(!early("POST https://h/deep"));
    assert!(!early("POST https://h/sized"));
    assert!(!early("POST https://h/other"));
    // No rule could let it pass, whatever it says.
    assert!(early("GET https://h/other"));
    // Judged without what it asks for, it is refused.
    let request = unread(sample("POST https://h/deep", &[], Some("{}")).request());
    assert_eq!(verdict(&ask(&scope, &request)).0, "block");
    let request = sample("POST https://h/deep", &[], Some("{\"ok\":true}")).request();
    assert_eq!(verdict(&ask(&scope, &request)).0, "allow");
}

#[test]
fn rules_of_the_response_are_asked_when_it_is_there_and_the_others_are_not_asked_again() {
    let rules = rules(
        "rules:
  - { name: pass, match: { http: { method: GET } }, verdict: allow, risk: 3, tag: asked, record: commands }
  - { name: errors, match: { http: { method: GET, status: [5xx, 404] } }, risk: 7, tag: failed, record: full }
  - { name: secret, match: { http: { response_header.x-secret: '*' } }, verdict: kill }
  - { name: hide, match: { http: { status: 200 } }, mask: [{ json: /a, with: hash }] }
  - { name: seen, match: { http: {} , if: 'http.status == 418' }, verdict: block }
",
    );
    let scope = rules.scope(&web(DefaultVerdict::Block));
    let request = get("/");
    let asked = ask(&scope, &request);
    assert_eq!((word(&asked), asked.risk), ("allow", 3));
    assert!(asked.masks.is_none());
    let said =
        |status, headers: &[(&str, &str)]| answer(&scope, &request, &response(status, headers));
    let fine = said(200, &[]);
    assert_eq!((word(&fine), fine.risk, fine.tags.len()), ("allow", 0, 0));
    assert!(fine.masks.is_some());
    assert_eq!(fine.record.name(), "metadata");
    let failed = said(503, &[]);
    assert_eq!((failed.risk, &*failed.tags[0]), (7, "failed"));
    assert_eq!(failed.record.name(), "full");
    assert_eq!(said(404, &[]).risk, 7);
    assert_eq!(
        verdict(&said(200, &[("x-secret", "1")])),
        ("kill", Some("secret"))
    );
    assert_eq!(verdict(&said(418, &[])), ("block", Some("seen")));
}

#[test]
fn a_threshold_that_a_request_was_held_for_does_not_hold_its_response_again() {
    let rules = rules(
        "rules:
  - { name: pass, match: {}, verdict: allow }
  - { name: risky, match: { http: { path: /risky } }, risk: 60 }
  - { name: worse, match: { http: { status: 500 } }, risk: 60 }
risk: { thresholds: [{ at: 50, verdict: hold }, { at: 100, verdict: kill }] }
",
    );
    let memory = Memory::default();
    let subject = web(DefaultVerdict::Block);
    let scope = rules.scope(&subject);
    let mut standing = memory.standing(&subject.principal, at(0));
    let request = get("/risky");
    let mut judge = |response: Option<&HttpResponse>| {
        let operation = Operation::Http(HttpOperation {
            request: &request,
            response,
            message: None,
        });
        word(&scope.judge(&operation, &mut standing, at(1)))
    };
    assert_eq!(judge(None), "hold");
    assert_eq!(judge(Some(&response(200, &[]))), "allow");
    assert_eq!(judge(Some(&response(500, &[]))), "kill");
}

#[test]
fn messages_of_a_websocket_are_asked_what_asks_for_the_body_and_nothing_else() {
    let rules = rules(
        "rules:
  - { name: pass, match: { http: { websocket: true } }, verdict: allow, risk: 1 }
  - { name: ops, match: { http: { path: /ws, websocket: true, body: { /op: { not: ping } } } }, verdict: block }
",
    );
    let scope = rules.scope(&web(DefaultVerdict::Block));
    let request = sample("GET https://h/ws", &[("upgrade", "websocket")], None).request();
    let opened = ask(&scope, &request);
    assert_eq!((word(&opened), opened.risk), ("allow", 1));
    let says = |text: &str| {
        let body = match Json::parse(text.as_bytes()) {
            Some(json) => HttpBody::Json(vec![json]),
            None => HttpBody::Unreadable("too long"),
        };
        let message = WebSocketMessage {
            from_agent: true,
            body,
        };
        let judged = scope.decide(&Operation::Http(HttpOperation {
            request: &request,
            response: None,
            message: Some(&message),
        }));
        assert_eq!(judged.risk, 0);
        word(&judged)
    };
    assert_eq!(says(r#"{"op":"ping"}"#), "allow");
    assert_eq!(says(r#"{"op":"drop"}"#), "block");
    assert_eq!(says("{"), "block");
    // Who only asks for a WebSocket is rid of no rule of requests.
    assert!(blocks("{ body: { /op: { not: ping } } }", &request));
    // What has a body is a request, whatever it asks to become.
    let request = sample(
        "POST https://h/ws",
        &[("upgrade", "websocket")],
        Some("{\"op\":\"drop\"}"),
    );
    assert_eq!(
        verdict(&ask(&scope, &request.request())),
        ("block", Some("ops"))
    );
}

#[test]
fn a_grpc_call_is_matched_by_service_and_method() {
    let kind = [("content-type", "application/grpc")];
    let call = sample("POST https://h/bank.v1.Ledger/Transfer", &kind, None).request();
    assert!(holds(
        "{ grpc: { service: 'bank.*', method: Transfer } }",
        &call
    ));
    assert!(!holds("{ grpc: { service: other } }", &call));
    assert!(holds("{ grpc: {} }", &call));
    // What is no call is none that is not another one.
    assert!(!holds("{ grpc: { service: { not: other } } }", &get("/")));
}

#[test]
fn graphql_is_matched_by_operation_and_fields() {
    let operation = |kind: &str, name: Option<&str>, fields: &[&str]| GraphQlOperation {
        kind: kind.into(),
        name: name.map(Into::into),
        fields: fields.iter().map(|field| Arc::from(*field)).collect(),
    };
    let mut request = post("{}");
    request.graphql = vec![operation(
        "query",
        Some("mutation"),
        &["user", "user.email"],
    )];
    assert!(holds("{ graphql: { operation: query } }", &request));
    assert!(!holds("{ graphql: { operation: mutation } }", &request));
    assert!(blocks("{ graphql: { fields: user.email } }", &request));
    assert!(!allows("{ graphql: { fields: user } }", &request));
    assert!(allows(
        "{ graphql: { fields: ['user', 'user.*'] } }",
        &request
    ));
    request
        .graphql
        .push(operation("mutation", Some("drop"), &["dropUser"]));
    assert!(blocks(
        "{ graphql: { operation: mutation, fields: 'drop*' } }",
        &request
    ));
    assert!(!blocks(
        "{ graphql: { operation: query, fields: 'drop*' } }",
        &request
    ));
    assert!(!allows("{ graphql: { operation: query } }", &request));
    assert!(!holds(
        "{ graphql: { operation: { not: query } } }",
        &post("{}")
    ));
    // A name that the client chose to sound like something else.
    request.graphql = vec![operation("mutation", Some("query"), &["x"])];
    assert!(!allows("{ graphql: { operation: query } }", &request));
}

#[test]
fn mcp_is_matched_by_method_tool_and_arguments_of_one_message() {
    let call = |tool: &str, arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{tool},"arguments":{arguments}}}}}"#
        )
    };
    let shell = post(&call("\"shell\"", r#"{"command":"rm -rf /"}"#));
    assert!(holds(
        "{ mcp: { method: tools/call, tool: shell } }",
        &shell
    ));
    assert!(holds(
        "{ mcp: { arguments: { /command: 'rm *' } } }",
        &shell
    ));
    assert!(!holds("{ mcp: { tool: read } }", &shell));
    let batch = post(&format!(
        "[{},{}]",
        call("\"shell\"", r#"{"command":"ls"}"#),
        call("\"read\"", r#"{"command":"rm -rf /"}"#)
    ));
    assert!(blocks("{ mcp: { tool: shell } }", &batch));
    assert!(!allows("{ mcp: { tool: read } }", &batch));
    assert!(!blocks(
        "{ mcp: { tool: shell, arguments: { /command: 'rm *' } } }",
        &batch
    ));
    let twice = post(&call("\"read\",\"name\":\"shell\"", "{}"));
    assert!(
        blocks("{ mcp: { tool: shell } }", &twice) && !allows("{ mcp: { tool: read } }", &twice)
    );
    let list = post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert!(!blocks("{ mcp: { tool: { not: read } } }", &list));
    assert!(!blocks("{ mcp: {} }", &get("/")));
}

#[test]
fn expressions_ask_about_requests_too() {
    let request = sample(
        "POST https://api.example.com/v1/x?a=1&a=2",
        &[("X-Team", "core")],
        Some("{}"),
    );
    let request = request.request();
    for yes in [
        "http.method == 'POST' && http.host.endsWith('.example.com')",
        "http.path.startsWith('/v1/') && size(http.paths) == 1",
        "http.query.a == '1, 2' && http.header.x_none == ''",
        "http.header['x-team'] == 'core' && http.header['X-Team'] == 'core'",
        "http.size == 2 && !http.websocket && !('x' in http.mcp.tool)",
    ] {
        let rules = rule(&format!("match: {{ if: \"{yes}\" }}, verdict: block"));
        assert_eq!(
            word(&ask(&rules.scope(&web(DefaultVerdict::Allow)), &request)),
            "block",
            "{yes}"
        );
    }
    // Of a statement they hold for nothing.
    let rules = rule("match: { if: \"http.method != 'x'\" }, verdict: block");
    assert_eq!(word(&decide(&rules, &allowing(), select())), "allow");
}

#[test]
fn http_fields_concern_no_other_protocol_and_the_other_way_round() {
    let rules = rule("match: { http: {} }, verdict: block");
    assert_eq!(word(&decide(&rules, &allowing(), select())), "allow");
    let rules = rule("match: { postgres: {} }, verdict: block");
    assert_eq!(
        word(&ask(&rules.scope(&web(DefaultVerdict::Allow)), &get("/"))),
        "allow"
    );
    let rules = rule("match: { http: {} }, verdict: allow");
    assert!(
        !rules.scope(&subject()).can_allow()
            && rules.scope(&web(DefaultVerdict::Block)).can_allow()
    );
    let rules = rule("match: { http: { status: 200 } }, verdict: block");
    assert!(rules.scope(&web(DefaultVerdict::Allow)).can_allow());
}

#[test]
fn explanations_say_what_a_request_has() {
    let rules = rules(
        "rules:
  - { name: a, match: { http: { method: GET } }, verdict: allow }
  - { name: b, match: { http: { path: '/v1/**', header.x-a: '1' } }, verdict: block }
  - { name: c, match: { http: { status: 200 } }, risk: 1 }
  - { name: d, match: { http: { path: /a } }, verdict: allow }
  - { name: e, match: { postgres: { class: read } }, verdict: block }
",
    );
    let request = get("/b/../a");
    let operation = Operation::Http(HttpOperation {
        request: &request,
        response: None,
        message: None,
    });
    let explained = rules.scope(&web(DefaultVerdict::Block)).explain(&operation);
    for (explanation, (applied, part)) in explained.iter().zip([
        (true, "http.method is `GET`"),
        (false, "http.header.x-a is not there, not `1`"),
        (false, "it is asked when there is a response"),
        (
            false,
            "http.path is `/a` or `/b/../a`, which is not certainly, or not only, `/a`",
        ),
        (false, "it asks for `postgres` fields"),
    ]) {
        assert_eq!(explanation.applied, applied, "{explanation:?}");
        assert!(explanation.because.contains(part), "{explanation:?}");
    }
}
