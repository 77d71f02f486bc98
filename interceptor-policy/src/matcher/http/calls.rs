//! Calls that an HTTP request carries: gRPC, GraphQL, the Model Context Protocol.
//!
//! Each asks for a call of its kind to be there, so that a rule about tools says
//! nothing of other requests, however its fields are negated.

use crate::matcher::text::Text;
use crate::matcher::{Matcher, Mode};
use crate::operation::http::{GraphQlOperation, GrpcCall, McpMessage};

use super::body::BodyMatch;
use super::compare;

/// `grpc`
#[derive(Debug, Default)]
pub(crate) struct GrpcMatch {
    pub(crate) service: Option<Matcher<Text>>,
    pub(crate) method: Option<Matcher<Text>>,
}

/// `graphql`
#[derive(Debug, Default)]
pub(crate) struct GraphQlMatch {
    pub(crate) operation: Option<Matcher<Text>>,
    pub(crate) fields: Option<Matcher<Text>>,
}

/// `mcp`
#[derive(Debug, Default)]
pub(crate) struct McpMatch {
    pub(crate) method: Option<Matcher<Text>>,
    pub(crate) tool: Option<Matcher<Text>>,
    pub(crate) arguments: Option<BodyMatch>,
}

/// What kinds of operations GraphQL has.
const KINDS: [&str; 3] = ["query", "mutation", "subscription"];

impl GrpcMatch {
    pub(crate) fn holds(&self, mode: Mode, call: &GrpcCall) -> bool {
        one(&self.service, mode, &call.service) && one(&self.method, mode, &call.method)
    }
}

fn one(matcher: &Option<Matcher<Text>>, mode: Mode, is: &str) -> bool {
    matcher
        .as_ref()
        .is_none_or(|matcher| matcher.holds(mode, &|text, mode| compare(text, is, mode)))
}

/// One of several is enough to be stricter, and all are needed to be milder.
fn among<T>(mode: Mode, all: &[T], holds: impl Fn(&T) -> bool) -> bool {
    match mode {
        Mode::May => all.iter().any(holds),
        Mode::Must => !all.is_empty() && all.iter().all(holds),
    }
}

impl GraphQlMatch {
    pub(crate) fn holds(&self, mode: Mode, operations: &[GraphQlOperation]) -> bool {
        among(mode, operations, |operation| {
            let named = |text: &Text, mode: Mode| {
                // A client names its operations as it likes, `query` included.
                let kind = text.exact_text().is_some_and(|text| KINDS.contains(&text));
                let name = operation.name.as_deref().filter(|_| !kind);
                compare(text, &operation.kind, mode)
                    || name.is_some_and(|name| compare(text, name, mode))
            };
            let says = self.operation.as_ref();
            let fields = self.fields.as_ref();
            says.is_none_or(|matcher| matcher.holds(mode, &named))
                && fields.is_none_or(|matcher| {
                    matcher.holds_among(mode, &operation.fields, |text, field, mode| {
                        compare(text, field, mode)
                    })
                })
        })
    }
}

impl McpMatch {
    pub(crate) fn holds(&self, mode: Mode, messages: &[McpMessage]) -> bool {
        among(mode, messages, |message| {
            let tool = self.tool.as_ref();
            let arguments = self.arguments.as_ref();
            one(&self.method, mode, &message.method)
                && tool.is_none_or(|matcher| {
                    matcher.holds_among(mode, &message.tool, |text, tool, mode| {
                        compare(text, tool, mode)
                    })
                })
                && arguments
                    .is_none_or(|of| !message.tool.is_empty() && of.of(mode, &message.arguments))
        })
    }
}
