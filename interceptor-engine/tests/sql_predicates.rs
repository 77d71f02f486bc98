//! Which columns decide which rows there are, or in which order: what a rule
//! with `masked_in_predicate` asks for.

use interceptor_engine::pg::sql::classify;
use interceptor_policy::operation::Column;

/// The predicates of a message, as text.
fn predicates(sql: &str) -> Vec<String> {
    let columns = classify(sql)
        .statements
        .into_iter()
        .flat_map(|statement| statement.predicates);
    columns
        .map(|Column { table, name }| match table {
            Some(table) => format!("{table}.{name}"),
            None => name.to_string(),
        })
        .collect()
}

#[test]
fn whatever_chooses_joins_groups_or_orders_rows_is_a_predicate() {
    for sql in [
        "SELECT count(*) FROM users WHERE ssn LIKE '1%'",
        "SELECT 1 FROM users ORDER BY ssn",
        "SELECT id, ssn FROM users ORDER BY 2",
        "SELECT id, ssn AS x FROM users ORDER BY x",
        "SELECT id, ssn AS x FROM users ORDER BY x DESC NULLS LAST LIMIT 1",
        "SELECT id FROM users ORDER BY upper(ssn)",
        "SELECT count(*) FROM users GROUP BY ssn",
        "SELECT ssn, count(*) FROM users GROUP BY 1",
        "SELECT count(*) FROM users GROUP BY ROLLUP (id, ssn)",
        "SELECT count(*) FROM users GROUP BY id HAVING max(ssn) > '5'",
        "SELECT DISTINCT ssn FROM users",
        "SELECT DISTINCT ON (ssn) id FROM users",
        "SELECT id FROM users u JOIN guesses g ON u.ssn = g.text",
        "SELECT 1 FROM users JOIN guesses USING (ssn)",
        "SELECT 1 FROM (SELECT ssn AS x FROM users) u JOIN (SELECT text AS x FROM guesses) g USING (x)",
        "SELECT id FROM users WHERE EXISTS (SELECT 1 FROM guesses WHERE text = users.ssn)",
        "SELECT id FROM orders WHERE user_id IN (SELECT id FROM users WHERE ssn = '1')",
        "SELECT x FROM (SELECT ssn AS x FROM users) s WHERE x < '5'",
        "SELECT x FROM (SELECT 1 AS x FROM users WHERE ssn < '5') s",
        "WITH t AS (SELECT ssn AS x, id FROM users) SELECT id FROM t WHERE x < '5'",
        "WITH t AS (SELECT id FROM users WHERE ssn < '5') SELECT count(*) FROM t",
        "SELECT ssn FROM users UNION SELECT text FROM guesses",
        "SELECT text FROM guesses EXCEPT SELECT ssn FROM users",
        "SELECT text FROM guesses INTERSECT ALL SELECT ssn FROM users",
        "SELECT rank() OVER w FROM users WINDOW w AS (ORDER BY ssn)",
        "SELECT 1 FROM users LIMIT (SELECT substr(ssn, 1, 1)::int FROM users LIMIT 1)",
        "SELECT generate_series(1, substr(ssn, 1, 1)::int) FROM users",
        "SELECT 1 FROM users, generate_series(1, substr(ssn, 1, 1)::int)",
        "SELECT n FROM users, LATERAL regexp_split_to_table(ssn, '-') n",
        "SELECT 1 FROM users WHERE (users).ssn = '1'",
        "UPDATE users SET name = 'x' WHERE ssn = '1'",
        "DELETE FROM users WHERE ssn = '1'",
        "DELETE FROM guesses USING users WHERE text = ssn",
        "MERGE INTO guesses g USING users u ON g.text = u.ssn WHEN MATCHED THEN DELETE",
        "MERGE INTO guesses g USING users u ON true WHEN MATCHED AND u.ssn = '1' THEN DELETE",
        "INSERT INTO t SELECT id FROM users WHERE ssn = '1'",
        "COPY (SELECT id FROM users WHERE ssn = '1') TO STDOUT",
        "DECLARE c CURSOR FOR SELECT id FROM users ORDER BY ssn",
        "EXPLAIN ANALYZE SELECT 1 FROM users WHERE ssn = '1'",
        "PREPARE p AS SELECT 1 FROM users WHERE ssn = $1",
    ] {
        let found = predicates(sql);
        assert!(
            found.iter().any(|column| column.ends_with("ssn")),
            "{sql}: {found:?}"
        );
    }
}

#[test]
fn a_whole_row_and_too_many_columns_are_predicates_too() {
    for sql in [
        "SELECT 1 FROM users u ORDER BY u",
        "SELECT 1 FROM users u WHERE u::text LIKE '%1%'",
        "SELECT 1 FROM users NATURAL JOIN guesses",
        "SELECT DISTINCT * FROM users",
        "SELECT 1 FROM users AS u(a, b) WHERE b = '1'",
    ] {
        let found = predicates(sql);
        assert!(
            found.iter().any(|column| column == "users.*"),
            "{sql}: {found:?}"
        );
    }
    let many: Vec<String> = (0..300).map(|n| format!("c{n} = 1")).collect();
    let found = predicates(&format!(
        "SELECT 1 FROM users WHERE {} AND ssn = '1'",
        many.join(" AND ")
    ));
    assert!(found.iter().any(|column| column == "*"), "{}", found.len());
}

#[test]
fn what_only_comes_out_chooses_no_rows() {
    for sql in [
        "SELECT ssn FROM users",
        "SELECT upper(ssn), count(*) FILTER (WHERE ssn LIKE '1%') FROM users",
        "SELECT ssn FROM users WHERE id = 1 ORDER BY name",
        "SELECT x FROM (SELECT id, ssn AS x FROM users) s WHERE id = 1",
        "WITH t AS (SELECT id, ssn FROM users) SELECT ssn FROM t WHERE id = 1",
        "SELECT ssn FROM users UNION ALL SELECT text FROM guesses",
        "UPDATE users SET ssn = 'x' WHERE id = 1 RETURNING ssn",
        "SELECT count(*) FROM users",
        "SELECT u.ssn FROM users u JOIN orders o USING (id)",
        "SELECT id, ssn FROM users ORDER BY 1",
    ] {
        let found = predicates(sql);
        assert!(
            !found
                .iter()
                .any(|column| column.ends_with("ssn") || column.ends_with('*')),
            "{sql}: {found:?}"
        );
    }
}
