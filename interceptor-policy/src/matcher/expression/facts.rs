//! What an expression may ask about: the fields of a match, by their names.
//!
//! Only what an expression names is made, once for each question. A fact that
//! is not known is an empty text.

use std::borrow::Cow;
use std::collections::HashMap;

use cel::common::types::{CelBool, CelInt, CelList, CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;

use super::{About, Fault, LIST_LIMIT, TEXT_LIMIT};
use crate::Subject;
use crate::operation::http::{HttpBody, HttpOperation, HttpRequest};
use crate::operation::ssh::{SshForward, SshStdin};

/// What kind of value a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Number,
    Text,
    List,
    Map,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "text",
            Self::List => "a list",
            Self::Map => "a mapping",
        }
    }
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    Agent,
    User,
    Uid,
    Group,
    Groups,
    Exe,
    CommandLine,
    Cgroup,
    Unit,
    Container,
    Labels,
    Claims,
    /// One of either, by its name.
    Label(String),
    Claim(String),
    TargetName,
    Host,
    Address,
    Port,
    Tls,
    Protocol,
    Risk,
    Statement,
    Class,
    Tables,
    Columns,
    Functions,
    Where,
    Database,
    PgUser,
    Text,
    Statements,
    WritesInsideRead,
    Method,
    HttpHost,
    Path,
    Paths,
    ContentType,
    Size,
    Websocket,
    HostMismatch,
    Status,
    /// One of the query or of a head, by its name.
    Query(String),
    Header(String),
    ResponseHeader(String),
    GrpcService,
    GrpcMethod,
    GraphQlOperations,
    GraphQlFields,
    McpMethods,
    McpTools,
    SshUser,
    SshKind,
    SshProgram,
    SshArguments,
    SshCommand,
    SshStdin,
    SshOpaque,
    SshSftpOperation,
    SshPaths,
    SshForwardHost,
    SshForwardPort,
}

/// A field whose members have names of their own, and what one of them is.
type Named = (&'static str, fn(String) -> Leaf);

const NAMED: &[Named] = &[
    ("principal.labels.", Leaf::Label),
    ("principal.claims.", Leaf::Claim),
    ("http.query.", Leaf::Query),
    ("http.header.", |name| {
        Leaf::Header(name.to_ascii_lowercase())
    }),
    ("http.response_header.", |name| {
        Leaf::ResponseHeader(name.to_ascii_lowercase())
    }),
];

/// The fields whose names stand fast.
pub(super) const NAMES: &[(&str, Leaf, Kind)] = &[
    ("principal.agent", Leaf::Agent, Kind::Text),
    ("principal.user", Leaf::User, Kind::Text),
    ("principal.uid", Leaf::Uid, Kind::Number),
    ("principal.group", Leaf::Group, Kind::Text),
    ("principal.groups", Leaf::Groups, Kind::List),
    ("principal.exe", Leaf::Exe, Kind::Text),
    ("principal.command_line", Leaf::CommandLine, Kind::Text),
    ("principal.cgroup", Leaf::Cgroup, Kind::Text),
    ("principal.unit", Leaf::Unit, Kind::Text),
    ("principal.container", Leaf::Container, Kind::Text),
    ("principal.labels", Leaf::Labels, Kind::Map),
    ("principal.claims", Leaf::Claims, Kind::Map),
    ("target.name", Leaf::TargetName, Kind::Text),
    ("target.host", Leaf::Host, Kind::Text),
    ("target.address", Leaf::Address, Kind::Text),
    ("target.port", Leaf::Port, Kind::Number),
    ("target.tls", Leaf::Tls, Kind::Bool),
    ("protocol", Leaf::Protocol, Kind::Text),
    ("risk", Leaf::Risk, Kind::Number),
    ("postgres.statement", Leaf::Statement, Kind::List),
    ("postgres.class", Leaf::Class, Kind::List),
    ("postgres.tables", Leaf::Tables, Kind::List),
    ("postgres.columns", Leaf::Columns, Kind::List),
    ("postgres.functions", Leaf::Functions, Kind::List),
    ("postgres.where", Leaf::Where, Kind::Text),
    ("postgres.database", Leaf::Database, Kind::Text),
    ("postgres.user", Leaf::PgUser, Kind::Text),
    ("postgres.text", Leaf::Text, Kind::Text),
    ("postgres.statements", Leaf::Statements, Kind::Number),
    (
        "postgres.writes_inside_read",
        Leaf::WritesInsideRead,
        Kind::Bool,
    ),
    ("http.method", Leaf::Method, Kind::Text),
    ("http.host", Leaf::HttpHost, Kind::Text),
    ("http.path", Leaf::Path, Kind::Text),
    ("http.paths", Leaf::Paths, Kind::List),
    ("http.content_type", Leaf::ContentType, Kind::Text),
    ("http.size", Leaf::Size, Kind::Number),
    ("http.websocket", Leaf::Websocket, Kind::Bool),
    ("http.host_mismatch", Leaf::HostMismatch, Kind::Bool),
    ("http.status", Leaf::Status, Kind::Number),
    ("http.grpc.service", Leaf::GrpcService, Kind::Text),
    ("http.grpc.method", Leaf::GrpcMethod, Kind::Text),
    (
        "http.graphql.operation",
        Leaf::GraphQlOperations,
        Kind::List,
    ),
    ("http.graphql.fields", Leaf::GraphQlFields, Kind::List),
    ("http.mcp.method", Leaf::McpMethods, Kind::List),
    ("http.mcp.tool", Leaf::McpTools, Kind::List),
    ("ssh.user", Leaf::SshUser, Kind::Text),
    ("ssh.kind", Leaf::SshKind, Kind::Text),
    ("ssh.program", Leaf::SshProgram, Kind::Text),
    ("ssh.arguments", Leaf::SshArguments, Kind::List),
    ("ssh.command", Leaf::SshCommand, Kind::Text),
    ("ssh.stdin", Leaf::SshStdin, Kind::Text),
    ("ssh.opaque", Leaf::SshOpaque, Kind::Bool),
    ("ssh.sftp.operation", Leaf::SshSftpOperation, Kind::List),
    ("ssh.sftp.path", Leaf::SshPaths, Kind::List),
    ("ssh.forward.host", Leaf::SshForwardHost, Kind::Text),
    ("ssh.forward.port", Leaf::SshForwardPort, Kind::Number),
];

impl Leaf {
    /// The field of a dotted name, with the kind of its value.
    pub(super) fn named(name: &str) -> Option<(Self, Kind)> {
        if let Some((_, leaf, kind)) = NAMES.iter().find(|(known, ..)| *known == name) {
            return Some((leaf.clone(), *kind));
        }
        NAMED.iter().find_map(|(prefix, leaf)| {
            let member = name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
            Some((leaf(member.to_owned()), Kind::Text))
        })
    }

    /// The name that an expression's variable has.
    pub(super) fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Label(label) => Cow::Owned(format!("principal.labels.{label}")),
            Self::Claim(claim) => Cow::Owned(format!("principal.claims.{claim}")),
            Self::Query(name) => Cow::Owned(format!("http.query.{name}")),
            Self::Header(name) => Cow::Owned(format!("http.header.{name}")),
            Self::ResponseHeader(name) => Cow::Owned(format!("http.response_header.{name}")),
            _ => Cow::Borrowed(
                NAMES
                    .iter()
                    .find(|(_, leaf, _)| leaf == self)
                    .map_or("", |(name, ..)| name),
            ),
        }
    }

    pub(super) fn is_of_statements(&self) -> bool {
        self.name().starts_with("postgres.")
    }

    pub(super) fn is_of_http(&self) -> bool {
        self.name().starts_with("http.")
    }

    pub(super) fn is_of_ssh(&self) -> bool {
        self.name().starts_with("ssh.")
    }

    pub(super) const fn is_of_response(&self) -> bool {
        matches!(self, Self::Status | Self::ResponseHeader(_))
    }

    /// Whether the body has to be read for it to be known.
    pub(super) const fn reads_body(&self, request: &HttpRequest) -> bool {
        match self {
            Self::GraphQlOperations | Self::GraphQlFields | Self::McpMethods | Self::McpTools => {
                true
            }
            Self::Size => request.size.is_none(),
            _ => false,
        }
    }

    fn value<'a>(&self, about: &About<'a>) -> Result<Box<dyn Val + 'a>, Fault> {
        let Subject {
            principal,
            target,
            protocol,
        } = about.subject;
        let known = |fact: &'a Option<String>| text(fact.as_deref().unwrap_or_default());
        Ok(match self {
            Self::Agent => text(&principal.agent)?,
            Self::User => known(&principal.user)?,
            Self::Uid => number(u64::from(principal.uid)),
            Self::Group => known(&principal.group)?,
            Self::Groups => list(&principal.groups, text)?,
            Self::Exe => known(&principal.exe)?,
            Self::CommandLine => known(&principal.command_line)?,
            Self::Cgroup => known(&principal.cgroup)?,
            Self::Unit => known(&principal.unit)?,
            Self::Container => known(&principal.container)?,
            Self::Labels => map(&principal.labels)?,
            Self::Claims => map(&principal.claims)?,
            Self::Label(name) => text(principal.labels.get(name).map_or("", String::as_str))?,
            Self::Claim(name) => text(principal.claims.get(name).map_or("", String::as_str))?,
            Self::TargetName => known(&target.name)?,
            Self::Host => known(&target.host)?,
            Self::Address => match target.address {
                Some(address) => text(address.to_canonical().to_string())?,
                None => return Err("its `if` asks for an address that is not known"),
            },
            Self::Port => number(u64::from(target.port)),
            Self::Tls => Box::new(CelBool::from(target.tls)),
            Self::Protocol => text(protocol.name())?,
            Self::Risk => number(u64::from(about.score)),
            _ if self.is_of_http() => return self.of_http(about),
            _ if self.is_of_ssh() => return self.of_ssh(about),
            _ => return self.of_statement(about),
        })
    }

    fn of_statement<'a>(&self, about: &About<'a>) -> Result<Box<dyn Val + 'a>, Fault> {
        let asked = about.asked.statement();
        let (operation, statement) = asked.ok_or("its `if` asks about no statement")?;
        Ok(match self {
            Self::Statement => list(&statement.tags, |tag| text(*tag))?,
            Self::Class => {
                let names: Vec<_> = statement.classes.names().collect();
                list(&names, |name| text(*name))?
            }
            Self::Tables => list(&statement.tables, |table| text(table.to_string()))?,
            Self::Columns => list(&statement.columns, |column| text(column.to_string()))?,
            Self::Functions => list(&statement.functions, |function| text(&**function))?,
            Self::Where => text(statement.where_clause.map_or("", |clause| clause.name()))?,
            Self::Database => text(operation.database)?,
            Self::PgUser => text(operation.user)?,
            Self::Text => text(operation.text)?,
            Self::Statements => number(operation.sql.statements.len() as u64),
            Self::WritesInsideRead => Box::new(CelBool::from(statement.writes_inside_read)),
            _ => return Err("its `if` asks for what there is not"),
        })
    }
}

impl Leaf {
    fn of_http<'a>(&self, about: &About<'a>) -> Result<Box<dyn Val + 'a>, Fault> {
        let of: &'a HttpOperation<'a> =
            about.asked.http().ok_or("its `if` asks about no request")?;
        let request = of.request;
        if self.reads_body(request) {
            match request.body {
                HttpBody::Unread => return Err("its `if` asks about a body that was not read"),
                HttpBody::Unreadable(_) => {
                    return Err("its `if` asks about a body that cannot be read");
                }
                _ => {}
            }
        }
        let response = || of.response.ok_or("its `if` asks about no response");
        Ok(match self {
            Self::Method => text(&*request.method)?,
            Self::HttpHost => text(&*request.host)?,
            Self::Path => text(request.paths.first().map_or("", |path| &**path))?,
            Self::Paths => list(&request.paths, |path| text(&**path))?,
            Self::ContentType => text(request.content_type.as_deref().unwrap_or_default())?,
            Self::Size => number(request.size.unwrap_or_default()),
            Self::Websocket => Box::new(CelBool::from(request.websocket)),
            Self::HostMismatch => Box::new(CelBool::from(request.host_mismatch)),
            Self::Status => number(u64::from(response()?.status)),
            Self::Query(name) => joined(&request.query, name)?,
            Self::Header(name) => joined(&request.headers, name)?,
            Self::ResponseHeader(name) => joined(&response()?.headers, name)?,
            Self::GrpcService => text(request.grpc.as_ref().map_or("", |call| &*call.service))?,
            Self::GrpcMethod => text(request.grpc.as_ref().map_or("", |call| &*call.method))?,
            Self::GraphQlOperations => list(&request.graphql, |of| text(&*of.kind))?,
            Self::GraphQlFields => {
                let fields = request.graphql.iter().flat_map(|of| &of.fields);
                list(&fields.collect::<Vec<_>>(), |field| text(&***field))?
            }
            Self::McpMethods => list(&request.mcp, |of| text(&*of.method))?,
            Self::McpTools => {
                let tools = request.mcp.iter().flat_map(|of| &of.tool);
                list(&tools.collect::<Vec<_>>(), |tool| text(&***tool))?
            }
            _ => return Err("its `if` asks for what there is not"),
        })
    }
}

impl Leaf {
    fn of_ssh<'a>(&self, about: &About<'a>) -> Result<Box<dyn Val + 'a>, Fault> {
        const UNKNOWN: Fault = "its `if` asks about what is not known before the line runs";
        let asked = about.asked.ssh();
        let (request, program) = asked.ok_or("its `if` asks about no request")?;
        Ok(match self {
            Self::SshUser => text(&*request.user)?,
            Self::SshKind => text(request.kind.name())?,
            // What is not there is empty; what is not known is a fault, which
            // blocks.
            Self::SshProgram => match program {
                Some(program) => text(program.name().ok_or(UNKNOWN)?)?,
                None => text("")?,
            },
            Self::SshArguments => {
                let arguments = program.map_or(&[][..], |program| &program.arguments);
                list(arguments, |argument| {
                    text(argument.as_deref().ok_or(UNKNOWN)?)
                })?
            }
            Self::SshCommand => match &request.line {
                Some(line) if !line.sure => return Err(UNKNOWN),
                Some(line) => text(&*line.text)?,
                None => text("")?,
            },
            Self::SshStdin => match program.map(|program| program.stdin) {
                Some(SshStdin::Unknown) => return Err(UNKNOWN),
                known => text(known.map_or("", SshStdin::name))?,
            },
            Self::SshOpaque => {
                let opaque = program.is_some_and(|program| program.is_opaque());
                Box::new(CelBool::from(opaque))
            }
            Self::SshSftpOperation => {
                let operations = request
                    .sftp
                    .as_ref()
                    .map_or(&[][..], |sftp| &sftp.operations);
                list(operations, |operation| text(operation.name()))?
            }
            Self::SshPaths => {
                let paths = request.sftp.as_ref().map_or(&[][..], |sftp| &sftp.paths);
                list(paths, |path| text(&**path))?
            }
            Self::SshForwardHost => match &request.forward {
                Some(SshForward::Tcp { host, .. }) => text(&**host)?,
                _ => text("")?,
            },
            Self::SshForwardPort => match &request.forward {
                Some(SshForward::Tcp { port, .. }) => number(u64::from(*port)),
                _ => number(0),
            },
            _ => return Err("its `if` asks for what there is not"),
        })
    }
}

/// The values of a name; several of them as one, with a comma and a space between.
fn joined<'a>(
    of: &'a [(std::sync::Arc<str>, std::sync::Arc<str>)],
    name: &str,
) -> Result<Box<dyn Val + 'a>, Fault> {
    let mut values = of
        .iter()
        .filter(|(known, _)| **known == *name)
        .map(|(_, value)| &**value);
    match (values.next(), values.next()) {
        (None, _) => text(""),
        (Some(one), None) => text(one),
        (Some(one), Some(two)) => {
            let all: Vec<&str> = [one, two].into_iter().chain(values).collect();
            text(all.join(", "))
        }
    }
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Result<Box<dyn Val + 'a>, Fault> {
    let text = text.into();
    if text.len() > TEXT_LIMIT {
        return Err("its `if` asks about a text that is too long");
    }
    Ok(Box::new(CelString::from(text)))
}

fn number<'a>(number: u64) -> Box<dyn Val + 'a> {
    Box::new(CelInt::from(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn list<'s, 'a, T>(
    items: &'s [T],
    value: impl Fn(&'s T) -> Result<Box<dyn Val + 'a>, Fault>,
) -> Result<Box<dyn Val + 'a>, Fault> {
    if items.len() > LIST_LIMIT {
        return Err("its `if` asks about a list that is too long");
    }
    let values: Vec<_> = items.iter().map(value).collect::<Result<_, _>>()?;
    Ok(Box::new(CelList::from(values)))
}

fn map<'a>(
    entries: &'a std::collections::BTreeMap<String, String>,
) -> Result<Box<dyn Val + 'a>, Fault> {
    if entries.len() > LIST_LIMIT {
        return Err("its `if` asks about a mapping that is too long");
    }
    let mut map: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = HashMap::new();
    for (key, value) in entries {
        map.insert(CelMapKey::from(key.as_str()), text(value)?);
    }
    Ok(Box::new(CelMap::from(map)))
}

/// Whether `of["x"]` is what `of.x` is.
pub(super) fn has_named_members(of: &str) -> bool {
    let mut named = NAMED.iter();
    named.any(|(prefix, _)| prefix.strip_suffix('.') == Some(of))
}

/// The values that one question is asked with.
pub(super) struct Facts<'a> {
    values: Vec<(Cow<'static, str>, Box<dyn Val + 'a>)>,
}

impl<'a> Facts<'a> {
    /// The values of some fields.
    ///
    /// # Errors
    /// Which of them is too long.
    pub(super) fn of(leaves: &[Leaf], about: &About<'a>) -> Result<Self, Fault> {
        let values = leaves
            .iter()
            .map(|leaf| Ok((leaf.name(), leaf.value(about)?)))
            .collect::<Result<_, Fault>>()?;
        Ok(Self { values })
    }
}

/// Values of the right kinds, of nobody.
pub(super) fn trial(leaves: &[Leaf]) -> Facts<'static> {
    let one = || -> Box<dyn Val> { Box::new(CelString::from("x")) };
    let values = leaves
        .iter()
        .map(|leaf| {
            let name = leaf.name();
            let value: Box<dyn Val> = match Leaf::named(&name).map(|(_, kind)| kind) {
                Some(Kind::Bool) => Box::new(CelBool::from(true)),
                Some(Kind::Number) => Box::new(CelInt::from(1)),
                Some(Kind::List) => Box::new(CelList::from(vec![one()])),
                Some(Kind::Map) => Box::new(CelMap::from(HashMap::new())),
                Some(Kind::Text) | None => one(),
            };
            (name, value)
        })
        .collect();
    Facts { values }
}

impl VariableResolver for Facts<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        self.values
            .iter()
            .find(|(name, _)| name == variable)
            .map(|(_, value)| CowVal::Borrowed(&**value))
    }
}
