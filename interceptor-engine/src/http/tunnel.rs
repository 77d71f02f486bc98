//! What comes behind a change of protocol: a WebSocket, whose messages are read,
//! or bytes that nobody reads, where that may be.

use ::http::response;
use bytes::Bytes;
use interceptor_policy::mask::Direction;
use interceptor_policy::operation::http::{HttpBody, Json, WebSocketMessage};
use interceptor_policy::{RecordLevel, Refusal, Verdict};
use interceptor_proto::http::websocket::{self as wire, Opcode};
use serde_json::json;

use super::answer::Reason;
use super::deflate::{self, Way};
use super::exchange::{Answering, Exchange};
use super::masking;
use super::outbox::{Act, Failure, Outbox};
use super::session::Shared;
use super::stream::Parts;
use super::websocket::{Read, Reader};
use crate::event::{FlowTime, Kind, Sealed};
use crate::pg::mask::mask_text;
use crate::session::{End, Side};

/// Another protocol.
#[derive(Debug)]
pub(super) struct Tunnel {
    bytes: [u64; 2],
    ended: [bool; 2],
    inside: Inside,
}

#[derive(Debug)]
enum Inside {
    /// Bytes that nobody reads.
    Unread([Parts; 2]),
    /// A WebSocket.
    Socket {
        readers: Box<[Reader; 2]>,
        messages: u64,
        /// How each side compresses, where that was agreed on.
        deflate: Option<[Way; 2]>,
        /// A message of this side was changed, so that what its later ones refer to
        /// is not what the other side has: they are written anew as well.
        parted: [bool; 2],
    },
}

const fn index(from: Side) -> usize {
    match from {
        Side::Downstream => 0,
        Side::Upstream => 1,
    }
}

const fn other(side: Side) -> Side {
    match side {
        Side::Downstream => Side::Upstream,
        Side::Upstream => Side::Downstream,
    }
}

/// With what a frame of ours to this side is masked: clients do, and ours need
/// not be a secret, since what is in it was not chosen to look like anything else
/// (RFC 6455, section 10.3).
fn own_mask(to: Side) -> Option<[u8; 4]> {
    (to == Side::Upstream).then_some([0x49, 0x6e, 0x74, 0x63])
}

impl Exchange {
    /// The service agreed to change the protocol.
    pub(super) fn switch(
        &mut self,
        now: FlowTime,
        head: response::Parts,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let websocket = self.request.websocket && self.method == ::http::Method::GET;
        let tunnel = self.method == ::http::Method::CONNECT && shared.uninspected;
        if !websocket && !tunnel {
            let why = "the service changed the protocol to one that nobody reads here";
            let reason = Reason::Unavailable(why.into());
            return self.break_off(now, &reason, shared, out);
        }
        let deflate = if websocket {
            match deflate::agreed(&head.headers, self.offers_deflate) {
                Ok(agreed) => agreed,
                Err(why) => {
                    let failure = Failure::Broken(why.to_owned());
                    return self.upstream_failed(now, &failure, shared, out);
                }
            }
        } else {
            None
        };
        let bounds = shared.bounds;
        let inside = if websocket {
            let [agents, services] = deflate.map_or([None; 2], |ways| ways.map(Some));
            Inside::Socket {
                readers: Box::new([
                    Reader::new(true, bounds.message, agents),
                    Reader::new(false, bounds.message, services),
                ]),
                messages: 0,
                deflate,
                parted: [false; 2],
            }
        } else {
            Inside::Unread([Parts::new(bounds.part), Parts::new(bounds.part)])
        };
        self.answering = Answering::Tunnel(Box::new(Tunnel {
            bytes: [0; 2],
            ended: [false; 2],
            inside,
        }));
        out.acts.push(Act::Response {
            head: Box::new(head),
            ended: false,
        });
        out.acts.push(Act::Tunnel { websocket });
    }

    pub(super) fn tunnel_data(
        &mut self,
        now: FlowTime,
        from: Side,
        data: Bytes,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let record = self.record;
        let number = self.number;
        let Answering::Tunnel(tunnel) = &mut self.answering else {
            return;
        };
        if let Some(bytes) = tunnel.bytes.get_mut(index(from)) {
            *bytes += data.len() as u64;
        }
        match &mut tunnel.inside {
            Inside::Unread(parts) => {
                if record == RecordLevel::Full
                    && let Some(parts) = parts.get_mut(index(from))
                {
                    parts.buffer.extend_from_slice(&data);
                    while let Some((part, bytes)) = parts.full() {
                        record_bytes(now, number, from, part, bytes, shared, out);
                    }
                }
                out.acts.push(Act::TunnelData(other(from), data));
            }
            Inside::Socket { readers, .. } => {
                let mut read = Vec::new();
                let done = match readers.get_mut(index(from)) {
                    Some(reader) => reader.push(&data, &mut read),
                    None => Ok(()),
                };
                for one in read {
                    self.socket(now, from, one, shared, out);
                    if !matches!(self.answering, Answering::Tunnel(_)) {
                        return;
                    }
                }
                if let Err(error) = done {
                    let message = error.to_string();
                    let reason = Reason::Malformed(400, message.as_str().into());
                    self.record_failure(now, &reason, shared, out);
                    self.close_socket(now, error.status(), &message, shared, out);
                }
            }
        }
    }

    /// One thing that a side of a WebSocket said.
    fn socket(
        &mut self,
        now: FlowTime,
        from: Side,
        read: Read,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let (text, compressed, payload, raw) = match read {
            Read::Control { raw, .. } | Read::Rest(raw) => {
                out.acts.push(Act::TunnelData(other(from), raw.into()));
                return;
            }
            Read::Message {
                text,
                compressed,
                payload,
                raw,
            } => (text, compressed, Some(payload), raw),
            Read::Long {
                text,
                compressed,
                raw,
            } => (text, compressed, None, raw),
        };
        let message = WebSocketMessage {
            from_agent: from == Side::Downstream,
            body: match &payload {
                None => HttpBody::Unreadable("it is longer than is looked at"),
                Some(payload) if payload.is_empty() => HttpBody::Absent,
                Some(payload) => match Json::parse(payload) {
                    Some(document) => HttpBody::Json(vec![document]),
                    None => HttpBody::Bytes(payload.as_slice().into()),
                },
            },
        };
        if self.needs.messages
            && let Some(refusal) = self.refused_message(now, &message, shared, out)
        {
            return self.close_socket(now, wire::POLICY_VIOLATION, &refusal.message, shared, out);
        }
        let direction = match from {
            Side::Downstream => Direction::Request,
            Side::Upstream => Direction::Response,
        };
        let masks = self
            .masks
            .clone()
            .filter(|masks| masks.of(direction).has_body());
        let Some(payload) = payload else {
            if text && masks.is_some() {
                let refusal = Refusal {
                    rule: None,
                    message: "something may have to be hidden in a message that is too long".into(),
                };
                self.record_refusal(now, "block", &refusal, shared, out);
                let why = &refusal.message;
                return self.close_socket(now, wire::POLICY_VIOLATION, why, shared, out);
            }
            if compressed && self.has_parted(from) {
                let why = "a compressed message behind one that was changed is too long";
                let reason = Reason::Malformed(400, why.into());
                self.record_failure(now, &reason, shared, out);
                return self.close_socket(now, wire::TOO_BIG, why, shared, out);
            }
            self.record_message(now, from, text, (&raw, &raw), true, shared, out);
            out.acts.push(Act::TunnelData(other(from), raw.into()));
            return;
        };
        let masked =
            masks.and_then(|masks| masking::message(&masks, direction, &payload, &shared.key));
        let seen = masked.as_ref().map_or(&payload, |(masked, _)| masked);
        self.record_message(now, from, text, (seen, &payload), false, shared, out);
        let anew = match &masked {
            Some((masked, hidden)) => {
                self.masked += hidden;
                Some(masked)
            }
            None if compressed && self.has_parted(from) => Some(&payload),
            None => None,
        };
        let bytes = match anew {
            None => raw,
            Some(payload) => self.frame_anew(from, text, compressed, payload),
        };
        out.acts.push(Act::TunnelData(other(from), bytes.into()));
    }

    fn has_parted(&self, from: Side) -> bool {
        match &self.answering {
            Answering::Tunnel(tunnel) => match &tunnel.inside {
                Inside::Socket { parted, .. } => parted.get(index(from)).is_some_and(|one| *one),
                Inside::Unread(_) => false,
            },
            _ => false,
        }
    }

    /// A message of ours in the place of one from this side, compressed where that
    /// one was and the agreement lets us.
    fn frame_anew(&mut self, from: Side, text: bool, compressed: bool, payload: &[u8]) -> Vec<u8> {
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        let mask = own_mask(other(from));
        let mut frame = Vec::with_capacity(payload.len() + wire::HEAD_LIMIT);
        let mut way = None;
        if let Answering::Tunnel(tunnel) = &mut self.answering
            && let Inside::Socket {
                deflate, parted, ..
            } = &mut tunnel.inside
            && compressed
        {
            way = deflate.and_then(|ways| ways.get(index(from)).copied());
            if let (Some(way), Some(parted)) = (way, parted.get_mut(index(from))) {
                *parted |= way.takeover;
            }
        }
        match way.and_then(|way| way.deflated(payload)) {
            Some(deflated) => wire::encode_compressed(opcode, &deflated, mask, &mut frame),
            // Any message may be sent as it is (RFC 7692, section 6).
            None => wire::encode(opcode, payload, mask, &mut frame),
        }
        frame
    }

    /// Asks the rules about a message; why it is refused, where it is.
    fn refused_message(
        &mut self,
        now: FlowTime,
        message: &WebSocketMessage,
        shared: &mut Shared,
        out: &mut Outbox,
    ) -> Option<Refusal> {
        let judgement = shared.judge_message(now, &self.request, message);
        self.masks = interceptor_policy::Masks::united(self.masks.take(), judgement.masks);
        self.severity = self.severity.max(judgement.severity);
        match judgement.verdict {
            Verdict::Allow(permit) => {
                drop(permit);
                None
            }
            Verdict::Hold(hold) => {
                let refusal = Refusal {
                    rule: hold.reason.rule.clone(),
                    message: format!(
                        "{} (a message of a WebSocket cannot wait for a person)",
                        hold.reason.message
                    )
                    .into(),
                };
                self.record_refusal(now, "block", &refusal, shared, out);
                Some(refusal)
            }
            Verdict::Block(refusal) => {
                self.record_refusal(now, "block", &refusal, shared, out);
                Some(refusal)
            }
            Verdict::Kill(refusal) => {
                self.record_refusal(now, "kill", &refusal, shared, out);
                shared.totals.killed = true;
                shared.over = Some(std::sync::Arc::clone(&refusal.message));
                out.end = Some(End::Refused(refusal.message.to_string()));
                Some(refusal)
            }
        }
    }

    /// Closes a WebSocket to both sides.
    fn close_socket(
        &mut self,
        now: FlowTime,
        status: u16,
        why: &str,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Answering::Tunnel(tunnel) = std::mem::replace(&mut self.answering, Answering::Over)
        else {
            return;
        };
        for side in [Side::Downstream, Side::Upstream] {
            let mut frame = Vec::new();
            wire::encode_close(status, why, own_mask(side), &mut frame);
            out.acts.push(Act::TunnelData(side, frame.into()));
            out.acts.push(Act::TunnelEnd(side));
        }
        self.end_tunnel(now, *tunnel, why, shared, out);
    }

    /// Puts a message on record, as it goes on; `came` is the same as it came.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    fn record_message(
        &mut self,
        now: FlowTime,
        from: Side,
        text: bool,
        (payload, came): (&[u8], &[u8]),
        long: bool,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Answering::Tunnel(tunnel) = &mut self.answering else {
            return;
        };
        let Inside::Socket { messages, .. } = &mut tunnel.inside else {
            return;
        };
        *messages += 1;
        let count = *messages;
        if self.record < RecordLevel::Full {
            return;
        }
        let (kind, whose) = match from {
            Side::Downstream => (Kind::Input, "the agent"),
            Side::Upstream => (Kind::Output, "the service"),
        };
        let what = if text { "text" } else { "binary" };
        let line = if long {
            format!("message {count}, from {whose}: too long to be kept")
        } else {
            format!("message {count}, from {whose}: {} bytes", payload.len())
        };
        let meta = json!({"websocket": what, "message": count, "long": long});
        let event = shared.journal.event(now, kind, Some(self.number), line);
        let recorded = self
            .masks
            .as_deref()
            .filter(|_| from == Side::Downstream)
            .and_then(|masks| mask_text(masks, payload, &shared.key));
        let data = match recorded {
            _ if long => Vec::new(),
            Some(masked) => masked,
            None => payload.to_vec(),
        };
        let sealed = if shared.journal.seals() && !long && data != came {
            Sealed::data(came.to_vec())
        } else {
            Sealed::Nothing
        };
        let event = event.with_data(data).with_sealed(sealed);
        out.events.push(event.with_meta(meta.to_string()));
    }

    pub(super) fn tunnel_end(
        &mut self,
        now: FlowTime,
        from: Side,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        let Answering::Tunnel(tunnel) = &mut self.answering else {
            return;
        };
        out.acts.push(Act::TunnelEnd(other(from)));
        if let Some(ended) = tunnel.ended.get_mut(index(from)) {
            *ended = true;
        }
        if tunnel.ended == [true; 2]
            && let Answering::Tunnel(tunnel) =
                std::mem::replace(&mut self.answering, Answering::Over)
        {
            self.end_tunnel(now, *tunnel, "both sides closed", shared, out);
        }
    }

    /// Puts on record what there is of a tunnel.
    pub(super) fn end_tunnel(
        &mut self,
        now: FlowTime,
        tunnel: Tunnel,
        why: &str,
        shared: &mut Shared,
        out: &mut Outbox,
    ) {
        self.answering = Answering::Over;
        self.asking = super::asking::Asking::Done;
        let [up, down] = tunnel.bytes;
        let line = match tunnel.inside {
            Inside::Unread(parts) => {
                for (side, mut parts) in [Side::Downstream, Side::Upstream].into_iter().zip(parts) {
                    if let Some((part, bytes)) = parts.rest() {
                        record_bytes(now, self.number, side, part, bytes, shared, out);
                    }
                }
                format!("{why}: {up} bytes up, {down} bytes down, none of them read")
            }
            Inside::Socket { messages, .. } => {
                format!("{why}: {messages} messages, {up} bytes up, {down} bytes down")
            }
        };
        self.record_note(now, &line, shared, out);
        self.record_result(
            now,
            down,
            (0, None, Sealed::Nothing),
            None,
            false,
            shared,
            out,
        );
    }
}

fn record_bytes(
    now: FlowTime,
    exchange: u64,
    from: Side,
    part: u32,
    bytes: Vec<u8>,
    shared: &mut Shared,
    out: &mut Outbox,
) {
    let (kind, whose) = match from {
        Side::Downstream => (Kind::Input, "the agent"),
        Side::Upstream => (Kind::Output, "the service"),
    };
    let line = format!("{} bytes from {whose}", bytes.len());
    let event = shared.journal.event(now, kind, Some(exchange), line);
    let meta = json!({"part": part, "tunnel": true});
    out.events
        .push(event.with_data(bytes).with_meta(meta.to_string()));
}
