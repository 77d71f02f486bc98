use super::*;

/// Plain folders stand in for cgroups where only names and files matter.
fn runs(place: &Path) -> Runs {
    let root = place.join("root");
    let agents = root.join("agents");
    fs::create_dir_all(&agents).unwrap();
    let look = Look::Here(Arc::new(Here::new(root.clone(), agents.clone())));
    Runs::at(&agents, &root, &place.join("run"), &BTreeSet::new(), look).unwrap()
}

fn origin(cgroup_id: u64) -> Origin {
    Origin {
        address: "10.0.0.5:5432".parse().unwrap(),
        pid: u32::MAX,
        uid: 65_534,
        gid: 65_534,
        comm: "psql".to_owned(),
        cgroup_id,
    }
}

#[test]
fn a_process_that_is_gone_is_still_who_the_kernel_said() {
    let place = tempfile::tempdir().unwrap();
    let runs = runs(place.path());
    let labels = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
    let run = runs.begin("deploy-bot", labels.clone(), 1000).unwrap();
    let identity = runs.identify(&origin(run.cgroup_id)).unwrap();
    assert_eq!(identity.principal.agent, "deploy-bot");
    assert_eq!(identity.principal.labels, labels);
    assert_eq!(identity.principal.uid, 65_534);
    assert_eq!(identity.run, Some(run.id.clone()));
    assert_eq!(
        identity.principal.cgroup,
        Some(format!("/agents/deploy-bot-{}", run.id))
    );
    assert_eq!(identity.process["comm"], "psql");
    assert_eq!(identity.process["gone"], true);
}

#[test]
fn a_socket_of_no_known_run_is_nobodys() {
    let place = tempfile::tempdir().unwrap();
    let identity = runs(place.path()).identify(&origin(1)).unwrap();
    assert_eq!(identity.principal.agent, UNKNOWN);
    assert_eq!(identity.run, None);
}

#[test]
fn a_restarted_daemon_knows_the_runs_of_the_one_before() {
    let place = tempfile::tempdir().unwrap();
    let run = runs(place.path())
        .begin("coder", BTreeMap::new(), 1000)
        .unwrap();
    let gone = runs(place.path())
        .begin("gone", BTreeMap::new(), 1000)
        .unwrap();
    fs::remove_dir(&gone.cgroup).unwrap();
    let later = runs(place.path());
    assert_eq!(later.list(), vec![run.clone()]);
    assert_eq!(later.of_cgroup(run.cgroup_id), Some(run));
    assert_eq!(
        fs::read_dir(place.path().join("run/runs")).unwrap().count(),
        1
    );
}

#[test]
fn a_run_whose_cgroup_was_made_anew_is_another_one() {
    let place = tempfile::tempdir().unwrap();
    let run = runs(place.path())
        .begin("coder", BTreeMap::new(), 1000)
        .unwrap();
    fs::remove_dir(&run.cgroup).unwrap();
    fs::create_dir(place.path().join("root/agents/between")).unwrap();
    fs::create_dir(&run.cgroup).unwrap();
    if cgroup::id(&run.cgroup).unwrap() != run.cgroup_id {
        assert_eq!(runs(place.path()).list(), vec![]);
    }
}

#[test]
fn names_and_labels_that_could_lead_elsewhere_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let runs = runs(place.path());
    for name in ["", "..", "a/b", "a b", "a\n", "ü", &"x".repeat(65)] {
        let refused = runs.begin(name, BTreeMap::new(), 0);
        assert!(matches!(refused, Err(AgentsError::Name { .. })), "{name:?}");
    }
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    for bad in [
        label("", "v"),
        label("k", "a\nb"),
        label("k", &"x".repeat(257)),
    ] {
        assert!(matches!(
            runs.begin("a", bad, 0),
            Err(AgentsError::Label { .. })
        ));
    }
    let many = (0..33).map(|n| (n.to_string(), String::new())).collect();
    assert!(matches!(
        runs.begin("a", many, 0),
        Err(AgentsError::TooManyLabels { count: 33 })
    ));
}

#[test]
fn every_command_gives_a_usable_name() {
    for (command, name) in [
        ("/usr/bin/python3.11", "python3.11"),
        ("psql", "psql"),
        ("./my agent", "my-agent"),
        ("/bin/[", "-"),
        ("..", "agent"),
        ("/", "agent"),
        (".hidden", "hidden"),
    ] {
        assert_eq!(name_of_command(command), name);
        assert!(check_name(&name_of_command(command)).is_ok(), "{command}");
    }
}
