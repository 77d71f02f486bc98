//! What is let pass, passes as it is.

use super::*;

#[test]
fn a_request_goes_on_with_its_own_fields_and_without_those_of_one_hop() {
    let mut talk = Talk::new(NOTHING);
    let fields = [
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("te", "trailers, gzip"),
        ("x-own", "2"),
        ("x-injected", "mine"),
        ("range", "bytes=0-10"),
        ("accept-encoding", "dcb"),
    ];
    talk.begin(request("GET", "/a/b?c=d", &fields), true);
    assert_eq!(
        talk.sent.as_ref().unwrap().uri,
        "https://api.example/a/b?c=d"
    );
    assert_eq!(talk.sent_field("host"), Some("api.example"));
    for gone in ["connection", "x-hop", "keep-alive", "upgrade", "x-injected"] {
        assert_eq!(talk.sent_field(gone), None, "{gone}");
    }
    assert_eq!(talk.sent_field("te"), Some("trailers"));
    assert_eq!(talk.sent_field("x-own"), Some("2"));
    assert!(talk.up_ended);
}

#[test]
fn host_cannot_be_taken_off_by_naming_it_as_a_field_of_one_hop() {
    let mut talk = Talk::new(NOTHING);
    let fields = [
        ("connection", "host, content-length"),
        ("content-length", "2"),
    ];
    talk.post("/", &fields, &[b"ok"]);
    assert_eq!(talk.sent_field("host"), Some("api.example"));
    assert_eq!(talk.sent_field("content-length"), Some("2"));
}

#[test]
fn without_masks_a_body_passes_as_the_very_bytes_and_its_fields_stay() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.begin(
        request(
            "GET",
            "/",
            &[("range", "bytes=0-9"), ("accept-encoding", "gzip")],
        ),
        true,
    );
    assert_eq!(talk.sent_field("range"), Some("bytes=0-9"));
    let fields = [
        ("etag", "\"x\""),
        ("content-encoding", "gzip"),
        ("content-length", "5"),
    ];
    talk.respond(id, &fields, &[b"\x1f\x8b", b"abc"]);
    assert_eq!(talk.down, b"\x1f\x8babc");
    for (name, value) in fields {
        assert_eq!(talk.field(name), Some(value), "{name}");
    }
    assert!(talk.down_ended);
}

#[test]
fn a_body_is_forwarded_in_one_piece_with_what_was_kept_of_it() {
    let mut talk = Talk::new(NOTHING);
    talk.post("/", &[], &[b"one ", b"two ", b"three"]);
    assert_eq!(talk.up, b"one two three");
    assert!(talk.up_ended);
}

#[test]
fn a_body_that_is_longer_than_is_looked_at_passes_all_the_same_where_no_rule_asks() {
    let mut talk = Talk::new(NOTHING);
    let long = vec![b'x'; 3000];
    talk.post("/", &[], &[&long, &long, &long]);
    assert_eq!(talk.up.len(), 9000);
    assert!(talk.up_ended);
}

#[test]
fn exchanges_of_one_session_do_not_disturb_each_other() {
    let mut talk = Talk::new(NOTHING);
    let one = talk.get("/1");
    talk.sent = None;
    let two = talk.get("/2");
    talk.respond(two, &[], &[b"two"]);
    assert_eq!(talk.text(), "two");
    (talk.answer, talk.down_ended) = (None, false);
    talk.down.clear();
    talk.respond(one, &[], &[b"one"]);
    assert_eq!(talk.text(), "one");
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn a_request_that_names_no_host_is_refused() {
    let mut talk = Talk::new(NOTHING);
    let (head, ()) = Request::builder().uri("/").body(()).unwrap().into_parts();
    talk.begin(head, true);
    assert_eq!(talk.status(), 400);
    assert!(talk.sent.is_none());
}

#[test]
fn a_tunnel_is_refused_unless_bytes_may_pass_unread() {
    let connect = || {
        let builder = Request::builder().method("CONNECT").uri("a.example:443");
        builder.body(()).unwrap().into_parts().0
    };
    let mut talk = Talk::new(NOTHING);
    talk.begin(connect(), true);
    assert_eq!(talk.status(), 403);
    assert!(talk.sent.is_none());
    let mut talk = Talk::with(NOTHING, true);
    let id = talk.begin(connect(), true);
    talk.head(id, 200, &[], true);
    assert_eq!(talk.tunnel, Some(false));
}

#[test]
fn a_change_of_protocol_that_nobody_asked_for_is_refused() {
    let mut talk = Talk::with(NOTHING, true);
    let id = talk.begin(
        request("GET", "/", &[("connection", "upgrade"), ("upgrade", "x")]),
        true,
    );
    assert_eq!(talk.sent_field("upgrade"), None);
    talk.head(id, 101, &[("upgrade", "x")], true);
    assert_eq!(talk.status(), 503);
    assert!(talk.dropped && talk.tunnel.is_none());
}

#[test]
fn what_the_service_fails_at_is_told_in_words() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.get("/");
    let failure = crate::http::Failure::Untrusted("its certificate is of yesterday".into());
    talk.call(|session, now, out| session.upstream_failed(now, id, failure, out));
    assert_eq!(talk.status(), 502);
    let body = talk.json();
    assert!(
        body["detail"].as_str().unwrap().contains("of yesterday"),
        "{body}"
    );
}

#[test]
fn an_answer_that_breaks_off_is_broken_off_for_the_agent_too() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.get("/");
    talk.head(id, 200, &[], false);
    talk.data(id, b"half");
    let failure = crate::http::Failure::Broken("it closed".into());
    talk.call(|session, now, out| session.upstream_failed(now, id, failure, out));
    assert!(talk.broken && !talk.down_ended);
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn a_request_for_the_server_itself_keeps_its_star() {
    let mut talk = Talk::new(NOTHING);
    talk.begin(request("OPTIONS", "*", &[("host", "api.example")]), true);
    let sent = talk.sent.as_ref().unwrap();
    assert_eq!(sent.uri.path_and_query().unwrap(), "*");
    assert_eq!(sent.uri.authority().unwrap(), "api.example");
}

#[test]
fn an_answer_may_come_before_the_request_is_whole() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.begin(request("PUT", "/", &[]), false);
    talk.call(|session, now, out| session.request_data(now, id, Bytes::from_static(b"a"), out));
    talk.respond(id, &[], &[b"early"]);
    assert_eq!(talk.text(), "early");
    talk.call(|session, now, out| session.request_data(now, id, Bytes::from_static(b"b"), out));
    talk.call(|session, now, out| session.request_end(now, id, None, out));
    assert_eq!(talk.up, b"ab");
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn a_wait_for_permission_to_send_is_over_here() {
    let mut talk = Talk::new(NOTHING);
    talk.post("/", &[("expect", "100-continue")], &[b"body"]);
    assert_eq!(talk.sent_field("expect"), None);
    assert_eq!(talk.up, b"body");
}
