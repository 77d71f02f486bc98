//! The fields of `ssh`.

use std::sync::Arc;

use interceptor_policy::operation::ssh::{
    SftpOperation, SftpRequest, SshForward, SshKind, SshLine, SshProgram, SshRequest, SshStdin,
};
use interceptor_policy::testing::run;
use interceptor_policy::{Judgement, Operation, Protocol, RuleSet, Subject};

use super::{allowing, rule, rules, subject, verdict, word};

fn over_ssh(subject: Subject) -> Subject {
    Subject {
        protocol: Protocol::Ssh,
        ..subject
    }
}

/// A program and its arguments, as they are written.
fn program(text: &str) -> SshProgram {
    SshLine::of_words(text).programs.into_iter().next().unwrap()
}

fn line(programs: Vec<SshProgram>) -> SshRequest {
    SshRequest {
        user: "deploy".into(),
        kind: SshKind::Exec,
        line: Some(SshLine {
            text: "as it was sent".into(),
            sure: true,
            programs,
        }),
        ..SshRequest::default()
    }
}

/// An `exec` of these programs.
fn exec(texts: &[&str]) -> SshRequest {
    line(texts.iter().map(|text| program(text)).collect())
}

fn of(kind: SshKind) -> SshRequest {
    SshRequest {
        user: "deploy".into(),
        kind,
        ..SshRequest::default()
    }
}

fn sftp(operation: SftpOperation, paths: &[&str]) -> SshRequest {
    SshRequest {
        sftp: Some(SftpRequest {
            operations: vec![operation],
            paths: paths.iter().map(|path| (*path).into()).collect(),
        }),
        ..of(SshKind::Sftp)
    }
}

fn forward(host: &str, port: u16) -> SshRequest {
    SshRequest {
        forward: Some(SshForward::Tcp {
            host: host.into(),
            port,
        }),
        ..of(SshKind::LocalForward)
    }
}

fn judge(rules: &Arc<RuleSet>, subject: Subject, request: &SshRequest) -> Judgement {
    rules
        .scope(&over_ssh(subject))
        .decide(&Operation::Ssh(request))
}

/// What a block rule with this match does where everything is allowed.
fn blocks(match_: &str, request: &SshRequest) -> bool {
    let rules = rule(&format!("match: {{ ssh: {match_} }}, verdict: block"));
    word(&judge(&rules, allowing(), request)) == "block"
}

/// What an allow rule with this match does where nothing is allowed.
fn allows(match_: &str, request: &SshRequest) -> bool {
    let rules = rule(&format!("match: {{ ssh: {match_} }}, verdict: allow"));
    word(&judge(&rules, subject(), request)) == "allow"
}

/// Whether a match holds, in a case in which that is certain either way.
fn holds(match_: &str, request: &SshRequest) -> bool {
    let blocks = blocks(match_, request);
    assert_eq!(blocks, allows(match_, request), "uncertain: {match_}");
    blocks
}

#[test]
fn a_program_goes_by_its_name_and_by_its_path() {
    let rm = exec(&["rm -rf /srv"]);
    assert!(holds("{ program: rm }", &rm));
    assert!(holds("{ program: [ls, r*] }", &rm));
    assert!(!holds("{ program: r }", &rm));
    let path = exec(&["/bin/rm -rf /srv"]);
    assert!(holds("{ program: rm }", &path));
    assert!(holds("{ program: /bin/rm }", &path));
    assert!(!holds("{ program: /usr/bin/rm }", &path));
}

#[test]
fn a_name_allows_a_program_only_where_programs_are() {
    for elsewhere in ["/tmp/ls", "./ls", "/usr/bin/../../tmp/ls", "bin/ls", "//ls"] {
        let request = exec(&[elsewhere]);
        assert!(!allows("{ program: ls }", &request), "{elsewhere}");
        assert!(blocks("{ program: ls }", &request), "{elsewhere}");
        assert!(!blocks("{ program: { not: [cat] } }", &exec(&["cat x"])));
        assert!(
            blocks("{ program: { not: [ls] } }", &request),
            "{elsewhere}"
        );
    }
    assert!(allows(
        "{ program: /opt/tools/** }",
        &exec(&["/opt/tools/x"])
    ));
    let out = exec(&["/opt/tools/../../tmp/x"]);
    assert!(!allows("{ program: /opt/tools/** }", &out));
    assert!(blocks("{ program: /tmp/* }", &out));
}

#[test]
fn letters_of_either_case_are_alike_to_what_is_stricter() {
    let request = exec(&["RM -rf /"]);
    assert!(blocks("{ program: rm }", &request));
    assert!(!allows("{ program: rm }", &request));
}

#[test]
fn to_allow_one_program_is_not_to_allow_the_line() {
    let both = exec(&["ls /", "rm -rf /"]);
    assert!(!allows("{ program: ls }", &both));
    assert!(blocks("{ program: rm }", &both));
    assert!(allows("{ program: [ls, rm] }", &both));
    let rules = rules(
        "rules:
  - { name: a, match: { ssh: { program: ls } }, verdict: allow }
  - { name: b, match: { ssh: { program: rm } }, verdict: allow }\n",
    );
    assert_eq!(word(&judge(&rules, subject(), &both)), "allow");
}

#[test]
fn all_fields_of_a_line_are_asked_of_one_program() {
    let piped = |text: &str| SshProgram {
        stdin: SshStdin::Piped,
        ..program(text)
    };
    let harmless = line(vec![program("sh deploy"), piped("grep x")]);
    let harmful = line(vec![program("curl x"), piped("sh")]);
    let rule = "{ program: [bash, sh, python*], stdin: piped }";
    assert!(!blocks(rule, &harmless));
    assert!(blocks(rule, &harmful));
    let unknown = line(vec![SshProgram {
        stdin: SshStdin::Unknown,
        ..program("sh")
    }]);
    assert!(blocks(rule, &unknown));
    assert!(!allows("{ program: sh, stdin: inherited }", &unknown));
    assert!(!allows("{ program: sh, stdin: { not: piped } }", &unknown));
}

#[test]
fn what_is_not_known_is_anything_to_what_is_stricter_and_nothing_to_what_is_milder() {
    let opaque = line(vec![program("ls"), SshProgram::opaque()]);
    assert!(blocks("{ program: rm }", &opaque));
    assert!(blocks("{ program: { not: ls } }", &opaque));
    assert!(blocks("{ arguments: \"*shadow*\", program: cat }", &opaque));
    assert!(!allows("{ program: [ls, rm] }", &opaque));
    assert!(!allows("{ program: { not: rm } }", &opaque));
    assert!(!allows("{ program: '*' }", &opaque));
    assert!(allows("{ kind: exec }", &opaque));
    let arguments = line(vec![SshProgram {
        arguments: vec![Some("-f".into()), None],
        ..program("rm")
    }]);
    assert!(allows("{ program: rm }", &arguments));
    assert!(!allows("{ program: rm, arguments: '-f *' }", &arguments));
    assert!(blocks("{ program: rm, arguments: '* /etc' }", &arguments));
    assert!(!blocks("{ program: ls, arguments: '* /etc' }", &arguments));
}

#[test]
fn what_is_opaque_can_be_refused_or_allowed_by_itself() {
    let opaque = line(vec![program("ls"), SshProgram::opaque()]);
    assert!(blocks("{ opaque: true }", &opaque));
    assert!(!blocks("{ opaque: true }", &exec(&["ls"])));
    assert!(!allows("{ opaque: false }", &opaque));
    assert!(allows("{ opaque: false }", &exec(&["ls"])));
    assert!(!blocks("{ opaque: true }", &of(SshKind::Shell)));
}

#[test]
fn arguments_are_one_text_and_to_what_is_stricter_each_by_itself() {
    let request = exec(&["systemctl restart nginx"]);
    assert!(holds("{ arguments: 'restart *' }", &request));
    assert!(blocks("{ arguments: restart }", &request));
    assert!(!allows("{ arguments: restart }", &request));
    assert!(!allows("{ arguments: { not: nginx } }", &request));
    assert!(blocks("{ arguments: { not: restart } }", &request));
    assert!(!blocks("{ arguments: { not: 'restart *' } }", &request));
}

#[test]
fn a_program_that_is_allowed_is_not_allowed_to_write_by_redirection() {
    let echo = |path: Option<&str>| {
        line(vec![SshProgram {
            writes: vec![path.map(Into::into)],
            ..program("echo key")
        }])
    };
    let keys = echo(Some("/root/.ssh/authorized_keys"));
    assert!(!allows("{ program: echo }", &keys));
    assert!(allows("{ kind: exec }", &keys));
    assert!(!allows("{ program: echo, writes: /tmp/** }", &keys));
    assert!(allows(
        "{ program: echo, writes: /tmp/** }",
        &echo(Some("/tmp/x"))
    ));
    let out = echo(Some("/tmp/../etc/passwd"));
    assert!(!allows("{ program: echo, writes: /tmp/** }", &out));
    assert!(blocks("{ writes: /etc/** }", &out));
    assert!(blocks("{ writes: /etc/** }", &echo(None)));
    assert!(!allows("{ program: echo, writes: /tmp/** }", &echo(None)));
    let reading = line(vec![SshProgram {
        stdin: SshStdin::File,
        reads: vec![Some("/etc/shadow".into())],
        ..program("cat")
    }]);
    assert!(allows("{ program: cat }", &reading));
    assert!(!allows(
        "{ program: cat, arguments: { not: '*shadow*' } }",
        &reading
    ));
    assert!(blocks("{ reads: /etc/shadow }", &reading));
}

#[test]
fn a_line_that_runs_nothing_needs_no_rule() {
    let empty = line(Vec::new());
    let rules = rule("match: { ssh: { program: ls } }, verdict: allow");
    assert_eq!(word(&judge(&rules, subject(), &empty)), "allow");
    assert!(blocks("{ command: 'as it*' }", &empty));
    assert!(!blocks("{ program: { not: ls } }", &empty));
}

#[test]
fn a_line_that_is_not_sure_is_any_line() {
    let mut request = of(SshKind::Shell);
    request.line = Some(SshLine::unsure("ls"));
    assert!(!allows("{ command: ls }", &request));
    assert!(!allows("{ program: ls }", &request));
    assert!(blocks("{ command: 'rm *' }", &request));
}

#[test]
fn who_allows_lines_of_a_shell_by_its_kind_lets_it_be_opened() {
    let opening = of(SshKind::Shell);
    let mut lines = exec(&["ls"]);
    lines.kind = SshKind::Shell;
    let rule = "{ kind: shell, program: ls }";
    assert!(allows(rule, &opening) && allows(rule, &lines));
    lines.line = exec(&["rm x"]).line;
    assert!(!allows(rule, &lines));
    assert!(!allows("{ program: ls }", &opening));
    assert!(!allows("{ kind: exec, program: ls }", &opening));
    // What blocks lines does not block the opening; what blocks shells does.
    assert!(!blocks("{ kind: shell, program: rm }", &opening));
    assert!(!blocks("{ program: { not: ls } }", &opening));
    assert!(blocks("{ kind: shell }", &opening));
}

#[test]
fn who_allows_files_by_their_kind_lets_them_be_asked_for() {
    let opening = of(SshKind::Sftp);
    assert!(allows(
        "{ kind: sftp, sftp: { operation: read } }",
        &opening
    ));
    assert!(!allows("{ sftp: { operation: read } }", &opening));
    assert!(!blocks(
        "{ kind: sftp, sftp: { operation: read } }",
        &opening
    ));
    assert!(blocks("{ kind: sftp }", &opening));
}

#[test]
fn a_shell_can_be_refused_to_all_lines_but_some() {
    let rules = rule(
        "match: { ssh: { kind: shell } }, unless: { ssh: { kind: shell, program: [ls, cat] } }, verdict: block",
    );
    let says = |request: &SshRequest| word(&judge(&rules, allowing(), request));
    assert_eq!(says(&of(SshKind::Shell)), "allow");
    let mut lines = exec(&["ls", "cat x"]);
    lines.kind = SshKind::Shell;
    assert_eq!(says(&lines), "allow");
    lines.line = exec(&["ls", "rm x"]).line;
    assert_eq!(says(&lines), "block");
}

#[test]
fn one_line_takes_the_shell_from_a_target() {
    let rules =
        rule("match: { target: { name: orders-db }, ssh: { kind: shell } }, verdict: block");
    assert_eq!(
        word(&judge(&rules, allowing(), &of(SshKind::Shell))),
        "block"
    );
    assert_eq!(word(&judge(&rules, allowing(), &exec(&["ls"]))), "allow");
}

#[test]
fn files_go_by_operation_and_path() {
    let read = sftp(SftpOperation::Read, &["/etc/shadow"]);
    assert!(holds("{ sftp: { operation: read, path: /etc/* } }", &read));
    assert!(!holds("{ sftp: { operation: [write, remove] } }", &read));
    let out = sftp(SftpOperation::Write, &["/tmp/../etc/cron.d/x"]);
    assert!(!allows("{ sftp: { path: /tmp/** } }", &out));
    assert!(blocks("{ sftp: { path: /etc/** } }", &out));
    let rename = sftp(SftpOperation::Rename, &["/tmp/a", "/etc/passwd"]);
    assert!(!allows("{ sftp: { path: /tmp/* } }", &rename));
    assert!(blocks("{ sftp: { path: /etc/* } }", &rename));
    assert!(!blocks("{ sftp: { path: /etc/* } }", &of(SshKind::Sftp)));
}

#[test]
fn forwards_go_by_host_port_and_socket() {
    let db = forward("DB.internal.", 5432);
    assert!(holds("{ forward: { host: db.internal, port: 5432 } }", &db));
    assert!(!holds("{ forward: { port: [80, 443] } }", &db));
    assert!(blocks("{ forward: { host: 10.0.0.1 } }", &forward("", 80)));
    assert!(!allows("{ forward: { host: '*' } }", &forward("", 80)));
    assert!(!blocks("{ forward: { socket: /run/** } }", &db));
    let socket = SshRequest {
        forward: Some(SshForward::Socket("/run/docker.sock".into())),
        ..of(SshKind::LocalForward)
    };
    assert!(holds("{ forward: { socket: /run/* } }", &socket));
    assert!(!holds("{ forward: { port: 80 } }", &socket));
}

#[test]
fn the_other_kinds_have_names_of_their_own() {
    let env = SshRequest {
        env: Some("LD_PRELOAD".into()),
        ..of(SshKind::Env)
    };
    assert!(holds("{ env: LD_* }", &env));
    assert!(!holds("{ kind: [agent_forward, x11] }", &env));
    let subsystem = SshRequest {
        subsystem: Some("netconf".into()),
        ..of(SshKind::Subsystem)
    };
    assert!(holds("{ kind: subsystem, subsystem: netconf }", &subsystem));
    assert!(holds("{ user: deploy }", &env));
    assert!(!allows("{ user: Deploy }", &env));
}

#[test]
fn a_field_of_something_else_holds_for_nothing_negated_or_not() {
    for match_ in [
        "{ program: { not: rm } }",
        "{ sftp: { path: { not: /etc/* } } }",
        "{ env: { not: LD_PRELOAD } }",
        "{ arguments: { not: x } }",
        "{ stdin: { not: piped } }",
        "{ opaque: false }",
    ] {
        assert!(!holds(match_, &forward("h", 1)), "{match_}");
    }
    assert!(!holds("{ forward: { host: { not: x } } }", &exec(&["ls"])));
}

#[test]
fn an_expression_asks_about_lines_and_an_unknown_one_counts_as_a_block() {
    let by = |source: &str, request: &SshRequest| {
        let rules = rules(&format!(
            "rules:
  - {{ name: r, match: {{ if: '{source}' }}, verdict: block }}\n"
        ));
        word(&judge(&rules, allowing(), request))
    };
    let of_rm = "ssh.program == \"rm\" && ssh.arguments.exists(a, a == \"-rf\")";
    assert_eq!(by(of_rm, &exec(&["ls", "rm -rf /"])), "block");
    assert_eq!(by(of_rm, &exec(&["ls -rf"])), "allow");
    assert_eq!(by(of_rm, &line(vec![SshProgram::opaque()])), "block");
    assert_eq!(
        by("ssh.forward.port == 5432", &forward("db", 5432)),
        "block"
    );
    assert_eq!(
        by(
            "ssh.kind == \"exec\" && ssh.user == \"root\"",
            &exec(&["ls"])
        ),
        "allow"
    );
}

#[test]
fn rules_of_other_protocols_are_not_asked() {
    let rules = rules(
        "rules:
  - { name: a, match: { postgres: { text: '*' } }, verdict: block }
  - { name: b, match: { http: { method: '*' } }, verdict: block }
  - { name: c, match: { protocol: ssh }, verdict: allow, risk: 1 }\n",
    );
    let judged = judge(&rules, subject(), &exec(&["ls"]));
    assert_eq!(word(&judged), "allow");
    assert_eq!(judged.risk, 1);
}

#[test]
fn an_explanation_names_the_program_and_agrees_with_the_verdict() {
    let rules = rules(
        "rules:
  - { name: rm, match: { ssh: { program: rm } }, verdict: block }
  - { name: ls, match: { ssh: { program: ls } }, verdict: allow }
  - { name: echo, match: { ssh: { program: echo } }, verdict: allow }\n",
    );
    let scope = rules.scope(&over_ssh(subject()));
    let echo = SshProgram {
        writes: vec![Some("/x".into())],
        ..program("echo hi")
    };
    let request = line(vec![program("ls /"), program("rm x"), echo]);
    let operation = Operation::Ssh(&request);
    let said = scope.explain(&operation);
    let of = |name: &str| {
        let found = said.iter().find(|said| &*said.rule == name).unwrap();
        (found.applied, found.because.as_str())
    };
    assert_eq!(of("rm"), (true, "program 2: ssh.program is `rm`"));
    assert_eq!(of("ls"), (true, "program 1: ssh.program is `ls`"));
    let (applied, because) = of("echo");
    assert!(!applied, "{because}");
    assert!(because.contains("does not name `writes`"), "{because}");
    assert_eq!(verdict(&scope.decide(&operation)), ("block", Some("rm")));
}

#[test]
fn a_test_of_a_file_asks_about_a_line_or_any_other_request() {
    let rules = rules(
        "rules:
  - { name: no-rm, match: { ssh: { program: rm } }, verdict: block }
  - { name: no-keys, match: { ssh: { sftp: { operation: write, path: '/**/authorized_keys' } } }, verdict: block }
  - { name: rest, match: { protocol: ssh }, verdict: allow }
tests:
  - { name: a, ssh: rm -rf x, expect: { verdict: block, rule: no-rm } }
  - { name: b, ssh: 'rm $x', expect: { verdict: block } }
  - { name: c, ssh: { kind: shell }, expect: { verdict: allow } }
  - { name: d, ssh: { kind: shell, command: ls }, expect: { verdict: allow, rule: rest } }
  - { name: e, ssh: { sftp: { operation: [read, write], path: /root/.ssh/authorized_keys } }, expect: { rule: no-keys } }
  - { name: f, ssh: { kind: local_forward, forward: { host: db, port: 5432 } }, expect: { verdict: allow } }
  - { name: g, given: { after: [{ ssh: ls }] }, ssh: ls, expect: { verdict: allow } }\n",
    );
    for case in rules.tests() {
        let outcome = run(case, &rules, |_| Default::default());
        assert!(outcome.passed(), "{}: {:?}", case.name, outcome.failures);
    }
}

#[test]
fn a_thousand_rules_are_not_all_asked_and_none_is_missed() {
    let mut yaml = "rules:\n".to_owned();
    for number in 0..50 {
        yaml.push_str(&format!(
            "  - {{ name: p{number}, match: {{ ssh: {{ program: [p{number}, q{number}] }} }}, verdict: block }}\n"
        ));
    }
    let rules = rules(&yaml);
    for number in 0..50 {
        let request = exec(&["ls", &format!("/usr/bin/Q{number} x")]);
        let name = format!("p{number}");
        assert_eq!(
            verdict(&judge(&rules, allowing(), &request)),
            ("block", Some(name.as_str()))
        );
    }
    let opaque = line(vec![SshProgram::opaque()]);
    assert_eq!(judge(&rules, allowing(), &opaque).applied.len(), 50);
}
