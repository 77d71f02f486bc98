//! What a match holds for, field by field.

use interceptor_policy::Subject;

use super::*;

fn session_holds(match_: &str) -> bool {
    holds(match_, select())
}

/// A session field: one value that holds, one that does not.
fn session_field(yes: &str, no: &str) {
    assert!(session_holds(yes), "{yes}");
    assert!(!session_holds(no), "{no}");
}

#[test]
fn principal_agent_is_a_glob() {
    session_field(
        "{ principal: { agent: 'deploy-*' } }",
        "{ principal: { agent: 'test-*' } }",
    );
}

#[test]
fn principal_user_is_the_login_name() {
    session_field(
        "{ principal: { user: coder } }",
        "{ principal: { user: root } }",
    );
}

#[test]
fn principal_uid_is_a_number_or_over_one() {
    session_field(
        "{ principal: { uid: [7, 1000] } }",
        "{ principal: { uid: 0 } }",
    );
    session_field(
        "{ principal: { uid: { over: 999 } } }",
        "{ principal: { uid: { over: 1000 } } }",
    );
}

#[test]
fn principal_group_is_a_name() {
    session_field(
        "{ principal: { group: staff } }",
        "{ principal: { group: wheel } }",
    );
}

#[test]
fn principal_exe_is_a_path_whose_star_stops_at_a_slash() {
    session_field(
        "{ principal: { exe: '/usr/bin/*' } }",
        "{ principal: { exe: '/usr/*' } }",
    );
    session_field(
        "{ principal: { exe: '/usr/**' } }",
        "{ principal: { exe: '/opt/**' } }",
    );
}

#[test]
fn principal_command_line_is_a_glob() {
    session_field(
        "{ principal: { command_line: 'psql * orders' } }",
        "{ principal: { command_line: 'psql' } }",
    );
}

#[test]
fn principal_cgroup_is_a_path() {
    session_field(
        "{ principal: { cgroup: 'interceptor/**' } }",
        "{ principal: { cgroup: 'interceptor/*' } }",
    );
}

#[test]
fn principal_unit_is_a_name() {
    session_field(
        "{ principal: { unit: '*.service' } }",
        "{ principal: { unit: '*.scope' } }",
    );
}

#[test]
fn principal_container_that_is_not_there_matches_nothing() {
    assert!(!blocks("{ principal: { container: '*' } }", select()));
    assert!(!allows("{ principal: { container: '*' } }", select()));
}

#[test]
fn that_a_missing_fact_is_not_something_serves_only_stricter_rules() {
    let match_ = "{ principal: { container: { not: web } } }";
    assert!(blocks(match_, select()));
    assert!(!allows(match_, select()));
}

#[test]
fn principal_labels_are_named_one_by_one() {
    session_field(
        "{ principal: { labels: { team: plat* } } }",
        "{ principal: { labels: { team: sales } } }",
    );
    session_field(
        "{ principal: { labels.team: platform } }",
        "{ principal: { labels.stage: platform } }",
    );
}

#[test]
fn target_name_is_a_glob() {
    session_field(
        "{ target: { name: '*-db' } }",
        "{ target: { name: billing-db } }",
    );
}

#[test]
fn target_host_has_no_case() {
    session_field(
        "{ target: { host: '*.INTERNAL' } }",
        "{ target: { host: '*.example.com' } }",
    );
}

#[test]
fn target_address_is_a_network_or_an_address() {
    session_field(
        "{ target: { address: 10.0.0.0/8 } }",
        "{ target: { address: [192.168.0.0/16, 'fd00::/8'] } }",
    );
    session_field(
        "{ target: { address: 10.0.0.7 } }",
        "{ target: { address: { not: 10.0.0.7 } } }",
    );
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_the_same_address() {
    let mut subject = allowing();
    subject.target.address = "::ffff:10.0.0.7".parse().ok();
    let rules = rule("match: { target: { address: 10.0.0.0/8 } }, verdict: block");
    assert_eq!(word(&decide(&rules, &subject, select())), "block");
}

#[test]
fn of_an_address_that_is_not_known_the_strictest_is_taken() {
    let mut subject = allowing();
    subject.target.address = None;
    for address in ["10.0.0.0/8", "{ not: 10.0.0.0/8 }"] {
        let rules = rule(&format!(
            "match: {{ target: {{ address: {address} }} }}, verdict: block"
        ));
        assert_eq!(
            word(&decide(&rules, &subject, select())),
            "block",
            "{address}"
        );
    }
    subject.target.default = interceptor_policy::DefaultVerdict::Block;
    for address in ["10.0.0.0/8", "{ not: 10.0.0.0/8 }"] {
        let rules = rule(&format!(
            "match: {{ target: {{ address: {address} }} }}, verdict: allow"
        ));
        assert_eq!(
            word(&decide(&rules, &subject, select())),
            "block",
            "{address}"
        );
    }
}

#[test]
fn target_port_is_a_number() {
    session_field(
        "{ target: { port: [5432, 5433] } }",
        "{ target: { port: 6432 } }",
    );
}

#[test]
fn target_tls_is_a_yes_or_a_no() {
    session_field("{ target: { tls: true } }", "{ target: { tls: false } }");
}

#[test]
fn protocol_is_one_of_several() {
    session_field("{ protocol: [http, postgres] }", "{ protocol: tls }");
    session_field(
        "{ protocol: { not: ssh } }",
        "{ protocol: { not: postgres } }",
    );
}

#[test]
fn a_postgres_field_never_holds_for_what_is_no_statement() {
    let mut subject = allowing();
    subject.protocol = Protocol::Unknown;
    let rules = rule("match: { postgres: {} }, verdict: block");
    let judgement = rules.scope(&subject).decide(&Operation::Opaque);
    assert_eq!(word(&judgement), "allow");
    let rules = rule("match: { protocol: unknown }, verdict: block");
    let judgement = rules.scope(&subject).decide(&Operation::Opaque);
    assert_eq!(word(&judgement), "block");
}

#[test]
fn an_empty_match_holds_for_everything() {
    assert!(session_holds("{}"));
}

#[test]
fn a_match_is_a_conjunction_of_its_fields() {
    session_field(
        "{ principal: { agent: deploy-bot, uid: 1000 }, target: { port: 5432 } }",
        "{ principal: { agent: deploy-bot, uid: 1000 }, target: { port: 1 } }",
    );
    session_field(
        "{ principal: { agent: deploy-bot }, postgres: { class: read } }",
        "{ principal: { agent: deploy-bot }, postgres: { class: write } }",
    );
}

#[test]
fn text_takes_regex_not_any_and_all() {
    session_field(
        "{ principal: { agent: { regex: '^deploy-[a-z]+$' } } }",
        "{ principal: { agent: { regex: '^[0-9]+$' } } }",
    );
    session_field(
        "{ principal: { agent: { not: root } } }",
        "{ principal: { agent: { not: 'deploy-*' } } }",
    );
    session_field(
        "{ principal: { agent: { any: [root, deploy-bot] } } }",
        "{ principal: { agent: { any: [root, nobody] } } }",
    );
    session_field(
        "{ principal: { agent: { all: ['deploy-*', { not: '*-cat' }] } } }",
        "{ principal: { agent: { all: ['deploy-*', { not: '*-bot' }] } } }",
    );
    session_field(
        "{ principal: { agent: { not: [root, nobody] } } }",
        "{ principal: { agent: { not: [root, deploy-bot] } } }",
    );
}

#[test]
fn a_list_by_name_stands_for_its_items() {
    let rules = rules(
        "lists: { secret: [users.ssn, salaries] }
rules:
  - { name: r, match: { postgres: { tables: $secret } }, verdict: block }
  - { name: s, match: { principal: { agent: { not: $secret } } }, severity: info }
",
    );
    let blocked = decide(&rules, &allowing(), select().table("public.salaries"));
    assert_eq!(verdict(&blocked), ("block", Some("r")));
}

#[test]
fn postgres_statement_is_the_first_words_of_the_tag_in_any_case() {
    let drop = || say("DROP TABLE", Class::Ddl);
    for yes in [
        "DROP",
        "drop",
        "'Drop Table'",
        "'DROP  TABLE'",
        "[SELECT, DROP]",
        "'DROP T*'",
    ] {
        assert!(
            holds(&format!("{{ postgres: {{ statement: {yes} }} }}"), drop()),
            "{yes}"
        );
    }
    for no in ["SELECT", "'DROP INDEX'", "'* INDEX'", "{ not: DROP }"] {
        assert!(
            !holds(&format!("{{ postgres: {{ statement: {no} }} }}"), drop()),
            "{no}"
        );
    }
    assert!(holds(
        "{ postgres: { statement: { regex: '^DROP' } } }",
        drop()
    ));
}

#[test]
fn postgres_class_is_a_kind_of_effect() {
    for (name, class) in Class::NAMES {
        let match_ = format!("{{ postgres: {{ class: {name} }} }}");
        assert!(holds(&match_, say("SELECT", *class)), "{name}");
        let other = if *class == Class::Read {
            Class::Write
        } else {
            Class::Read
        };
        assert!(!holds(&match_, say("SELECT", other)), "{name}");
    }
}

#[test]
fn a_write_inside_a_read_is_blocked_as_a_write_and_not_allowed_as_a_read() {
    let both = || select().and("DELETE", Class::Write);
    assert!(blocks("{ postgres: { class: write } }", both()));
    assert!(blocks("{ postgres: { statement: DELETE } }", both()));
    assert!(!allows("{ postgres: { class: read } }", both()));
    assert!(!allows("{ postgres: { statement: SELECT } }", both()));
    assert!(allows("{ postgres: { class: [read, write] } }", both()));
    assert!(allows(
        "{ postgres: { statement: [SELECT, DELETE] } }",
        both()
    ));
}

#[test]
fn postgres_tables_match_with_and_without_schema() {
    let users = || select().table("public.users");
    for yes in ["users", "public.users", "'*.users'", "'public.*'", "'us*'"] {
        assert!(
            holds(&format!("{{ postgres: {{ tables: {yes} }} }}"), users()),
            "{yes}"
        );
    }
    for no in ["orders", "secret.users", "'secret.*'"] {
        assert!(
            !holds(&format!("{{ postgres: {{ tables: {no} }} }}"), users()),
            "{no}"
        );
    }
    assert!(holds("{ postgres: { tables: { regex: '^us' } } }", users()));
}

#[test]
fn a_table_without_schema_is_blocked_as_of_any_and_allowed_as_of_none() {
    let users = || select().table("users");
    assert!(blocks("{ postgres: { tables: secret.users } }", users()));
    assert!(!allows("{ postgres: { tables: public.users } }", users()));
    assert!(allows("{ postgres: { tables: users } }", users()));
    assert!(allows("{ postgres: { tables: '*.users' } }", users()));
}

#[test]
fn that_a_table_is_not_of_a_schema_is_certain_only_where_the_schema_is() {
    let match_ = "{ postgres: { tables: { not: 'public.*' } } }";
    assert!(blocks(match_, select().table("users")));
    assert!(!allows(match_, select().table("users")));
    assert!(holds(match_, select().table("secret.users")));
    assert!(!holds(match_, select().table("public.users")));
}

#[test]
fn one_table_is_enough_to_block_and_all_are_needed_to_allow() {
    let both = || select().table("public.orders").table("secret.salaries");
    assert!(blocks("{ postgres: { tables: 'secret.*' } }", both()));
    assert!(!allows("{ postgres: { tables: 'public.*' } }", both()));
    assert!(allows(
        "{ postgres: { tables: ['public.*', 'secret.*'] } }",
        both()
    ));
    assert!(!allows(
        "{ postgres: { tables: { not: 'secret.*' } } }",
        both()
    ));
}

#[test]
fn a_statement_without_tables_is_of_no_table_and_surely_not_of_a_secret_one() {
    assert!(!holds("{ postgres: { tables: '*' } }", select()));
    assert!(allows(
        "{ postgres: { tables: { not: 'secret.*' } } }",
        select()
    ));
    assert!(!blocks(
        "{ postgres: { tables: { not: 'public.*' } } }",
        select()
    ));
}

#[test]
fn quoted_names_in_capitals_do_not_escape_a_block() {
    assert!(blocks(
        "{ postgres: { tables: users } }",
        select().table("public.Users")
    ));
    assert!(!allows(
        "{ postgres: { tables: users } }",
        select().table("public.Users")
    ));
    assert!(blocks(
        "{ postgres: { columns: ssn } }",
        select().column("users.SSN")
    ));
}

#[test]
fn postgres_columns_match_by_table_and_name() {
    let ssn = || select().column("public.users.ssn");
    for yes in [
        "ssn",
        "users.ssn",
        "public.users.ssn",
        "'*.ssn'",
        "'*.*.s*'",
    ] {
        assert!(
            holds(&format!("{{ postgres: {{ columns: {yes} }} }}"), ssn()),
            "{yes}"
        );
    }
    for no in ["name", "orders.ssn", "secret.users.ssn"] {
        assert!(
            !holds(&format!("{{ postgres: {{ columns: {no} }} }}"), ssn()),
            "{no}"
        );
    }
}

#[test]
fn a_star_reaches_every_column() {
    let star = || select().column("public.users.*");
    assert!(blocks("{ postgres: { columns: users.ssn } }", star()));
    assert!(!allows("{ postgres: { columns: users.name } }", star()));
    assert!(allows("{ postgres: { columns: 'users.*' } }", star()));
    assert!(!blocks("{ postgres: { columns: orders.ssn } }", star()));
}

#[test]
fn a_column_of_unknown_table_is_blocked_as_of_any_and_allowed_as_of_none() {
    let ssn = || select().column("ssn");
    assert!(blocks("{ postgres: { columns: users.ssn } }", ssn()));
    assert!(!allows("{ postgres: { columns: users.ssn } }", ssn()));
    assert!(allows("{ postgres: { columns: '*.ssn' } }", ssn()));
}

#[test]
fn postgres_functions_match_with_and_without_schema() {
    for name in ["pg_read_file", "pg_catalog.pg_read_file"] {
        assert!(holds(
            "{ postgres: { functions: 'pg_read_*' } }",
            select().function(name)
        ));
        assert!(!holds(
            "{ postgres: { functions: lower } }",
            select().function(name)
        ));
    }
    assert!(blocks(
        "{ postgres: { functions: pg_catalog.lower } }",
        select().function("lower")
    ));
    assert!(!allows(
        "{ postgres: { functions: pg_catalog.lower } }",
        select().function("lower")
    ));
}

#[test]
fn postgres_where_is_missing_always_true_or_present() {
    for (name, clause) in [
        ("missing", WhereClause::Missing),
        ("always_true", WhereClause::AlwaysTrue),
        ("present", WhereClause::Present),
    ] {
        let match_ = format!("{{ postgres: {{ where: {name} }} }}");
        let delete = || say("DELETE", Class::Write);
        assert!(holds(&match_, delete().filtered(clause)), "{name}");
        assert!(!holds(&match_, delete()), "{name}");
        let other = match clause {
            WhereClause::Missing => WhereClause::Present,
            _ => WhereClause::Missing,
        };
        assert!(!holds(&match_, delete().filtered(other)), "{name}");
    }
}

#[test]
fn postgres_database_and_user_are_those_of_the_session() {
    assert!(holds(
        "{ postgres: { database: 'ord*', user: agent_rw } }",
        select()
    ));
    assert!(!holds("{ postgres: { database: postgres } }", select()));
    assert!(!holds(
        "{ postgres: { user: { not: 'agent_*' } } }",
        select()
    ));
}

fn text_judged(match_: &str, effect: &str, subject: &Subject, text: &str) -> &'static str {
    let rules = rule(&format!("match: {match_}, verdict: {effect}"));
    word(&decide_in(&rules.scope(subject), text, &[select()]))
}

#[test]
fn postgres_text_is_the_text_as_it_was_sent() {
    let glob = "{ postgres: { text: '*xyz*' } }";
    assert_eq!(
        text_judged(glob, "block", &allowing(), "select\n'xyz'\n"),
        "block"
    );
    assert_eq!(
        text_judged(glob, "block", &allowing(), "select 'XYZ'"),
        "block"
    );
    assert_eq!(
        text_judged(glob, "block", &allowing(), "select 'abc'"),
        "allow"
    );
    let regex = "{ postgres: { text: { regex: '^select [0-9]+$' } } }";
    assert_eq!(
        text_judged(regex, "allow", &subject(), "select 42"),
        "allow"
    );
    assert_eq!(
        text_judged(regex, "allow", &subject(), "select 42; drop"),
        "block"
    );
}

#[test]
fn only_a_rule_on_text_makes_a_scope_depend_on_text() {
    let on_text = rule("match: { postgres: { text: '*x*' } }, verdict: block");
    assert!(on_text.scope(&subject()).is_text_dependent());
    let unless_text = rule("match: {}, unless: { postgres: { text: x } }, verdict: block");
    assert!(unless_text.scope(&subject()).is_text_dependent());
    let other = rule("match: { postgres: { class: read } }, verdict: block");
    assert!(!other.scope(&subject()).is_text_dependent());
    let elsewhere =
        rule("match: { target: { name: x }, postgres: { text: '*x*' } }, verdict: block");
    assert!(!elsewhere.scope(&subject()).is_text_dependent());
}

#[test]
fn postgres_statements_counts_those_of_one_message() {
    let rules = rule("match: { postgres: { statements: { over: 1 } } }, verdict: block");
    let scope = rules.scope(&allowing());
    assert_eq!(word(&decide_in(&scope, "", &[select()])), "allow");
    assert_eq!(word(&decide_in(&scope, "", &[select(), select()])), "block");
}

#[test]
fn postgres_writes_inside_read_is_a_yes_or_a_no() {
    let mut writing = select();
    writing.0.writes_inside_read = true;
    assert!(holds(
        "{ postgres: { writes_inside_read: true } }",
        writing.clone()
    ));
    assert!(!holds(
        "{ postgres: { writes_inside_read: true } }",
        select()
    ));
    assert!(!holds(
        "{ postgres: { writes_inside_read: false } }",
        writing
    ));
}

#[test]
fn all_postgres_fields_hold_for_one_and_the_same_statement() {
    let rules = rule("match: { postgres: { statement: UPDATE, tables: orders } }, verdict: block");
    let scope = rules.scope(&allowing());
    let update = |name| say("UPDATE", Class::Write).table(name);
    let apart = [update("public.carts"), select().table("public.orders")];
    assert_eq!(word(&decide_in(&scope, "", &apart)), "allow");
    assert_eq!(
        word(&decide_in(&scope, "", &[update("public.orders")])),
        "block"
    );
}

#[test]
fn a_scope_keeps_no_rule_of_another_session() {
    let rules = rules(
        "rules:
  - { name: mine, match: { principal: { agent: deploy-bot } }, mask: [{ detect: jwt, with: hash }] }
  - { name: other, match: { principal: { agent: coder } }, verdict: kill }
",
    );
    assert!(rules.scope(&subject()).masks_possible());
    let mut coder = subject();
    coder.principal.agent = "coder".into();
    assert!(!rules.scope(&coder).masks_possible());
    assert_eq!(
        verdict(&decide(&rules, &coder, select())),
        ("kill", Some("other"))
    );
}
