use std::sync::Arc;

use interceptor_engine::hold::Digest;
use interceptor_policy::Approval;
use interceptor_policy::approval::{OnTimeout, Requirement};
use uuid::Uuid;

use super::*;

fn approval(mode: HoldMode) -> Approval {
    let mut approval = Approval::of(Requirement {
        rule: "asks".into(),
        from: vec!["dba".into()],
        quorum: 1,
    });
    approval.mode = mode;
    approval
}

fn question(exchange: u64, approval: Approval) -> Question {
    Question {
        id: format!("{}-{exchange}", Uuid::nil()),
        session: Uuid::nil(),
        exchange,
        approval: Arc::new(approval),
        rule: "asks".into(),
        message: "Ask first.".into(),
        digest: Digest([7; 32]),
        text: "DROP TABLE orders".into(),
        parameters: None,
        meta: Arc::default(),
    }
}

fn asker() -> Asker {
    Asker {
        context: Context {
            agent: "bot".into(),
            uid: 1000,
            principal: Arc::default(),
            process: Arc::default(),
            target: "db".into(),
            origin: "127.0.0.1:5432".into(),
            host: "here".into(),
            protocol: "postgres",
        },
        cancelled: Arc::default(),
    }
}

fn says(by: &str, approves: bool) -> Answer {
    Answer {
        by: by.into(),
        uid: Some(1001),
        groups: vec!["dba".into()],
        approves,
        reason: None,
    }
}

fn desk() -> Desk {
    Desk::new(Mirror::nowhere())
}

#[tokio::test]
async fn an_answer_reaches_the_flow_that_waits_and_closes_the_question() {
    let desk = desk();
    let asking = desk.ask(&question(1, approval(HoldMode::Wait)), asker());
    assert_eq!(desk.list().len(), 1);
    let facts = desk.answer("0000-1", None, says("ann", true)).unwrap();
    assert_eq!(facts.state, State::Spent);
    assert!(matches!(asking.await, Decision::Approved { by, .. } if by == "ann"));
    assert!(desk.list().is_empty());
    assert_eq!(desk.show("0000-1").unwrap().answers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_s_answer_is_a_no_unless_the_rules_say_otherwise() {
    let desk = desk();
    let asking = desk.ask(&question(1, approval(HoldMode::Wait)), asker());
    assert!(matches!(asking.await, Decision::TimedOut));
    let mut lenient = approval(HoldMode::Wait);
    lenient.on_timeout = OnTimeout::Allow;
    let asking = desk.ask(&question(2, lenient), asker());
    assert!(matches!(asking.await, Decision::Approved { .. }));
}

#[tokio::test]
async fn an_agent_that_goes_away_takes_its_question_with_it() {
    let desk = desk();
    let asking = desk.ask(&question(1, approval(HoldMode::Wait)), asker());
    drop(asking);
    assert!(desk.list().is_empty());
    assert_eq!(desk.show("0000-1").unwrap().state, State::Withdrawn);
}

#[tokio::test]
async fn an_agent_can_take_its_question_back() {
    let desk = desk();
    let asker = asker();
    let cancelled = Arc::clone(&asker.cancelled);
    let asking = desk.ask(&question(1, approval(HoldMode::Wait)), asker);
    let waits = tokio::spawn(asking);
    tokio::task::yield_now().await;
    cancelled.notify_waiters();
    assert!(matches!(waits.await.unwrap(), Decision::Cancelled));
    assert!(desk.list().is_empty());
}

#[tokio::test]
async fn a_ticket_lets_the_very_same_pass_once() {
    let desk = desk();
    let asks = |exchange| desk.ask(&question(exchange, approval(HoldMode::Ticket)), asker());
    let Decision::Ticket(ticket) = asks(1).await else {
        panic!("no ticket");
    };
    assert!(matches!(asks(2).await, Decision::Ticket(same) if same == ticket));
    desk.answer(&ticket, None, says("ann", true)).unwrap();
    assert!(matches!(asks(3).await, Decision::Approved { .. }));
    assert!(matches!(asks(4).await, Decision::Ticket(next) if next != ticket));
}

#[tokio::test]
async fn a_ticket_is_for_the_very_same_and_nothing_else() {
    let desk = desk();
    let first = question(1, approval(HoldMode::Ticket));
    let Decision::Ticket(ticket) = desk.ask(&first, asker()).await else {
        panic!("no ticket");
    };
    desk.answer(&ticket, None, says("ann", true)).unwrap();
    let other = Question {
        digest: Digest([8; 32]),
        ..question(2, approval(HoldMode::Ticket))
    };
    assert!(matches!(
        desk.ask(&other, asker()).await,
        Decision::Ticket(_)
    ));
}

#[tokio::test]
async fn a_denied_ticket_stays_denied_for_its_time() {
    let desk = desk();
    let asks = |exchange| desk.ask(&question(exchange, approval(HoldMode::Ticket)), asker());
    let Decision::Ticket(ticket) = asks(1).await else {
        panic!("no ticket");
    };
    desk.answer(&ticket, None, says("ann", false)).unwrap();
    assert!(matches!(asks(2).await, Decision::Denied { by, .. } if by == "ann"));
}

#[tokio::test]
async fn an_answer_to_other_bytes_or_by_who_is_not_asked_is_not_taken() {
    let desk = desk();
    let _asking = desk.ask(&question(1, approval(HoldMode::Wait)), asker());
    assert!(matches!(
        desk.answer("0000-1", Some("ff"), says("ann", true)),
        Err(Refused::OtherDigest)
    ));
    let stranger = Answer {
        groups: Vec::new(),
        ..says("eve", true)
    };
    assert!(matches!(
        desk.answer("0000-1", None, stranger),
        Err(Refused::Uncounted(_))
    ));
    let own = Answer {
        uid: Some(1000),
        ..says("bot", true)
    };
    assert!(matches!(
        desk.answer("0000-1", None, own),
        Err(Refused::Uncounted(_))
    ));
    assert!(matches!(
        desk.answer("zzzz", None, says("ann", true)),
        Err(Refused::Unknown(_))
    ));
    assert_eq!(desk.list().len(), 1);
}

#[tokio::test]
async fn what_was_open_when_the_daemon_ended_is_a_ticket_for_the_next() {
    let before = desk();
    let asking = before.ask(&question(1, approval(HoldMode::Wait)), asker());
    before.end();
    drop(asking);
    let left = before.list();
    assert_eq!(left.len(), 1);

    let after = desk();
    after.restore(left);
    after.answer("0000-1", None, says("ann", true)).unwrap();
    let again = after.ask(&question(9, approval(HoldMode::Wait)), asker());
    assert!(matches!(again.await, Decision::Approved { .. }));
}

#[tokio::test]
async fn there_is_a_bound_to_an_agents_tickets() {
    let desk = desk();
    for exchange in 0..TICKETS_LIMIT {
        let mut one = question(exchange as u64, approval(HoldMode::Ticket));
        one.digest = Digest([exchange as u8; 32]);
        assert!(matches!(desk.ask(&one, asker()).await, Decision::Ticket(_)));
    }
    let mut more = question(1000, approval(HoldMode::Ticket));
    more.digest = Digest([255; 32]);
    assert!(matches!(
        desk.ask(&more, asker()).await,
        Decision::Unasked(_)
    ));
}
