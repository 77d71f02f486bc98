//! The session against transcripts of both sides, without a socket.

mod copying;
mod holding;
mod limits;
mod masking;
mod naming;
mod pipelines;
mod refusing;
mod streams;

use std::path::PathBuf;
use std::sync::Arc;

use interceptor_policy::{
    DefaultVerdict, MaskKey, Principal, Protocol, RuleSet, Source, Subject, Target,
};
use interceptor_proto::pg::backend::{
    Authentication, CommandComplete, Field, NoticeBuilder, ReadyForQuery, RowDescription,
    TransactionStatus, encode_empty,
};
use interceptor_proto::pg::frame;
use interceptor_proto::pg::frontend::{Parse, Query};
use interceptor_proto::pg::tag::backend as tag;
use uuid::Uuid;

use super::{PgSession, Settings};
use crate::event::{Event, FlowTime, Kind};
use crate::hold::{Decision, Question};
use crate::journal::Journal;
use crate::pg::catalog::TableInfo;
use crate::pg::sql::Classifier;
use crate::session::{End, Outbox, Piece, Session as _, Side};

/// A session, and everything that came out of it.
struct Talk {
    session: PgSession,
    to_agent: Vec<u8>,
    to_server: Vec<u8>,
    events: Vec<Event>,
    end: Option<End>,
    asked: Option<Vec<u32>>,
    /// What there is in the catalog, and what was asked for by name.
    catalog: Vec<TableInfo>,
    named: Vec<String>,
    question: Option<Question>,
    cancelled: bool,
}

fn rules(yaml: &str) -> Arc<RuleSet> {
    let source = Source {
        path: PathBuf::from("rules.yaml"),
        text: yaml.to_owned(),
    };
    Arc::new(RuleSet::load(&[source]).unwrap_or_else(|e| panic!("{e}")))
}

fn scope(yaml: &str) -> interceptor_policy::Scope {
    rules(yaml).scope(&Subject {
        principal: Principal {
            agent: "tester".to_owned(),
            ..Principal::default()
        },
        target: Target {
            name: Some("db".to_owned()),
            host: None,
            address: Some([127, 0, 0, 1].into()),
            origin: "".into(),
            port: 5432,
            tls: false,
            default: DefaultVerdict::Allow,
        },
        protocol: Protocol::Postgres,
    })
}

const NO_DROP: &str = "
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: [DROP] } }
    verdict: block
    message: Not today.
";

impl Talk {
    fn new(yaml: &str) -> Self {
        Self::with(yaml, false)
    }

    fn with(yaml: &str, has_catalog: bool) -> Self {
        let session = PgSession::new(Settings {
            standing: interceptor_policy::Standing::default(),
            opened: interceptor_policy::Moment::default(),
            scope: scope(yaml),
            key: MaskKey([7; 32]),
            classifier: Arc::new(Classifier::new(1 << 20)),
            journal: Journal::new(Uuid::nil(), None),
            database: Arc::from("app"),
            user: Arc::from("agent"),
            replication: false,
            has_catalog,
            downstream_tls: false,
            upstream_tls: false,
            logged_on: false,
        });
        let mut talk = Self {
            session,
            to_agent: Vec::new(),
            to_server: Vec::new(),
            events: Vec::new(),
            end: None,
            asked: None,
            catalog: Vec::new(),
            named: Vec::new(),
            question: None,
            cancelled: false,
        };
        let mut hello = Vec::new();
        Authentication::Ok.encode(&mut hello).unwrap();
        ready(&mut hello, TransactionStatus::Idle);
        talk.server(&hello);
        talk.to_agent.clear();
        talk.events.clear();
        talk
    }

    fn feed(&mut self, side: Side, bytes: &[u8]) {
        let mut out = Outbox::default();
        self.session
            .handle_bytes(FlowTime(1), side, bytes, &mut out);
        self.take(out, bytes);
    }

    fn take(&mut self, out: Outbox, bytes: &[u8]) {
        for (pieces, to) in [
            (&out.downstream, &mut self.to_agent),
            (&out.upstream, &mut self.to_server),
        ] {
            for piece in pieces {
                match piece {
                    Piece::Input(range) => to.extend_from_slice(&bytes[range.clone()]),
                    Piece::Owned(owned) => to.extend_from_slice(owned),
                }
            }
        }
        self.events.extend(out.events);
        self.end = out.end.or(self.end.take());
        self.asked = out.catalog.or(self.asked.take());
        self.question = out.ask.map(|question| *question).or(self.question.take());
        self.cancelled |= out.cancel;
        if let Some(lookup) = out.tables {
            let answer = lookup.tables.into_iter().map(|table| {
                self.named.push(table.to_string());
                let means = |info: &&TableInfo| {
                    *info.name == *table.name
                        && table
                            .schema
                            .as_deref()
                            .is_none_or(|schema| *info.schema == *schema)
                };
                let infos = self.catalog.iter().filter(means).cloned().collect();
                (table, infos)
            });
            let answer = answer.collect();
            let mut out = Outbox::default();
            self.session.handle_tables(FlowTime(1), answer, &mut out);
            self.take(out, &[]);
        }
    }

    fn decide(&mut self, decision: Decision) {
        let mut out = Outbox::default();
        self.session
            .handle_decision(FlowTime(2), decision, &mut out);
        self.take(out, &[]);
    }

    fn agent(&mut self, bytes: &[u8]) {
        self.feed(Side::Downstream, bytes);
    }

    fn server(&mut self, bytes: &[u8]) {
        self.feed(Side::Upstream, bytes);
    }

    /// What the agent was sent since the last look, by tag.
    fn agent_got(&mut self) -> Vec<(u8, Vec<u8>)> {
        messages(&std::mem::take(&mut self.to_agent))
    }

    fn server_got(&mut self) -> Vec<(u8, Vec<u8>)> {
        messages(&std::mem::take(&mut self.to_server))
    }

    fn kinds(&self) -> Vec<Kind> {
        self.events.iter().map(|event| event.kind).collect()
    }
}

fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(head) = frame::head(bytes).unwrap() {
        found.push((head.tag, bytes[frame::HEADER..head.total()].to_vec()));
        bytes = &bytes[head.total()..];
    }
    assert!(bytes.is_empty(), "half a message");
    found
}

fn tags(messages: &[(u8, Vec<u8>)]) -> String {
    messages.iter().map(|(tag, _)| char::from(*tag)).collect()
}

fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Query {
        sql: sql.as_bytes(),
    }
    .encode(&mut out)
    .unwrap();
    out
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Parse {
        statement: name.as_bytes(),
        sql: sql.as_bytes(),
        parameter_types: Default::default(),
    }
    .encode(&mut out)
    .unwrap();
    out
}

/// `Bind` of no parameters.
fn bind(portal: &str, statement: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for name in [portal, statement] {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
    }
    body.extend_from_slice(&[0; 6]);
    message(b'B', &body)
}

fn execute(portal: &str) -> Vec<u8> {
    let mut body = portal.as_bytes().to_vec();
    body.extend_from_slice(&[0; 5]);
    message(b'E', &body)
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
    ReadyForQuery { status }.encode(out);
}

fn complete(out: &mut Vec<u8>, text: &str) {
    CommandComplete {
        tag: text.as_bytes(),
    }
    .encode(out)
    .unwrap();
}

fn error(out: &mut Vec<u8>, state: &str, text: &str) {
    NoticeBuilder::error(state, text).encode_error(out);
}

fn empty(out: &mut Vec<u8>, tags: &[u8]) {
    for tag in tags {
        encode_empty(*tag, out);
    }
}

/// A row description: names, tables, columns, types.
fn description(out: &mut Vec<u8>, fields: &[(&str, u32, i16, u32, i16)]) {
    let fields: Vec<Field<'_>> = fields
        .iter()
        .map(|(name, table_oid, attribute, type_oid, format)| Field {
            name: name.as_bytes(),
            table_oid: *table_oid,
            attribute: *attribute,
            type_oid: *type_oid,
            format: *format,
            ..Field::default()
        })
        .collect();
    RowDescription::encode(fields, out).unwrap();
}

fn row(out: &mut Vec<u8>, values: &[Option<&[u8]>]) {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend_from_slice(value);
            }
        }
    }
    out.extend_from_slice(&message(tag::DATA_ROW, &body));
}

/// The values of a row that the agent got.
fn values(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    interceptor_proto::pg::backend::DataRow::parse(body)
        .unwrap()
        .columns()
        .map(|value| value.map(<[u8]>::to_vec))
        .collect()
}

/// One field of an error that the agent got.
fn field(body: &[u8], letter: u8) -> String {
    let notice = interceptor_proto::pg::backend::Notice::parse(body).unwrap();
    String::from_utf8_lossy(notice.get(letter).unwrap_or_default()).into_owned()
}
