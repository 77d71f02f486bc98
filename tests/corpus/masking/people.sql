-- A table with a secret of every kind beside what is none. The test makes a
-- second database of it, in which the secrets are others and all else is alike.
CREATE TABLE people (
    id      int PRIMARY KEY,
    name    text NOT NULL,
    boss    int,
    ssn     text UNIQUE,
    card    bigint,
    salary  int,
    token   uuid,
    profile jsonb,
    email   text,
    born    date
);
CREATE TABLE orders (id int PRIMARY KEY, person_id int NOT NULL, item text NOT NULL, paid numeric NOT NULL);
CREATE TABLE notes (id int, text text);
CREATE TABLE old_people (LIKE people);
CREATE VIEW staff AS SELECT id, name, ssn AS s, card AS c, salary AS p, token AS t, profile AS j, email AS e, born AS b FROM people;
CREATE VIEW staff_again AS SELECT * FROM staff;
CREATE VIEW orders_by_person AS SELECT person_id, count(*) AS orders, sum(paid) AS paid FROM orders GROUP BY person_id;
CREATE TYPE pair AS (a text, b text);

INSERT INTO people VALUES
    (1, 'Ada',   NULL, '219-09-9999', 4111111111111111, 40717, '11111111-aaaa-4aaa-8aaa-000000000001', '{"iban": "DE1-first"}',  'ada@first.example',   '1815-12-10'),
    (2, 'Alan',  1,    '457-55-5462', 5555555555554444, 53829, '22222222-aaaa-4aaa-8aaa-000000000002', '{"iban": "DE2-first"}',  'alan@first.example',  '1912-06-23'),
    (3, 'Grace', 1,    NULL,          NULL,             NULL,  NULL,                                   NULL,                     NULL,                  NULL);
INSERT INTO orders VALUES (10, 1, 'loom', 12.50), (11, 1, 'cards', 3), (12, 2, 'tape', 7);
INSERT INTO old_people SELECT * FROM people;
