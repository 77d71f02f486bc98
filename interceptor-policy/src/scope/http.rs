//! What of an HTTP exchange has to be looked at, told from its head.

use super::Scope;
use crate::operation::http::{HttpBody, HttpRequest};
use crate::{HttpOperation, Moment, Operation, Standing, Verdict};

/// What rules that may still apply to a request ask for beside its head. What
/// none of them asks for need not be read, and can be streamed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpNeeds {
    /// The request's body, before the request is judged.
    pub request_body: bool,
    /// The response's head, to be judged before it is passed on.
    pub response_head: bool,
    /// The response's body, decoded: rules that may apply mask in it. What they
    /// mask the judgements say.
    pub response_body: bool,
    /// The messages of the WebSocket that it opens, each to be judged.
    pub messages: bool,
}

impl Scope {
    /// What has to be looked at of an exchange whose request has this head, the
    /// body [`HttpBody::Unread`] where there is one.
    ///
    /// Whoever judges the request before it has a body that is asked for gets a
    /// block: a rule that cannot be evaluated counts as one.
    #[must_use]
    pub fn http_needs(&self, request: &HttpRequest) -> HttpNeeds {
        let mut needs = HttpNeeds::default();
        let unread = request.body == HttpBody::Unread;
        let asked = self.inner.rules.index().of_request(request);
        let scoped = asked.iter().filter_map(|index| self.scoped(index));
        for scoped in scoped.filter(|scoped| scoped.may_apply_later(request)) {
            let asks = scoped.rule.http;
            let reads = unread && scoped.reads_body(request);
            needs.request_body |= reads;
            needs.response_head |= asks.response;
            needs.messages |= asks.body && !asks.response && request.websocket;
            needs.response_body |= scoped
                .rule
                .masks
                .iter()
                .any(|mask| mask.is_of_response_body());
        }
        needs
    }

    /// Whether a request can be refused by its head alone, whatever its body
    /// says: nothing is remembered of it, so that it is to be judged then.
    #[must_use]
    pub fn refuses_early(&self, request: &HttpRequest, standing: &Standing, now: Moment) -> bool {
        let operation = Operation::Http(HttpOperation {
            request,
            response: None,
            message: None,
        });
        let judged = self.preview_at(&operation, standing, now, true);
        matches!(judged.verdict, Verdict::Block(_) | Verdict::Kill(_))
    }
}
