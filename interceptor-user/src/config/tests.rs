use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/interceptor/interceptor.yaml"))
}

/// The message of a text that has to be refused.
fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

const WHOLE: &str = r#"
intercept:
  kernel: false
  cgroup: agents
  agents: []
  default: allow
  uninspected: record
  when_down: block
targets:
  - name: orders-db
    host: Orders.internal
    port: 5432
    protocol: postgres
    tls: { upstream: verify-full, ca: orders-ca.pem, server_name: db.internal }
    credentials: { user: agent_rw, password: { file: orders.password } }
    default: allow
  - { name: net, address: 10.0.0.0/24 }
  - { name: env, host: 10.0.0.7, credentials: { password: { env: DB_PASSWORD } } }
  - { name: command, host: db, credentials: { user: a, password: { command: [pass, show, db] } } }
rules: [rules, /srv/rules]
recorder:
  redis: redis://127.0.0.1:6379
  prefix: test
  durability: before_forward
  spool: { dir: spool, max_bytes: 2GiB, on_full: allow }
  queue_bytes: 16MiB
  stall: 250ms
  live_entries: 500
  compress: off
  seal_to: null
listeners:
  - { listen: "127.0.0.1:15432", target: orders-db, agent: bot, labels: { team: platform } }
admin: { socket: a.sock, console: null, oidc: null, metrics: null }
runtime_dir: /tmp/run
state_dir: state
"#;

#[test]
fn the_whole_format_is_read() {
    let config = parse(WHOLE).unwrap();
    assert!(!config.intercept.kernel);
    assert_eq!(config.intercept.cgroup, "agents");
    assert_eq!(config.intercept.default, DefaultVerdict::Allow);
    assert_eq!(config.intercept.uninspected, Uninspected::Record);
    let [orders, net, env, command] = config.targets.as_slice() else {
        panic!("four targets: {:?}", config.targets);
    };
    assert!(matches!(&orders.place, Place::Host(host) if host == "orders.internal"));
    assert_eq!(orders.port, Some(5432));
    assert_eq!(
        orders.protocol,
        Some(interceptor_policy::Protocol::Postgres)
    );
    assert_eq!(orders.tls.mode, TlsMode::VerifyFull);
    let folder = Path::new("/etc/interceptor");
    assert_eq!(orders.tls.ca, Some(folder.join("orders-ca.pem")));
    assert_eq!(orders.tls.server_name.as_deref(), Some("db.internal"));
    assert_eq!(orders.default, Some(DefaultVerdict::Allow));
    let password = |target: &Target| target.credentials.clone().unwrap().password.unwrap();
    assert_eq!(
        password(orders),
        SecretRef::File(folder.join("orders.password"))
    );
    assert_eq!(password(env), SecretRef::Env("DB_PASSWORD".to_owned()));
    assert!(
        matches!(password(command), SecretRef::Command(line) if line == ["pass", "show", "db"])
    );
    assert!(matches!(net.place, Place::Network(net) if net.to_string() == "10.0.0.0/24"));
    assert!(matches!(env.place, Place::Network(net) if net.to_string() == "10.0.0.7/32"));
    assert_eq!(
        config.rules,
        [folder.join("rules"), PathBuf::from("/srv/rules")]
    );
    assert_eq!(config.recorder.queue_bytes, 16 << 20);
    assert_eq!(config.recorder.stall, Duration::from_millis(250));
    assert_eq!(config.recorder.live_entries, 500);
    assert_eq!(config.recorder.durability, Durability::BeforeForward);
    assert_eq!(config.recorder.compress, Compress::Off);
    assert_eq!(config.recorder.spool.dir, Some(folder.join("spool")));
    assert_eq!(config.recorder.spool.max_bytes, 2 << 30);
    assert_eq!(config.recorder.spool.on_full, OnFull::Allow);
    assert_eq!(config.listeners[0].agent, "bot");
    assert_eq!(config.listeners[0].labels["team"], "platform");
    assert_eq!(config.admin.socket, folder.join("a.sock"));
    assert_eq!(config.runtime_dir, PathBuf::from("/tmp/run"));
    assert_eq!(config.state_dir, folder.join("state"));
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "# nothing\n", "{}"] {
        let config = parse(text).unwrap();
        assert!(config.intercept.kernel);
        assert_eq!(config.intercept.default, DefaultVerdict::Block);
        assert_eq!(config.runtime_dir, PathBuf::from("/run/interceptor"));
        assert_eq!(
            config.admin.socket,
            PathBuf::from("/run/interceptor/admin.sock")
        );
        assert!(config.recorder.redis.is_none());
        assert_eq!(config.recorder.durability, Durability::Buffered);
        assert_eq!(config.recorder.compress, Compress::Zstd);
        assert_eq!(config.recorder.spool.on_full, OnFull::Block);
    }
}

#[test]
fn a_redis_with_a_password_and_a_certificate_is_one_address() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "p@ss:/word\n").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "recorder: {{ redis: \"rediss+cluster://a:1,b\", credentials: {{ user: bot, password: {{ file: {} }} }}, tls: {{ ca: ca.pem }} }}",
        password.display()
    );
    let address = parse(&text).unwrap().recorder.redis.unwrap();
    assert_eq!(
        address.url().unwrap(),
        "rediss+cluster://bot:p%40ss%3A%2Fword@a:1,b?ca=%2Fetc%2Finterceptor%2Fca%2Epem"
    );
    let text = format!(
        "recorder: {{ redis: \"redis+unix:///run/r.sock\", credentials: {{ user: bot, password: {{ file: {} }} }} }}",
        password.display()
    );
    let address = parse(&text).unwrap().recorder.redis.unwrap().url().unwrap();
    let client = redis::Client::open(address).unwrap();
    let settings = client.get_connection_info().redis_settings();
    assert_eq!(settings.username(), Some("bot"));
    assert_eq!(settings.password(), Some("p@ss:/word"));
    for (text, told) in [
        ("recorder: { tls: { ca: ca.pem } }", "names none"),
        (
            "recorder: { redis: \"redis://a\", tls: { ca: ca.pem } }",
            "begins with rediss",
        ),
        (
            "recorder: { redis: \"rediss://a\", tls: { cert: c.pem } }",
            "go together",
        ),
    ] {
        assert!(refusal(text).contains(told), "{text}");
    }
}

#[test]
fn a_moved_runtime_folder_takes_the_socket_along() {
    let config = parse("runtime_dir: /tmp/run").unwrap();
    assert_eq!(config.admin.socket, PathBuf::from("/tmp/run/admin.sock"));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    let text = "intercept:\n  kernel: true\n  defualt: block\n";
    let refusal = refusal(text);
    for part in [
        "unknown key `defualt`",
        "did you mean `default`?",
        "interceptor.yaml:3:3",
        "3 |   defualt …",
        "  |   ^^^^^^^",
    ] {
        assert!(refusal.contains(part), "{part} in:\n{refusal}");
    }
}

#[test]
fn a_secret_that_is_written_out_is_refused_and_not_repeated() {
    for value in ["hunter2", "'hunter2'", "123456789"] {
        let text = format!(
            "targets:\n  - name: db\n    host: db\n    credentials: {{ user: a, password: {value} }}\n"
        );
        let error = parse(&text).unwrap_err();
        let ConfigError::Refused(Faults(faults)) = &error else {
            panic!("{error}");
        };
        assert!(
            faults[0]
                .message
                .contains("a secret is not written into this file"),
            "{error}"
        );
        assert!(faults[0].help.as_ref().unwrap().contains("{ file: PATH }"));
        assert!(!faults[0].message.contains(value.trim_matches('\'')));
        assert!(
            !faults[0].source.contains(value.trim_matches('\'')),
            "{error}"
        );
    }
}

#[test]
fn a_fault_beside_a_secret_does_not_show_it() {
    for text in [
        "targets: [{ name: a b, host: h, credentials: { user: a, password: hunter2 } }]",
        "targets: [{ name: a, host: h, credentials: { user: a, passwrod: hunter2 } }]",
        "targets: [{ name: a, host: h, credentials: hunter2 }]",
        "targets: [{ name: a, host: h, credentials: { password: [hunter2] } }]",
        "targets: [{ name: a, host: h, protocol: http, credentials: { header: A, value: hunter2 } }]",
        "targets: [{ name: a, host: h, protocol: http, credentials: { oauth: { token_url: \"http://x\", client_id: a, client_secret: hunter2 } } }]",
        "targets: [{ name: a, host: h, protocol: http, credentials: { certificate: a.pem, key: hunter2 } }]",
        "recorder: { redis: \"redis://u:hunter2@localhost\", prefix: \"a b\" }",
    ] {
        let refusal = refusal(text);
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn what_is_not_done_yet_is_refused_by_name() {
    let target = |rest: &str| format!("targets: [{{ name: t, host: h, {rest} }}]");
    let texts = [
        (
            "admin: { console: \"127.0.0.1:7070\" }".to_owned(),
            "admin: console",
        ),
        (
            target("protocol: http, credentials: { header: A, value: { stored: x } }"),
            "stored",
        ),
        (target("credentials: { password: { stored: x } }"), "stored"),
        (target("credentials: { password: { vault: x } }"), "vault"),
    ];
    for (text, key) in texts {
        let refusal = refusal(&text);
        assert!(
            refusal.contains(&format!("`{key}` is not supported yet")),
            "{refusal}"
        );
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let refusal = refusal(
        "targets:\n  - { name: a b, host: h }\n  - { name: c, address: 10.0.0.5/24 }\n  - { name: d, host: h, address: 10.0.0.1 }\n  - { name: e }\nlisteners:\n  - { listen: nonsense, target: x }\n  - { listen: \"127.0.0.1:1\", target: c }\n",
    );
    for part in [
        "no name for a target",
        "the network is 10.0.0.0/24, the address 10.0.0.5",
        "not both",
        "neither `host` nor `address`",
        "no address with a port",
        "not one address and port",
    ] {
        assert!(refusal.contains(part), "{part} in:\n{refusal}");
    }
}

#[test]
fn targets_that_claim_the_same_destinations_are_refused() {
    for (one, other) in [
        ("host: db, port: 5432", "host: DB, port: 5432"),
        ("address: 10.0.0.0/24", "address: 10.0.0.0/24"),
        ("host: 10.0.0.1", "address: 10.0.0.1/32"),
    ] {
        let text = format!("targets:\n  - {{ name: a, {one} }}\n  - {{ name: b, {other} }}\n");
        let refusal = refusal(&text);
        assert!(refusal.contains("same destinations as \"a\""), "{refusal}");
    }
    parse("targets:\n  - { name: a, host: db, port: 1 }\n  - { name: b, host: db, port: 2 }\n")
        .unwrap();
    let twice = refusal("targets:\n  - { name: a, host: x }\n  - { name: a, host: y }\n");
    assert!(twice.contains("two targets named"), "{twice}");
}

#[test]
fn a_target_behind_an_ssh_server_names_one_and_is_no_twin_of_one_here() {
    let ssh = "targets:\n  - { name: build, host: build, protocol: ssh }\n";
    let config = parse(&format!(
        "{ssh}  - {{ name: here, host: db, port: 1 }}\n  - {{ name: far, host: db, port: 1, via: build }}\n"
    ))
    .unwrap();
    assert_eq!(config.targets[2].via.as_deref(), Some("build"));
    for via in ["nobody", "here"] {
        let told = refusal(&format!(
            "{ssh}  - {{ name: here, host: db }}\n  - {{ name: far, host: db, via: {via} }}\n"
        ));
        assert!(told.contains("no such target that speaks SSH"), "{told}");
    }
}

#[test]
fn hostile_yaml_is_bounded() {
    let deep = format!("rules: {}{}", "[".repeat(5000), "]".repeat(5000));
    let bomb = "rules: [&a [x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]]";
    for text in [
        deep.as_str(),
        bomb,
        "a: [",
        "\u{0}",
        "- x",
        "rules: x",
        "rules: [x]\n---\nrules: [y]",
    ] {
        assert!(parse(text).is_err(), "{text:.40}");
    }
}

#[test]
fn credentials_of_http_are_read() {
    let text = "targets:
  - { name: a, host: a.test, protocol: http, credentials: { header: X-Api-Key, value: { env: X } } }
  - { name: b, host: b.test, protocol: http, credentials: { certificate: b.pem, key: { file: b.key } } }
";
    let config = parse(text).unwrap();
    let [a, b] = config.targets.as_slice() else {
        panic!("two targets: {:?}", config.targets);
    };
    assert_eq!(a.protocol, Some(interceptor_policy::Protocol::Http));
    assert!(a.credentials.is_none());
    let http = a.http.clone().unwrap();
    assert!(matches!(
        http.request,
        Some(super::RequestCredentials::Header { name, value: SecretRef::Env(_) })
            if name == "x-api-key"
    ));
    let http = b.http.clone().unwrap();
    let certificate = http.certificate.unwrap();
    assert_eq!(certificate.certificate, Path::new("/etc/interceptor/b.pem"));
    assert!(http.request.is_none());
}

#[test]
fn credentials_are_for_the_protocol_that_the_target_speaks_and_whole() {
    let oauth = "{ token_url: \"http://x/\", client_id: a, client_secret: { env: X } }";
    for (settings, part) in [
        (
            "credentials: { header: A, value: { env: X } }",
            "does not say that it speaks it",
        ),
        (
            "protocol: http, credentials: { user: a }",
            "the target speaks HTTP",
        ),
        (
            "protocol: http, credentials: { user: a, header: A, value: { env: X } }",
            "not both",
        ),
        (
            "protocol: http, credentials: { header: A }",
            "belong together",
        ),
        (
            "protocol: http, credentials: { certificate: c.pem }",
            "belong together",
        ),
        (
            "protocol: http, credentials: { header: Host, value: { env: X } }",
            "not a header that",
        ),
        (
            "protocol: http, credentials: { header: \"a b\", value: { env: X } }",
            "no name of a header",
        ),
        (
            &format!(
                "protocol: http, credentials: {{ header: A, value: {{ env: X }}, oauth: {oauth} }}"
            ),
            "one of",
        ),
        (
            &format!(
                "protocol: http, credentials: {{ oauth: {} }}",
                oauth.replace("http://x/", "x")
            ),
            "no address of a token endpoint",
        ),
    ] {
        let refusal = refusal(&format!("targets: [{{ name: t, host: h, {settings} }}]"));
        assert!(refusal.contains(part), "{settings}: {refusal}");
    }
}

#[test]
fn agents_are_found_in_one_way_each() {
    let config = parse(
        "intercept:
  agents:
    - { name: deploy-bot, unit: deploy-bot.service, labels: { team: platform } }
    - { name: coder, user: coder }
    - { name: sandbox, container: 0123456789abcdef }
    - { name: boxes, container: \"label=agent\" }
    - { name: job, cgroup: /batch.slice/job }
",
    )
    .unwrap();
    let found: Vec<String> = config
        .intercept
        .agents
        .iter()
        .map(|agent| format!("{} {}", agent.name, agent.selector))
        .collect();
    assert_eq!(
        found,
        [
            "deploy-bot unit deploy-bot.service",
            "coder user coder",
            "sandbox container 0123456789abcdef",
            "boxes container label=agent",
            "job cgroup /batch.slice/job",
        ]
    );
    assert_eq!(config.intercept.agents[0].labels["team"], "platform");
    for (agents, why) in [
        ("[{ name: a }]", "is not found"),
        ("[{ name: a, unit: b, user: c }]", "in two ways"),
        ("[{ name: a, unit: b }, { name: c, unit: b }]", "two agents"),
        ("[{ name: a b, unit: b }]", "no name"),
        ("[{ name: .a, unit: b }]", "dot"),
        ("[{ name: a, container: a/b }]", "12 of its 64"),
        ("[{ name: a, container: \"label=\" }]", "12 of its 64"),
        ("[{ name: a, pod: web }]", "kubectl"),
        ("[{ name: a, cgroup: job }]", "begins with `/`"),
        ("[{ name: a, unit: b, labels: { \"\": x } }]", "label"),
        ("[{ name: a, unti: b }]", "unit"),
    ] {
        let refusal = refusal(&format!("intercept: {{ agents: {agents} }}"));
        assert!(refusal.contains(why), "{why:?} in {refusal}");
    }
    let off = refusal("intercept: { kernel: false, agents: [{ name: a, unit: b }] }");
    assert!(off.contains("switched off"), "{off}");
}
