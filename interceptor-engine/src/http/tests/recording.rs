//! What goes on record, and what never does.

use super::*;

#[test]
fn an_exchange_is_a_command_its_input_and_its_result_with_the_body() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.post("/a/./b?c=d&token=hush", &[("x-y", "z")], &[b"sent"]);
    talk.respond(id, &[("content-type", "text/plain")], &[b"got"]);
    talk.close();
    let kinds: Vec<&str> = talk.events.iter().map(|event| event.kind.name()).collect();
    assert_eq!(kinds, ["command", "input", "result", "close"]);
    let command = talk.of(Kind::Command)[0];
    assert_eq!(command.line, "POST https://api.example/a/./b");
    let meta = talk.meta(Kind::Command);
    assert_eq!(
        (&meta["method"], &meta["path"]),
        (&"POST".into(), &"/a/b".into())
    );
    assert_eq!(
        meta["query"],
        serde_json::json!([["c", "d"], ["token", "[credential]"]])
    );
    assert_eq!(meta["verdict"], "allow");
    assert_eq!(talk.of(Kind::Input)[0].data, b"sent");
    assert_eq!(talk.recorded(), "got");
    let result = talk.meta(Kind::Result);
    assert_eq!(
        (&result["status"], &result["bytes"]),
        (&200.into(), &3.into())
    );
    assert_eq!(result["first_byte_us"], 3000);
    assert_eq!(result["duration_us"], 5000);
    assert!(
        talk.events
            .iter()
            .enumerate()
            .all(|(at, event)| event.seq == at as u64)
    );
}

#[test]
fn nothing_that_lets_one_in_is_ever_on_record() {
    let mut talk = Talk::new(NOTHING);
    let fields = [
        ("authorization", "Bearer hush1"),
        ("proxy-authorization", "Basic hush2"),
        ("cookie", "sid=hush3"),
        ("x-api-key", "hush4"),
        ("x-amz-security-token", "hush5"),
        ("x-injected", "hush6"),
    ];
    let uri = "/?access_token=hush7&X-Amz-Signature=hush8&key=hush9";
    let id = talk.begin(request("GET", uri, &fields), true);
    talk.respond(id, &[("set-cookie", "sid=hush0")], &[b"ok"]);
    talk.close();
    assert!(!talk.all().contains("hush"), "{}", talk.all());
    assert!(talk.all().contains("[credential]"));
}

#[test]
fn a_masked_value_is_not_on_record_of_the_request_either() {
    let mut talk = Talk::new(MASKS);
    let card = "4111111111111111";
    let id = talk.post(
        &format!("/cards/{card}?card={card}"),
        &[("x-card", card)],
        &[card.as_bytes()],
    );
    assert_eq!(talk.up, card.as_bytes());
    talk.respond(id, &[], &[b"ok"]);
    assert!(!talk.all().contains(card), "{}", talk.all());
}

#[test]
fn a_long_body_is_recorded_in_parts_without_a_gap() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.get("/");
    let body: Vec<u8> = (0..9000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let pieces: Vec<&[u8]> = body.chunks(700).collect();
    talk.respond(id, &[], &pieces);
    assert_eq!(talk.of(Kind::Output).len(), 4);
    assert_eq!(talk.recorded().as_bytes(), body);
    assert_eq!(talk.meta(Kind::Result)["parts"], 5);
}

#[test]
fn a_call_of_a_model_is_an_event_of_its_own() {
    let mut talk = Talk::new(NOTHING);
    let call =
        br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"name":"sh"}]}"#;
    talk.post(
        "/v1/messages",
        &[("content-type", "application/json")],
        &[call],
    );
    let meta = talk.meta(Kind::Note);
    assert_eq!(meta["model_call"]["model"], "m");
    assert_eq!(meta["model_call"]["messages"][0]["text"], "hi");
    assert_eq!(meta["model_call"]["tools"][0], "sh");
}

#[test]
fn an_exchange_that_is_cut_short_says_so() {
    let mut talk = Talk::new(NOTHING);
    let id = talk.get("/");
    talk.head(id, 200, &[], false);
    talk.data(id, b"half");
    talk.close();
    assert_eq!(talk.recorded(), "half");
    assert_eq!(talk.meta(Kind::Result)["failed"], true);
    assert_eq!(talk.meta(Kind::Close)["exchanges"], 1);
}

#[test]
fn a_request_that_is_given_up_before_it_was_judged_leaves_a_trace() {
    let mut talk = Talk::new(NOTHING);
    let fields = [
        ("content-type", "application/json"),
        ("content-length", "9"),
    ];
    let id = talk.begin(request("POST", "/", &fields), false);
    talk.call(|session, now, out| session.agent_left(now, id, out));
    assert!(talk.sent.is_none() && !talk.dropped);
    let note = &talk.of(Kind::Note)[0].line;
    assert!(note.contains("POST to api.example"), "{note}");
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn what_a_call_of_grpc_came_to_is_on_record_with_its_trailers() {
    let mut talk = Talk::new(NOTHING);
    let grpc = [("content-type", "application/grpc")];
    let id = talk.post("/pkg.Service/Call", &grpc, &[&[0, 0, 0, 0, 1, 7]]);
    assert_eq!(talk.meta(Kind::Command)["grpc"]["method"], "Call");
    talk.head(id, 200, &grpc, false);
    talk.data(id, &[0, 0, 0, 0, 2, 8]);
    talk.data(id, &[9, 0, 0, 0, 0, 0]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "5".parse().unwrap());
    talk.call(|session, now, out| session.response_end(now, id, Some(trailers), out));
    assert_eq!(talk.trailers.as_ref().unwrap()["grpc-status"], "5");
    let meta = talk.meta(Kind::Result);
    assert_eq!(meta["grpc_messages"], 2);
    assert_eq!(meta["trailers"], serde_json::json!([["grpc-status", "5"]]));
}

#[test]
fn what_a_model_answers_is_a_note_of_its_own_after_masking() {
    let mut talk = Talk::new(MASKS);
    let json = [("content-type", "application/json")];
    let asked = br#"{"model":"m","messages":[{"role":"user","content":"pay"}]}"#;
    let id = talk.post("/v1/chat/completions", &json, &[asked]);
    let answer = br#"{"model":"m","choices":[{"message":{"content":"I pay","tool_calls":[
        {"function":{"name":"pay","arguments":"{\"card\":\"4111 1111 1111 1111\"}"}}]}}]}"#;
    talk.respond(id, &json, &[&answer[..50], &answer[50..]]);
    let meta = talk.meta(Kind::Note);
    assert_eq!(meta["model_answer"]["text"], "I pay");
    let call = &meta["model_answer"]["tool_calls"][0];
    assert_eq!(call["name"], "pay");
    assert_eq!(call["arguments"], r#"{"card":"[redacted]"}"#);
    assert!(!talk.all().contains("4111"));
    // In events, under the same rules.
    let id = talk.post_again("/v1/chat/completions", &json, asked);
    let events = [("content-type", "text/event-stream")];
    talk.respond(
        id,
        &events,
        &[
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n",
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"}}]}\n\ndata: [DONE]\n\n",
        ],
    );
    assert_eq!(talk.meta(Kind::Note)["model_answer"]["text"], "Hello");
}

#[test]
fn trailers_of_a_request_are_masked_recorded_and_say_nothing_of_the_message() {
    let rules = "
version: 1
rules:
  - name: no-note
    match: { protocol: http }
    mask: [{ header: [x-note], with: redact, direction: request }]
";
    let mut talk = Talk::new(rules);
    let head = request("POST", "/x", &[("transfer-encoding", "chunked")]);
    let id = talk.begin(head, false);
    let data = Bytes::from_static(b"body");
    talk.call(|session, now, out| session.request_data(now, id, data, out));
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("x-note", "secret"),
        ("x-sum", "1"),
        ("authorization", "Bearer of-the-agent"),
        ("x-injected", "mine"),
        ("content-length", "7"),
    ] {
        trailers.insert(name, value.parse().unwrap());
    }
    talk.call(|session, now, out| session.request_end(now, id, Some(trailers), out));
    let sent = talk.up_trailers.as_ref().unwrap();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(sent["x-note"], "[redacted]");
    assert_eq!(sent["x-sum"], "1");
    assert_eq!(
        talk.meta(Kind::Input)["trailers"].as_array().unwrap().len(),
        2
    );
    assert!(!talk.all().contains("of-the-agent"));
}
