//! What a call of a function does beyond computing a value.
//!
//! `functions.txt` names the functions of PostgreSQL (15's `pg_proc`, and what
//! 16 to 18 added) and of the extensions that come with it and only compute
//! (citext, hstore, pg_trgm, pgcrypto, uuid-ossp, …). A name that is not in it
//! is somebody's own function, which may do anything: `procedural`.
//!
//! Names are all there is to go by. A function of somebody's own that bears a
//! listed name, or is called by an operator, a cast or a trigger, is not seen.

use std::collections::HashSet;
use std::sync::LazyLock;

use interceptor_policy::operation::{Class, Classes};

static KNOWN: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("functions.txt").lines().collect());

/// Effects by name, or by the beginning of one (`*`).
const EFFECTS: &[(&[&str], &[Class])] = &[
    (
        // Change a sequence, large objects, statistics.
        &[
            "nextval",
            "setval",
            "lo_creat",
            "lo_create",
            "lo_from_bytea",
            "lo_put",
            "lo_truncate",
            "lo_truncate64",
            "lo_unlink",
            "lowrite",
        ],
        &[Class::Write],
    ),
    (
        // Move data between large objects and the server's files.
        &["lo_import", "lo_export"],
        &[Class::Write, Class::Maintenance],
    ),
    (
        // Read whatever there is, or run what the call does not show. Functions
        // that run a text they are given are in `inner`, which reads the text.
        &[
            "cursor_to_xml*",
            "schema_to_xml*",
            "database_to_xml*",
            "plpgsql_*",
        ],
        &[Class::Procedural],
    ),
    (
        // Open connections to other servers, or to this one once more.
        &["dblink*"],
        &[Class::Maintenance],
    ),
    (
        // Read the server's files and directories.
        &[
            "pg_read_file*",
            "pg_read_binary_file",
            "pg_ls_*",
            "pg_stat_file",
            "pg_current_logfile",
            "pg_hba_file_rules",
            "pg_ident_file_mappings",
            "pg_show_all_file_settings",
        ],
        &[Class::Maintenance],
    ),
    (
        // Act on the server or on other sessions.
        &[
            "pg_terminate_backend",
            "pg_cancel_backend",
            "pg_reload_conf",
            "pg_rotate_logfile*",
            "pg_switch_wal",
            "pg_create_restore_point",
            "pg_backup_*",
            "pg_promote",
            "pg_wal_replay_pause",
            "pg_wal_replay_resume",
            "pg_log_backend_memory_contexts",
            "pg_log_standby_snapshot",
            "pg_stat_reset*",
            "brin_summarize_*",
            "brin_desummarize_range",
            "gin_clean_pending_list",
            "pg_stop_making_pinned_objects",
        ],
        &[Class::Maintenance],
    ),
    (
        // Change catalogs.
        &[
            "binary_upgrade_*",
            "pg_import_system_collations",
            "pg_extension_config_dump",
            "pg_nextoid",
            "pg_restore_relation_stats",
            "pg_clear_relation_stats",
            "pg_restore_attribute_stats",
            "pg_clear_attribute_stats",
            "pg_set_attribute_stats",
        ],
        &[Class::Write, Class::Ddl, Class::Maintenance],
    ),
    (
        // Replication: slots hand out every change of the database.
        &[
            "pg_create_physical_replication_slot",
            "pg_create_logical_replication_slot",
            "pg_copy_physical_replication_slot",
            "pg_copy_logical_replication_slot",
            "pg_drop_replication_slot",
            "pg_replication_slot_advance",
            "pg_logical_slot_get_*",
            "pg_logical_slot_peek_*",
            "pg_logical_emit_message",
            "pg_replication_origin_advance",
            "pg_replication_origin_create",
            "pg_replication_origin_drop",
            "pg_replication_origin_session_reset",
            "pg_replication_origin_session_setup",
            "pg_replication_origin_xact_reset",
            "pg_replication_origin_xact_setup",
            "pg_sync_replication_slots",
        ],
        &[Class::Replication, Class::Maintenance],
    ),
    (
        // Change the session or talk to others.
        &[
            "set_config",
            "setseed",
            "pg_notify",
            "pg_export_snapshot",
            "pg_advisory_*",
            "pg_try_advisory_*",
        ],
        &[Class::Session],
    ),
];

/// The classes that a call adds to its statement's. `schema` is the name's
/// qualification, if any.
pub(super) fn classes(schema: Option<&str>, name: &str) -> Classes {
    let mut classes = Classes::default();
    if schema.is_some_and(|schema| schema != "pg_catalog") || !KNOWN.contains(name) {
        classes.insert(Class::Procedural);
        return classes;
    }
    for (_, added) in EFFECTS
        .iter()
        .filter(|(names, _)| names.iter().any(|listed| covers(listed, name)))
    {
        for class in *added {
            classes.insert(*class);
        }
    }
    classes
}

fn covers(listed: &str, name: &str) -> bool {
    match listed.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => listed == name,
    }
}

/// Whether `name` can be called with a whole row as its one argument, so that
/// `t.name` may be a call that returns all of `t`'s columns.
pub(super) fn takes_a_row(name: &str) -> bool {
    matches!(
        name,
        "any_value"
            | "array_agg"
            | "concat"
            | "format"
            | "hstore"
            | "json_agg"
            | "json_agg_strict"
            | "json_build_array"
            | "jsonb_agg"
            | "jsonb_agg_strict"
            | "jsonb_build_array"
            | "max"
            | "min"
            | "mode"
            | "quote_literal"
            | "quote_nullable"
            | "record_out"
            | "record_send"
            | "row_to_json"
            | "text"
            | "to_json"
            | "to_jsonb"
    )
}

/// Whether a call may keep what it is called with, or send it somewhere.
pub(super) fn keeps_or_sends(schema: Option<&str>, name: &str) -> bool {
    !classes(schema, name).is_empty() || name.starts_with("pg_sleep")
}

/// Whether a call may return what it finds in any table: it runs a text as SQL,
/// takes a table by its name, or reads the files and pages that tables are
/// stored in.
pub(super) fn runs_text(name: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "query_to_xml",
        "cursor_to_xml",
        "table_to_xml",
        "schema_to_xml",
        "database_to_xml",
        "ts_stat",
        "ts_rewrite",
        "dblink",
        "crosstab",
        "connectby",
        "xpath_table",
        "pg_read_file",
        "pg_read_binary_file",
        "get_raw_page",
        "heap_page_item",
        "tuple_data_split",
        "bt_page_item",
    ];
    BEGINNINGS
        .iter()
        .any(|beginning| name.starts_with(beginning))
}

/// Whether a call in a target list makes rows, so that their number tells of
/// what it is called with.
pub(super) fn returns_rows(name: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "unnest",
        "generate_series",
        "generate_subscripts",
        "regexp_matches",
        "regexp_split_to_table",
        "string_to_table",
        "json_array_elements",
        "jsonb_array_elements",
        "json_each",
        "jsonb_each",
        "json_object_keys",
        "jsonb_object_keys",
        "json_populate_recordset",
        "jsonb_populate_recordset",
        "json_to_recordset",
        "jsonb_to_recordset",
        "jsonb_path_query",
        "xpath",
        "each",
        "skeys",
        "svals",
    ];
    BEGINNINGS
        .iter()
        .any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_functions_only_compute() {
        for name in [
            "count",
            "now",
            "lower",
            "coalesce_",
            "sum",
            "currval",
            "similarity",
            "digest",
            "uuid_generate_v4",
            "gen_random_uuid",
            "jsonb_build_object",
            "lo_get",
            "uuidv7",
        ] {
            let expected = name == "coalesce_";
            assert_eq!(!classes(None, name).is_empty(), expected, "{name}");
        }
    }

    #[test]
    fn every_listed_effect_names_a_known_function() {
        for (names, _) in EFFECTS {
            for listed in *names {
                assert!(
                    KNOWN.iter().any(|name| covers(listed, name)),
                    "{listed} names none: the effect could never be seen"
                );
            }
        }
    }

    #[test]
    fn a_known_name_in_a_schema_of_ones_own_is_an_unknown_function() {
        assert!(classes(Some("public"), "lower").contains(Class::Procedural));
        assert!(classes(Some("pg_catalog"), "lower").is_empty());
    }
}
