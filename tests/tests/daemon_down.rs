//! A daemon that is gone means refused connects, never direct ones; a new one
//! takes over.

use anyhow::Result;
use interceptor_tests::daemon::SOON;
use interceptor_tests::world::{Plan, alone};

#[test]
fn with_the_daemon_killed_nothing_connects_and_with_a_new_one_everything_does() -> Result<()> {
    alone(&Plan::default(), |world| {
        // The agent is started once and outlives the daemon.
        let port = world.postgres.port;
        let program = format!(
            "while read -r mark; do \
                 psql -XqAt -h 127.0.0.1 -p {port} -U agent -d postgres -c \"SELECT 'ran $mark'\" 2>&1; \
                 echo \"exit $mark $?\"; \
             done"
        );
        let mut running = world
            .agent("survivor")
            .start(&["/bin/sh", "-c", &program])?;
        running.write("before\n")?;
        interceptor_tests::eventually("the first query", SOON, || {
            Ok(world.postgres.saw("ran before"))
        })?;

        world.daemon.kill()?;
        running.write("while-down\n")?;
        // The next command of the loop starts when this one ended, so its
        // refusal is over once the daemon's successor is asked.
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert!(
            !world.postgres.saw("ran while-down"),
            "it went round the dead daemon"
        );

        world.daemon.restart()?;
        running.write("after\n")?;
        let done = running.finish(SOON)?;
        assert!(done.stdout.contains("exit before 0"), "{done:?}");
        assert!(done.stdout.contains("exit while-down 2"), "{done:?}");
        assert!(done.stdout.contains("exit after 0"), "{done:?}");
        assert!(!world.postgres.saw("ran while-down"));
        assert!(world.postgres.saw("ran after"));
        Ok(())
    })
}

#[test]
fn a_daemon_that_is_stopped_in_order_lets_nothing_through_either() -> Result<()> {
    alone(&Plan::default(), |world| {
        let port = world.postgres.port;
        let program = format!(
            "read -r mark; psql -XqAt -h 127.0.0.1 -p {port} -U agent -d postgres -c 'SELECT 4242'"
        );
        let mut running = world.agent("late").start(&["/bin/sh", "-c", &program])?;
        world.daemon.server().stop()?;
        running.write("go\n")?;
        let done = running.finish(SOON)?;
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        assert!(!world.postgres.saw("SELECT 4242"));
        Ok(())
    })
}
