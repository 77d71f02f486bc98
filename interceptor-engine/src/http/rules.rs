//! What the rules are asked, and when.

use interceptor_policy::operation::HttpOperation;
use interceptor_policy::operation::http::{HttpRequest, HttpResponse, WebSocketMessage};
use interceptor_policy::{Judgement, Operation};

use super::session::Shared;
use crate::event::FlowTime;

impl Shared {
    /// Judges a request, once, and remembers it.
    pub(super) fn judge(&mut self, now: FlowTime, request: &HttpRequest) -> Judgement {
        let moment = self.moment(now);
        let operation = Operation::Http(HttpOperation {
            request,
            response: None,
            message: None,
        });
        self.scope.judge(&operation, &mut self.standing, moment)
    }

    /// Whether a request is refused whatever its body says.
    pub(super) fn refuses_early(&self, now: FlowTime, request: &HttpRequest) -> bool {
        let moment = self.moment(now);
        self.scope.refuses_early(request, &self.standing, moment)
    }

    /// Asks again with the response's head.
    pub(super) fn judge_response(
        &mut self,
        now: FlowTime,
        request: &HttpRequest,
        response: &HttpResponse,
    ) -> Judgement {
        let moment = self.moment(now);
        let operation = Operation::Http(HttpOperation {
            request,
            response: Some(response),
            message: None,
        });
        self.scope.judge(&operation, &mut self.standing, moment)
    }

    /// Judges one message of a WebSocket.
    pub(super) fn judge_message(
        &mut self,
        now: FlowTime,
        request: &HttpRequest,
        message: &WebSocketMessage,
    ) -> Judgement {
        let moment = self.moment(now);
        let operation = Operation::Http(HttpOperation {
            request,
            response: None,
            message: Some(message),
        });
        self.scope.judge(&operation, &mut self.standing, moment)
    }
}
