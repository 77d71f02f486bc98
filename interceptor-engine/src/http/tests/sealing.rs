//! What masks change is there beside what is recorded, where it is to be sealed.

use prost::Message as _;

use super::grpc::{GRPC, ada, framed, shop};
use super::sockets::{open_in, say, text};
use super::*;
use crate::event::Sealed;
use crate::session::Side;

const CARD: &str = "4111 1111 1111 1111";
/// In what is recorded, in what the service gets, and by place.
const RULES: &str = "
version: 1
rules:
  - name: hidden
    match: { protocol: http }
    mask:
      - { detect: [credit_card], with: redact }
      - { detect: [email], with: redact, direction: request }
      - { json: [/name], with: redact }
      - { json: [/name], with: redact, direction: request }
";

impl Talk {
    /// What is to be sealed, of each event of a kind; empty where nothing is.
    fn sealed(&self, kind: Kind) -> Vec<String> {
        let sealed = |event: &&Event| {
            let data = event.sealed.plain().and_then(|plain| plain.data);
            String::from_utf8_lossy(&data.unwrap_or_default()).into_owned()
        };
        self.of(kind).iter().map(sealed).collect()
    }
}

#[test]
fn a_request_s_body_is_sealed_as_the_agent_sent_it_however_it_comes() {
    let filler = "fine words, ".repeat(300);
    let json = |card: &str, mail: &str, name: &str| {
        format!(r#"{{"card":"{card}","mail":"{mail}","name":"{name}","more":"{filler}"}}"#)
    };
    let body = json(CARD, "ada@example.org", "Ada");
    for size in [7, 500, 100_000] {
        let mut talk = Talk::sealing(RULES);
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        talk.post("/", &[("content-type", "application/json")], &pieces);
        let sent = String::from_utf8_lossy(&talk.up).into_owned();
        assert_eq!(sent, json(CARD, "[redacted]", "[redacted]"), "by {size}");
        let recorded: Vec<u8> = talk
            .of(Kind::Input)
            .iter()
            .flat_map(|one| one.data.clone())
            .collect();
        let recorded = String::from_utf8(recorded).unwrap();
        assert_eq!(recorded, json("[redacted]", "[redacted]", "[redacted]"));
        let sealed = talk.sealed(Kind::Input);
        assert!(sealed.len() > 1, "in parts");
        assert!(body.starts_with(&sealed[0]), "by {size}: {sealed:?}");
        assert!(
            sealed[0].contains(CARD) && sealed[0].contains("ada@") && sealed[0].contains("Ada")
        );
        assert_eq!(sealed.iter().filter(|one| one.contains(CARD)).count(), 1);

        let mut bare = Talk::new(RULES);
        bare.post("/", &[("content-type", "application/json")], &pieces);
        assert_eq!(bare.sealed(Kind::Input).concat(), "", "nobody is to see it");
    }
}

#[test]
fn a_body_that_no_mask_changes_and_a_credential_are_not_sealed() {
    let mut talk = Talk::sealing(RULES);
    let headers = [
        ("content-type", "text/plain"),
        ("x-injected", "of-ours"),
        ("authorization", "Bearer of-its"),
    ];
    let id = talk.post("/", &headers, &[b"nothing to hide"]);
    talk.respond(id, &[("x-injected", "of-ours")], &[b"and nothing here"]);
    for event in &talk.events {
        assert_eq!(event.sealed, Sealed::Nothing, "{event:?}");
    }
    let mut talk = Talk::sealing(RULES);
    let body = format!("card {CARD}");
    talk.post("/", &headers, &[body.as_bytes()]);
    assert_eq!(talk.sealed(Kind::Input), [body]);
    for event in &talk.events {
        let Some(plain) = event.sealed.plain() else {
            continue;
        };
        let data = plain.data.unwrap_or_default();
        let data = String::from_utf8_lossy(&data);
        let plain = format!("{:?} {:?} {data}", plain.line, plain.meta);
        assert!(
            !plain.contains("of-ours") && !plain.contains("of-its"),
            "{plain}"
        );
    }
}

#[test]
fn messages_of_a_websocket_are_sealed_as_they_came() {
    let (mut talk, id) = open_in(Talk::sealing(RULES));
    let asked = format!(r#"{{"name":"Ada","card":"{CARD}"}}"#);
    say(
        &mut talk,
        id,
        Side::Downstream,
        &text(&asked, Side::Downstream),
    );
    say(
        &mut talk,
        id,
        Side::Downstream,
        &text("fine", Side::Downstream),
    );
    let answered = format!("paid with {CARD}");
    say(
        &mut talk,
        id,
        Side::Upstream,
        &text(&answered, Side::Upstream),
    );
    assert_eq!(talk.sealed(Kind::Input), [asked, String::new()]);
    assert_eq!(talk.sealed(Kind::Output), [answered]);
    assert!(!talk.all().contains(CARD) && !talk.all().contains("Ada"));
}

#[test]
fn messages_of_grpc_are_sealed_as_they_came_in_both_directions() {
    let mut talk = Talk::sealing(RULES);
    talk.session.set_grpc(Some(shop()));
    let body = framed(0, &ada().encode_to_vec());
    let twice = [&body[..], &body].concat();
    let pieces: Vec<&[u8]> = twice.chunks(11).collect();
    let id = talk.post("/shop.Shop/Put", &GRPC, &pieces);
    let whole = |text: &str| {
        let said: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            (&said["name"], &said["ssn"]),
            (&"Ada".into(), &"856-45-6789".into())
        );
        assert!(text.contains(CARD), "{text}");
    };
    let asked = talk.sealed(Kind::Input);
    assert_eq!(asked.len(), 2);
    asked.iter().for_each(|text| whole(text));

    let mut talk = Talk::sealing(RULES);
    talk.session.set_grpc(Some(shop()));
    let list = talk.post("/shop.Shop/List", &GRPC, &[&framed(0, &[8, 1])]);
    assert_eq!(list, id);
    talk.head(list, 200, &GRPC, false);
    for piece in twice.chunks(13) {
        talk.data(list, piece);
    }
    talk.finish(list);
    assert_eq!(talk.sealed(Kind::Input), [""]);
    let answered = talk.sealed(Kind::Output);
    assert_eq!(answered.len(), 2);
    answered.iter().for_each(|text| whole(text));
    assert!(!talk.all().contains("4111") && !talk.all().contains("Ada"));
}

/// What would be sealed beside the one event of a kind, but its bytes.
fn head(talk: &Talk, kind: Kind) -> (String, Value) {
    let plain = talk.of(kind)[0].sealed.plain().unwrap_or_default();
    (plain.line.unwrap_or_default(), Value::Object(plain.meta))
}

#[test]
fn fields_and_the_address_are_sealed_as_they_came_and_what_authenticates_is_not() {
    const FIELDS: &str = "
version: 1
rules:
  - name: hidden
    match: { protocol: http }
    mask:
      - { detect: [credit_card], with: redact }
      - { header: [x-name], with: redact }
      - { header: [x-mine], with: redact, direction: request }
";
    let headers = [
        ("x-mine", "of-the-agent"),
        ("cookie", "id=of-the-agent-s"),
        ("x-injected", "of-ours"),
        ("authorization", "Bearer of-its"),
        ("x-password", "word"),
    ];
    let path = "/pay/4111111111111111?token=abc&password=word&card=4111111111111111";
    let talk_of = |mut talk: Talk| {
        let id = talk.post(path, &headers, &[]);
        let answer = [
            ("x-name", "Ada"),
            ("set-cookie", "id=of-the-service"),
            ("x-injected", "of-ours"),
        ];
        talk.respond(id, &answer, &[]);
        talk
    };
    let talk = talk_of(Talk::sealing(FIELDS));
    let (line, meta) = head(&talk, Kind::Command);
    assert!(
        line.starts_with("POST ") && line.ends_with("/pay/4111111111111111"),
        "{line}"
    );
    assert!(
        meta["url"]
            .as_str()
            .unwrap()
            .ends_with("/pay/4111111111111111")
    );
    assert_eq!(meta["path"], "/pay/4111111111111111");
    let query = serde_json::json!([
        ["token", "abc"],
        ["password", "[credential]"],
        ["card", "4111111111111111"]
    ]);
    assert_eq!(meta["query"], query);
    let field = |meta: &Value, name: &str| {
        let fields = meta["headers"].as_array().unwrap();
        let field = fields.iter().find(|field| field[0] == name).unwrap();
        field[1].as_str().unwrap().to_owned()
    };
    assert_eq!(field(&meta, "x-mine"), "of-the-agent");
    assert_eq!(field(&meta, "cookie"), "id=of-the-agent-s");
    for name in ["x-injected", "authorization", "x-password"] {
        assert_eq!(field(&meta, name), "[credential]");
    }
    let (_, meta) = head(&talk, Kind::Result);
    assert_eq!(field(&meta, "x-name"), "Ada");
    assert_eq!(field(&meta, "set-cookie"), "id=of-the-service");
    assert_eq!(field(&meta, "x-injected"), "[credential]");
    for word in ["4111", "of-the-agent", "of-the-service", "Ada", "abc"] {
        assert!(!talk.all().contains(word), "{word} is recorded");
    }

    let bare = talk_of(Talk::new(FIELDS));
    assert!(
        bare.events
            .iter()
            .all(|event| event.sealed == Sealed::Nothing)
    );
}
