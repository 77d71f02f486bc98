-- What the corpus' statements run on. The secrets are 078-05-1120 and 987654321.
CREATE TABLE users (id int PRIMARY KEY, name text, email text, ssn text, born date);
INSERT INTO users VALUES (1, 'Ada', 'ada@example.com', '078-05-1120', '1815-12-10'),
                         (2, 'Alan', 'alan@example.com', '078-05-1120', '1912-06-23');
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, item text, price int);
INSERT INTO orders VALUES (1, 1, 'chair', 40), (2, 1, 'desk', 90), (3, 2, 'lamp', 15);
CREATE TABLE salaries (user_id int REFERENCES users, amount int);
INSERT INTO salaries VALUES (1, 987654321), (2, 987654321);
CREATE TABLE notes (id int PRIMARY KEY, body text, words tsvector);
INSERT INTO notes VALUES (1, 'drop table users', to_tsvector('simple', 'drop table users'));
CREATE TABLE "drop table" (id int, "delete from users" text);
INSERT INTO "drop table" VALUES (1, 'x');
CREATE TABLE flags (id int, "delete" text, "update" text, "grant" int);
INSERT INTO flags VALUES (1, 'a', 'b', 2);
CREATE VIEW people AS SELECT id, name FROM users;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, sum(price) AS total FROM orders GROUP BY user_id;
CREATE SEQUENCE numbers;
SELECT nextval('numbers');
CREATE FUNCTION purge() RETURNS int LANGUAGE sql AS 'DELETE FROM notes; SELECT 1';
CREATE PROCEDURE tidy() LANGUAGE sql AS 'DELETE FROM notes';
CREATE FUNCTION id_of(o orders) RETURNS int LANGUAGE plpgsql AS
    'BEGIN DELETE FROM notes; RETURN o.id; END';
CREATE SCHEMA scratch;
CREATE TABLE scratch.users (id int, name text);
INSERT INTO scratch.users VALUES (1, 'Nobody');
CREATE ROLE boss SUPERUSER;
CREATE EXTENSION dblink;
CREATE EXTENSION tablefunc;
SELECT lo_from_bytea(4711, 'a large object');

-- What is observed. Catalog rows of the system itself are left out, but for
-- those that say who may do what.
CREATE SCHEMA corpus;
CREATE FUNCTION corpus.digest() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog AS $$
DECLARE
    part text;
    whole text := '';
    source text;
BEGIN
    FOR source IN
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm', 'S') AND c.oid >= 16384 AND n.nspname !~ '^pg_toast'
        UNION ALL
        SELECT unnest(ARRAY['pg_authid', 'pg_auth_members', 'pg_db_role_setting',
            'pg_largeobject_metadata', 'pg_largeobject', 'pg_namespace', 'pg_policy', 'pg_trigger',
            'pg_extension', 'pg_event_trigger', 'pg_default_acl', 'pg_publication',
            'pg_foreign_server', 'pg_subscription', 'pg_tablespace', 'pg_replication_slots',
            'pg_file_settings', 'pg_cast', 'pg_statistic_ext', 'pg_language', 'pg_index'])
        UNION ALL
        SELECT format('%s WHERE oid >= 16384', name)
        FROM unnest(ARRAY['pg_class', 'pg_proc', 'pg_type', 'pg_rewrite', 'pg_constraint',
            'pg_attrdef', 'pg_operator']) AS name
        UNION ALL
        SELECT unnest(ARRAY['pg_attribute WHERE attrelid >= 16384', 'pg_description WHERE objoid >= 16384'])
        UNION ALL
        SELECT 'pg_statistic WHERE starelid >= 16384'
        UNION ALL
        SELECT 'pg_database WHERE datname = ''postgres'''
        ORDER BY 1
    LOOP
        EXECUTE format('SELECT md5(string_agg(t::text, E''\n'' ORDER BY t::text)) FROM (SELECT * FROM %s) t', source)
            INTO part;
        whole := whole || source || coalesce(part, '');
    END LOOP;
    RETURN md5(whole);
END $$;

CREATE FUNCTION corpus.session() RETURNS text LANGUAGE sql AS $$
    SELECT md5(concat_ws('|', current_user, session_user,
        (SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_catalog.pg_settings),
        (SELECT string_agg(c, ',') FROM pg_catalog.pg_listening_channels() c),
        (SELECT string_agg(name, ',') FROM pg_catalog.pg_prepared_statements),
        (SELECT string_agg(name, ',') FROM pg_catalog.pg_cursors WHERE name !~ '^<')))
$$;

CREATE FUNCTION corpus.locks() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM pg_catalog.pg_locks l
    WHERE l.pid = pg_catalog.pg_backend_pid()
        AND (l.locktype = 'advisory' OR l.locktype = 'relation' AND l.relation >= 16384
            AND l.mode NOT IN ('AccessShareLock', 'RowExclusiveLock'))
$$;
