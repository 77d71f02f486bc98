//! What is hidden, and how.

use interceptor_policy::operation::http::HttpRequest;
use interceptor_policy::{Detector, Direction, HttpOperation, Masks, Transform};

use super::*;

fn masks(rules: &Arc<RuleSet>, statement: Say) -> Arc<Masks> {
    let judged = decide(rules, &allowing(), statement);
    assert_eq!(word(&judged), "allow");
    judged.masks.unwrap()
}

fn masking(entries: &[&str]) -> Arc<RuleSet> {
    let mut yaml = "rules:\n".to_owned();
    for (index, entry) in entries.iter().enumerate() {
        yaml.push_str(&format!(
            "  - {{ name: m{index}, match: {{}}, mask: [{entry}] }}\n"
        ));
    }
    rules(&yaml)
}

#[test]
fn a_column_is_hidden_by_the_table_and_name_it_comes_from() {
    let rules = masking(&["{ columns: [users.ssn, '*.*.password*'], with: redact }"]);
    let masks = masks(&rules, select());
    for hidden in [
        "public.users.ssn",
        "users.ssn",
        "ssn",
        "a.b.password_hash",
        "password",
    ] {
        assert_eq!(
            masks.column(&column(hidden)),
            Some(&Transform::Redact),
            "{hidden}"
        );
    }
    for shown in ["orders.ssn", "users.name", "name"] {
        assert_eq!(masks.column(&column(shown)), None, "{shown}");
    }
    assert!(masks.has_columns() && !masks.has_detectors());
}

#[test]
fn whatever_may_be_a_hidden_column_is_hidden() {
    let rules = masking(&["{ columns: [hr.people.ssn], with: redact }"]);
    let masks = masks(&rules, select());
    for unsure in ["people.ssn", "ssn", "people.SSN", "hr.people.*", "*"] {
        assert!(masks.column(&column(unsure)).is_some(), "{unsure}");
    }
    assert!(masks.column(&column("crm.people.ssn")).is_none());
}

#[test]
fn a_table_is_touched_when_any_of_its_columns_could_be_hidden() {
    let rules = masking(&["{ columns: [hr.people.ssn], with: redact }"]);
    let masks = masks(&rules, select());
    assert!(masks.touches(&table("hr.people")) && masks.touches(&table("people")));
    assert!(!masks.touches(&table("orders")) && !masks.touches(&table("crm.people")));
    let anywhere = masking(&["{ columns: ['*.ssn'], with: redact }"]);
    assert!(super::masks::masks(&anywhere, select()).touches(&table("orders")));
}

#[test]
fn masks_of_all_rules_are_united_and_the_strictest_of_a_column_wins() {
    for (mild, strict, name) in [
        ("partial", "hash", "hash"),
        ("hash", "redact", "redact"),
        ("partial", "redact", "redact"),
        ("hash", "{ constant: x }", "constant"),
        ("{ constant: x }", "'null'", "null"),
        ("null", "redact", "redact"),
        (
            "{ partial: { keep_last: 4 } }",
            "{ partial: { keep_last: 2 } }",
            "partial",
        ),
    ] {
        for order in [[mild, strict], [strict, mild]] {
            let entries = order.map(|with| format!("{{ columns: '*.ssn', with: {with} }}"));
            let both = masks(&masking(&[&entries[0], &entries[1]]), select());
            let one = masks(
                &masking(&[&format!("{{ columns: '*.ssn', with: {strict} }}")]),
                select(),
            );
            let got = both.column(&column("users.ssn")).unwrap();
            assert_eq!(got.name(), name);
            assert_eq!(Some(got), one.column(&column("users.ssn")), "{order:?}");
        }
    }
    let united = masks(
        &masking(&[
            "{ columns: users.ssn, with: redact }",
            "{ columns: users.name, with: hash }",
            "{ detect: email, with: hash }",
        ]),
        select(),
    );
    assert!(united.column(&column("users.ssn")).is_some());
    assert!(united.column(&column("users.name")).is_some());
    assert!(united.has_detectors());
}

#[test]
fn the_strictest_transform_of_a_detector_wins() {
    let masks = masks(
        &masking(&[
            "{ detect: [email, jwt], with: redact }",
            "{ detect: [email, us_ssn], with: hash }",
        ]),
        select(),
    );
    let plan = masks.detect().unwrap();
    assert_eq!(plan.transform(Detector::Email), Some(&Transform::Redact));
    assert_eq!(plan.transform(Detector::UsSsn), Some(&Transform::Hash));
    assert_eq!(plan.transform(Detector::CreditCard), None);
}

#[test]
fn an_operators_pattern_hides_what_it_matches_with_the_strictest_transform() {
    let masks = masks(
        &masking(&[
            r"{ pattern: 'EMP-\d{6}', with: hash }",
            r"{ pattern: ['EMP-\d{6}', 'CASE-[A-Z]+'], with: redact }",
        ]),
        select(),
    );
    let plan = masks.detect().unwrap();
    let hits = plan.scan(b"EMP-123456 of CASE-X");
    let names: Vec<_> = hits.iter().map(|hit| hit.looks.name()).collect();
    assert_eq!(names, [r"EMP-\d{6}", "CASE-[A-Z]+"]);
    assert!(hits.iter().all(|hit| hit.transform == &Transform::Redact));
}

#[test]
fn only_rules_that_apply_mask_and_other_rules_give_no_masks() {
    let rules = rules(
        "rules:
  - { name: users, match: { postgres: { tables: users } }, mask: [{ columns: '*.ssn', with: redact }] }
  - { name: orders, match: { postgres: { tables: orders } }, mask: [{ columns: '*.total', with: hash }] }
",
    );
    let of_users = masks(&rules, select().table("public.users"));
    assert!(of_users.column(&column("users.ssn")).is_some());
    assert!(of_users.column(&column("orders.total")).is_none());
    let other = decide(&rules, &allowing(), select().table("public.carts"));
    assert!(other.masks.is_none());
}

#[test]
fn masks_of_several_statements_of_a_message_are_united() {
    let rules = rules(
        "rules:
  - { name: users, match: { postgres: { tables: users } }, mask: [{ columns: '*.ssn', with: redact }] }
  - { name: orders, match: { postgres: { tables: orders } }, mask: [{ columns: '*.total', with: hash }] }
",
    );
    let scope = rules.scope(&allowing());
    let both = [
        select().table("public.users"),
        select().table("public.orders"),
    ];
    let masks = decide_in(&scope, "", &both).masks.unwrap();
    assert!(masks.column(&column("users.ssn")).is_some());
    assert!(masks.column(&column("orders.total")).is_some());
}

#[test]
fn the_same_rules_share_one_set_of_masks() {
    let rules = masking(&["{ columns: '*.ssn', with: redact }"]);
    let scope = rules.scope(&allowing());
    let one = decide_in(&scope, "", &[select()]).masks.unwrap();
    let two = decide_in(&scope, "", &[select().table("x")]).masks.unwrap();
    assert!(Arc::ptr_eq(&one, &two));
}

#[test]
fn one_statements_masks_are_never_given_to_another() {
    let rules = rules(
        "rules:
  - { name: users, match: { postgres: { tables: users } }, mask: [{ columns: '*.ssn', with: redact }] }
  - { name: orders, match: { postgres: { tables: orders } }, mask: [{ columns: '*.total', with: hash }] }
",
    );
    let scope = rules.scope(&allowing());
    let of = |name| {
        decide_in(&scope, "", &[select().table(name)])
            .masks
            .unwrap()
    };
    for _ in 0..2 {
        assert!(of("public.users").column(&column("orders.total")).is_none());
        assert!(of("public.users").column(&column("users.ssn")).is_some());
        assert!(of("public.orders").column(&column("users.ssn")).is_none());
        assert!(
            of("public.orders")
                .column(&column("orders.total"))
                .is_some()
        );
    }
}

#[test]
fn what_is_refused_has_nothing_to_mask() {
    let rules = masking(&["{ columns: '*.ssn', with: redact }"]);
    assert!(decide(&rules, &subject(), select()).masks.is_none());
}

#[test]
fn a_mask_rule_allows_nothing() {
    let rules = masking(&["{ columns: '*.ssn', with: redact }"]);
    assert_eq!(word(&decide(&rules, &subject(), select())), "block");
    assert!(!rules.scope(&subject()).can_allow());
}

#[test]
fn a_list_by_name_stands_for_columns_too() {
    let rules = rules(
        "lists: { pii: [users.ssn, users.card_number] }
rules: [{ name: m, match: {}, mask: [{ columns: $pii, with: redact }, { columns: [$pii, users.iban], with: hash }] }]
",
    );
    let masks = masks(&rules, select());
    assert_eq!(
        masks.column(&column("users.card_number")),
        Some(&Transform::Redact)
    );
    assert_eq!(masks.column(&column("users.iban")), Some(&Transform::Hash));
    let written: Vec<_> = masks.columns().map(|(pattern, _)| pattern).collect();
    assert_eq!(written.len(), 5);
    assert!(written.contains(&"users.card_number"));
}

fn web_masks(entries: &[&str]) -> Arc<Masks> {
    let request = HttpRequest::default();
    let operation = Operation::Http(HttpOperation {
        request: &request,
        response: None,
        message: None,
    });
    let mut subject = allowing();
    subject.protocol = Protocol::Http;
    let judged = masking(entries).scope(&subject).decide(&operation);
    judged.masks.unwrap()
}

#[test]
fn json_and_headers_are_hidden_by_name_and_each_way_apart() {
    let masks = web_masks(&[
        "{ json: [/customer/email, '/**/iban'], with: hash }",
        "{ json: '/**/IBAN', with: redact }",
        "{ json: /customer/email, with: partial }",
        "{ header: [Set-Cookie, x-a], with: redact }",
        "{ header: x-a, with: partial }",
        "{ header: authorization, with: redact, direction: request }",
        "{ json: /password, with: redact, direction: request }",
        "{ detect: email, with: hash, direction: request }",
    ]);
    let (request, response) = (masks.of(Direction::Request), masks.of(Direction::Response));
    let root = response.json().unwrap().root();
    assert_eq!(
        root.key("customer").key("email").transform(),
        Some(&Transform::Hash)
    );
    assert_eq!(
        root.key("a").index(3).key("iban").transform(),
        Some(&Transform::Redact)
    );
    assert_eq!(root.key("customer").transform(), None);
    assert_eq!(root.key("password").transform(), None);
    assert!(!root.key("password").is_over(), "it may have an iban");
    assert_eq!(response.header("set-cookie"), Some(&Transform::Redact));
    assert_eq!(response.header("x-a"), Some(&Transform::Redact));
    assert_eq!(response.header("authorization"), None);
    assert_eq!(request.header("authorization"), Some(&Transform::Redact));
    let root = request.json().unwrap().root();
    assert_eq!(root.key("password").transform(), Some(&Transform::Redact));
    assert!(root.key("other").is_over());
    assert!(request.detect().is_some() && response.detect().is_none() && !masks.has_detectors());
}

#[test]
fn the_masks_of_a_request_and_its_response_are_united() {
    let asked = web_masks(&["{ json: /a, with: hash }", "{ detect: email, with: hash }"]);
    let answered = web_masks(&[
        "{ json: [/a, /b], with: redact }",
        "{ header: x, with: redact }",
        "{ detect: [email, jwt], with: redact }",
    ]);
    let both = Masks::united(Some(asked), Some(answered)).unwrap();
    let hidden = both.of(Direction::Response);
    let root = hidden.json().unwrap().root();
    for key in ["a", "b"] {
        assert_eq!(root.key(key).transform(), Some(&Transform::Redact));
    }
    assert!(hidden.header("x").is_some());
    let plan = hidden.detect().unwrap();
    assert_eq!(plan.transform(Detector::Email), Some(&Transform::Redact));
    assert_eq!(plan.transform(Detector::Jwt), Some(&Transform::Redact));
    assert!(Masks::united(None, None).is_none());
    assert_eq!(both.listed().len(), 5);
}
