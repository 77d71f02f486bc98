//! Calls of gRPC: messages judged, masked, recorded, with and without a schema.

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto, ServiceDescriptorProto,
};

use super::*;
use crate::http::grpc::Schemas;

pub(super) const GRPC: [(&str, &str); 1] = [("content-type", "application/grpc+proto")];

fn field(
    name: &str,
    number: i32,
    kind: Type,
    of: Option<&str>,
    many: bool,
) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        type_name: of.map(str::to_owned),
        label: Some(
            if many {
                Label::Repeated
            } else {
                Label::Optional
            }
            .into(),
        ),
        ..FieldDescriptorProto::default()
    }
}

fn message(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields,
        ..DescriptorProto::default()
    }
}

/// `shop.Shop`: `Get` and `List` (a stream) of customers, `Put` of a stream of them.
pub(super) fn shop() -> Arc<Schemas> {
    let text = Type::String;
    let mut labels = message(
        "LabelsEntry",
        vec![
            field("key", 1, text, None, false),
            field("value", 2, text, None, false),
        ],
    );
    labels.options = Some(MessageOptions {
        map_entry: Some(true),
        ..MessageOptions::default()
    });
    let address = Some(".shop.Address");
    let entry = Some(".shop.Customer.LabelsEntry");
    let mut customer = message(
        "Customer",
        vec![
            field("name", 1, text, None, false),
            field("ssn", 2, text, None, false),
            field("age", 3, Type::Int32, None, false),
            field("card", 4, Type::Int64, None, false),
            field("address", 5, Type::Message, address, false),
            field("notes", 6, text, None, true),
            field("scores", 7, Type::Sint32, None, true),
            field("labels", 8, Type::Message, entry, true),
            field("active", 9, Type::Bool, None, false),
        ],
    );
    customer.nested_type.push(labels);
    let method =
        |name: &str, input: &str, output: &str, asks: bool, answers: bool| MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: Some(input.to_owned()),
            output_type: Some(output.to_owned()),
            client_streaming: Some(asks),
            server_streaming: Some(answers),
            ..MethodDescriptorProto::default()
        };
    let set = FileDescriptorSet {
        file: vec![FileDescriptorProto {
            package: Some("shop".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![
                customer,
                message("Address", vec![field("street", 1, text, None, false)]),
                message("Ask", vec![field("id", 1, Type::Int64, None, false)]),
            ],
            service: vec![ServiceDescriptorProto {
                name: Some("Shop".to_owned()),
                method: vec![
                    method("Get", ".shop.Ask", ".shop.Customer", false, false),
                    method("List", ".shop.Ask", ".shop.Customer", false, true),
                    method("Put", ".shop.Customer", ".shop.Ask", true, false),
                ],
                ..ServiceDescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        }],
    };
    Arc::new(Schemas::read(&set.encode_to_vec()).unwrap())
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Address {
    #[prost(string, tag = "1")]
    street: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Customer {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    ssn: String,
    #[prost(int32, tag = "3")]
    age: i32,
    #[prost(int64, tag = "4")]
    card: i64,
    #[prost(message, optional, tag = "5")]
    address: Option<Address>,
    #[prost(string, repeated, tag = "6")]
    notes: Vec<String>,
    #[prost(sint32, repeated, tag = "7")]
    scores: Vec<i32>,
    #[prost(btree_map = "string, string", tag = "8")]
    labels: std::collections::BTreeMap<String, String>,
    #[prost(bool, tag = "9")]
    active: bool,
}

pub(super) fn ada() -> Customer {
    Customer {
        name: "Ada".to_owned(),
        ssn: "856-45-6789".to_owned(),
        age: -3,
        card: 4_111_111_111_111_111,
        address: Some(Address {
            street: "1 Long Street".to_owned(),
        }),
        notes: vec!["fine".to_owned(), "card 4111 1111 1111 1111".to_owned()],
        scores: vec![1, -2, 3],
        labels: [("team".to_owned(), "blue".to_owned())].into(),
        active: true,
    }
}

pub(super) fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), payload].concat()
}

fn gzipped(payload: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(payload).unwrap();
    out.finish().unwrap()
}

fn talk(yaml: &str, schemas: Option<Arc<Schemas>>) -> Talk {
    let mut talk = Talk::new(yaml);
    talk.session.set_grpc(schemas);
    talk
}

/// What the agent got: each message, and whether it is compressed.
fn got(talk: &Talk) -> Vec<(u8, Customer)> {
    let mut rest = &talk.down[..];
    let mut all = Vec::new();
    while let [flag, a, b, c, d, body @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        all.push((*flag, Customer::decode(&body[..length]).unwrap()));
        rest = &body[length..];
    }
    all
}

const BY_PLACE: &str = "
version: 1
rules:
  - name: hidden
    match: { http: { grpc: { service: shop.Shop } } }
    mask:
      - { json: [/ssn], with: { partial: { keep_last: 4 } } }
      - { json: [/age, /address, /notes/0, /scores/1, /labels/team], with: redact }
";

#[test]
fn values_are_hidden_by_the_names_of_the_schema_and_all_else_stays() {
    let mut talk = talk(BY_PLACE, Some(shop()));
    let id = talk.post("/shop.Shop/List", &GRPC, &[&framed(0, &[8, 1])]);
    talk.head(id, 200, &GRPC, false);
    let body = [framed(0, &ada().encode_to_vec()), framed(0, &[])].concat();
    for piece in body.chunks(7) {
        talk.data(id, piece);
    }
    talk.finish(id);
    let hidden = Customer {
        ssn: "*******6789".to_owned(),
        age: 0,
        address: Some(Address::default()),
        notes: vec!["[redacted]".to_owned(), ada().notes[1].clone()],
        scores: vec![1, 0, 3],
        labels: [("team".to_owned(), "[redacted]".to_owned())].into(),
        ..ada()
    };
    assert_eq!(got(&talk), [(0, hidden), (0, Customer::default())]);
    assert!(!talk.all().contains("856-45"));
    let told = talk.of(Kind::Output);
    assert_eq!(told.len(), 2);
    let said: Value = serde_json::from_slice(&told[0].data).unwrap();
    assert_eq!(said["name"], "Ada");
    assert_eq!(said["card"], 4_111_111_111_111_111_u64);
    assert_eq!(said["labels"]["team"], "[redacted]");
    assert_eq!(said["scores"], serde_json::json!([1, 0, 3]));
    assert_eq!(talk.meta(Kind::Result)["grpc_messages"], 2);
}

#[test]
fn detectors_find_in_messages_of_which_nothing_is_known_and_through_compression() {
    for schemas in [None, Some(shop())] {
        let mut talk = talk(MASKS, schemas.clone());
        let id = talk.post("/shop.Shop/Get", &GRPC, &[&framed(0, &[8, 1])]);
        let head = [GRPC[0], ("grpc-encoding", "gzip")];
        talk.head(id, 200, &head, false);
        talk.data(id, &framed(1, &gzipped(&ada().encode_to_vec())));
        let clean = Customer {
            card: 0,
            notes: Vec::new(),
            ..ada()
        };
        let untouched = framed(1, &gzipped(&clean.encode_to_vec()));
        let before = talk.down.len();
        talk.data(id, &untouched);
        assert_eq!(talk.down[before..], untouched);
        talk.down.truncate(before);
        talk.finish(id);
        let hidden = Customer {
            card: 0,
            notes: vec!["fine".to_owned(), "card [redacted]".to_owned()],
            ..ada()
        };
        assert_eq!(got(&talk), [(0, hidden)], "{}", schemas.is_some());
        assert!(!talk.all().contains("4111"));
    }
}

#[test]
fn a_rule_reads_the_one_message_of_a_request_and_zeros_that_are_not_sent() {
    let rules = "
version: 1
rules:
  - name: not-seven
    match: { http: { grpc: { service: shop.Shop }, body: { /id: 7 } } }
    verdict: block
  - name: not-zero
    match: { http: { grpc: { service: shop.Shop }, body: { /id: 0 } } }
    verdict: block
";
    for (payload, encoding, rule) in [
        (framed(0, &[8, 1]), "identity", None),
        (framed(0, &[8, 7]), "identity", Some("not-seven")),
        (framed(1, &gzipped(&[8, 7])), "gzip", Some("not-seven")),
        (framed(0, &[]), "identity", Some("not-zero")),
    ] {
        let mut talk = talk(rules, Some(shop()));
        let head = [GRPC[0], ("grpc-encoding", encoding)];
        talk.post("/shop.Shop/Get", &head, &[&payload]);
        match rule {
            None => assert_eq!(talk.up, payload),
            Some(rule) => {
                assert!(talk.sent.is_none(), "{payload:?}");
                assert_eq!(talk.field("grpc-status"), Some("7"));
                assert_eq!(talk.meta(Kind::Verdict)["rule"], rule);
            }
        }
    }
}

#[test]
fn what_rules_ask_about_and_nobody_can_read_is_refused() {
    let rules = "
version: 1
rules:
  - name: not-seven
    match: { http: { body: { /id: 7 } } }
    verdict: block
";
    let one = framed(0, &[8, 1]);
    // No schema, a method that it does not know, a stream of messages, two messages in
    // place of one, no protobuf.
    let two = [one.clone(), one.clone()].concat();
    let cases = [
        (None, "/shop.Shop/Get", one.clone()),
        (Some(shop()), "/shop.Shop/Other", one.clone()),
        (Some(shop()), "/shop.Shop/Put", one.clone()),
        (Some(shop()), "/shop.Shop/Get", two),
        (Some(shop()), "/shop.Shop/Get", framed(0, &[8])),
        (Some(shop()), "/shop.Shop/Get", framed(1, &[8, 1])),
    ];
    for (schemas, path, payload) in cases {
        let mut talk = talk(rules, schemas);
        talk.post(path, &GRPC, &[&payload]);
        assert!(talk.sent.is_none(), "{path} {payload:?}");
        assert_eq!(talk.field("grpc-status"), Some("7"), "{path}");
    }
}

#[test]
fn a_call_is_refused_before_it_is_made_where_nothing_could_be_hidden_by_its_place() {
    let mut talk = talk(BY_PLACE, None);
    talk.post("/shop.Shop/Get", &GRPC, &[&framed(0, &[8, 1])]);
    assert!(talk.sent.is_none());
    assert_eq!(talk.field("grpc-status"), Some("7"));
}

#[test]
fn an_answer_that_cannot_be_looked_into_ends_with_a_status() {
    let mut talk = talk(MASKS, Some(shop()));
    let id = talk.post("/shop.Shop/Get", &GRPC, &[&framed(0, &[8, 1])]);
    talk.head(id, 200, &GRPC, false);
    talk.data(id, &framed(0, &[0x0b, 0x0c]));
    assert!(talk.down.is_empty() && talk.dropped);
    let trailers = talk.trailers.as_ref().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
}

#[test]
fn the_words_of_a_status_are_looked_at() {
    let mut talk = talk(MASKS, None);
    let id = talk.post("/shop.Shop/Get", &GRPC, &[&framed(0, &[8, 1])]);
    let words = ("grpc-message", "no card 4111 1111 1111 1111");
    talk.head(id, 200, &[GRPC[0], ("grpc-status", "5"), words], true);
    assert_eq!(talk.field("grpc-message"), Some("no card [redacted]"));
    assert!(!talk.all().contains("4111"));
}

#[test]
fn what_the_agent_sends_is_hidden_message_by_message() {
    let rules = "
version: 1
rules:
  - name: hidden
    match: { protocol: http }
    mask:
      - { json: [/name], with: redact, direction: request }
";
    let mut talk = talk(rules, Some(shop()));
    let body = framed(0, &ada().encode_to_vec());
    talk.post("/shop.Shop/Put", &GRPC, &[&body[..20], &body[20..], &body]);
    let sent = Customer::decode(&talk.up[5..talk.up.len() / 2]).unwrap();
    assert_eq!(sent.name, "[redacted]");
    assert_eq!(sent.ssn, ada().ssn);
    assert_eq!(talk.of(Kind::Input).len(), 2);
}

#[test]
fn rules_of_other_kinds_do_not_keep_a_message_from_being_read() {
    let rules = "
version: 1
rules:
  - name: no-ssn
    match: { http: { grpc: { service: shop.Shop } } }
    mask: [{ json: [/ssn], with: { partial: { keep_last: 4 } } }]
  - name: not-seven
    match: { http: { grpc: { service: shop.Shop, method: Get }, body: { /id: 7 } } }
    verdict: block
  - name: no-rm
    match: { http: { websocket: true, body: { /cmd: rm } } }
    verdict: block
  - name: no-deleting
    match: { http: { mcp: { tool: \"delete_*\" } } }
    verdict: block
  - name: no-admin
    match: { http: { path: [\"/admin\", \"/admin/**\"] } }
    verdict: block
";
    let mut talk = talk(rules, Some(shop()));
    let payload = framed(0, &[8, 1]);
    let head = [("content-type", "application/grpc"), ("te", "trailers")];
    talk.post("/shop.Shop/Get", &head, &[&payload]);
    assert_eq!(talk.up, payload, "{}", talk.all());
}
