//! Names of tables, on a connection of the proxy's own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use interceptor_engine::pg::catalog::{BaseColumn, TableInfo, TableName};
use interceptor_user::config::TlsMode;
use interceptor_user::net::{Dialer, Origin};
use interceptor_user::pg::{Catalog, Catalogs};

use crate::harness::{target, with_credentials, world};

fn catalog(catalogs: &Catalogs, database: &str) -> Result<Arc<Catalog>> {
    let target = with_credentials(
        target(TlsMode::Mirror, None),
        "scram_user",
        Some("secret-of-scram_user"),
    )?;
    let origin = Origin::from(SocketAddr::from(([127, 0, 0, 1], world().tls.port)));
    catalogs
        .of(&target, &origin, &Dialer::default(), database)
        .context("it has credentials")
}

fn oid(name: &str) -> Result<u32> {
    Ok(world()
        .tls
        .sql(&format!("SELECT '{name}'::regclass::oid"))?
        .parse()?)
}

fn look_up(catalog: &Arc<Catalog>, oids: &[u32]) -> Result<Vec<TableInfo>> {
    world().runtime.block_on(catalog.tables(oids))
}

fn read(schema: &str, table: &str, column: &str) -> BaseColumn {
    BaseColumn {
        schema: schema.to_owned(),
        table: table.to_owned(),
        column: column.to_owned(),
    }
}

#[test]
fn tables_views_and_partitions_are_told_with_what_rules_need() -> Result<()> {
    world().tls.sql(
        "CREATE SCHEMA names;
         CREATE TABLE names.people (id int, gone int, ssn text, \"Odd name\" text);
         ALTER TABLE names.people DROP COLUMN gone;
         CREATE VIEW names.v1 AS SELECT id, ssn AS hidden FROM names.people;
         CREATE VIEW names.v2 AS SELECT hidden || '!' AS shout FROM names.v1;
         CREATE MATERIALIZED VIEW names.m AS SELECT shout FROM names.v2;
         CREATE VIEW names.counted AS SELECT count(*) AS n FROM names.people;
         CREATE TABLE names.log (at int, note text) PARTITION BY RANGE (at);
         CREATE TABLE names.log_1 PARTITION OF names.log FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (at);
         CREATE TABLE names.log_1a PARTITION OF names.log_1 FOR VALUES FROM (0) TO (5);",
    )?;
    let catalogs = Catalogs::new(Dialer::default());
    let catalog = catalog(&catalogs, "postgres")?;
    let asked = ["people", "v2", "m", "log_1a"].map(|name| oid(&format!("names.{name}")));
    let asked = asked.into_iter().collect::<Result<Vec<_>>>()?;
    let found = look_up(&catalog, &[&asked[..], &[1, 4_000_000_000]].concat())?;
    let [people, v2, m, log_1a] = found.as_slice() else {
        panic!("four tables, and none for numbers that are nobody's: {found:?}");
    };
    assert_eq!(
        (people.schema.as_str(), people.name.as_str()),
        ("names", "people")
    );
    assert_eq!(people.column(1), Some("id"));
    assert_eq!(people.column(2), None, "dropped");
    assert_eq!(people.column(3), Some("ssn"));
    assert_eq!(people.column(4), Some("Odd name"));
    assert_eq!(people.definition, None);

    assert_eq!(v2.column(1), Some("shout"));
    assert!(
        v2.view_of.contains(&read("names", "people", "ssn")),
        "{v2:?}"
    );
    assert!(
        v2.view_of.contains(&read("names", "v1", "hidden")),
        "{v2:?}"
    );
    assert!(m.view_of.contains(&read("names", "people", "ssn")), "{m:?}");
    assert!(!v2.view_of.iter().any(|one| one.column == "Odd name"));
    assert!(
        v2.definition
            .as_ref()
            .is_some_and(|text| text.contains("names.v1"))
    );

    let name = |name: &str| TableName {
        schema: "names".to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(log_1a.parents, [name("log_1"), name("log")]);
    Ok(())
}

#[test]
fn a_look_up_goes_on_after_the_server_has_closed_the_connection() -> Result<()> {
    let catalogs = Catalogs::new(Dialer::default());
    let catalog = catalog(&catalogs, "template1")?;
    let class = oid("pg_class")?;
    assert_eq!(look_up(&catalog, &[class])?.len(), 1);
    let ours = "application_name = 'interceptor catalog' AND datname = 'template1'";
    let end =
        format!("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {ours}");
    assert_eq!(world().tls.sql(&end)?, "1");
    // What was found counts for a while; another has to be asked for.
    assert_eq!(look_up(&catalog, &[class])?.len(), 1);
    assert_eq!(look_up(&catalog, &[oid("pg_attribute")?])?.len(), 1);
    Ok(())
}

#[test]
fn a_database_that_is_not_there_is_an_error_and_not_an_empty_answer() -> Result<()> {
    let catalogs = Catalogs::new(Dialer::default());
    let catalog = catalog(&catalogs, "no_such_database")?;
    let error = look_up(&catalog, &[1259]).expect_err("there is no such database");
    assert!(format!("{error:#}").contains("does not exist"), "{error:#}");
    Ok(())
}

#[test]
fn without_credentials_there_is_nothing_to_ask_with() {
    let catalogs = Catalogs::new(Dialer::default());
    let origin = Origin::from(SocketAddr::from(([127, 0, 0, 1], 1)));
    let dialer = Dialer::default();
    assert!(
        catalogs
            .of(&target(TlsMode::Mirror, None), &origin, &dialer, "postgres")
            .is_none()
    );
}
