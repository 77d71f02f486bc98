-- A small shop. Every secret in here is made up: the card numbers are the
-- schemes' published test numbers, the social security numbers are of areas
-- that were never issued to people.
CREATE TABLE users (
    id          integer PRIMARY KEY,
    name        text NOT NULL,
    email       text NOT NULL,
    ssn         text NOT NULL,
    card_number text NOT NULL,
    pin         integer NOT NULL,
    note        text NOT NULL DEFAULT ''
);
INSERT INTO users (id, name, email, ssn, card_number, pin, note) VALUES
    (1, 'Ada Lovelace', 'ada@example.com', '219-09-9999', '4111111111111111', 4071, ''),
    (2, 'Alan Turing', 'alan@example.com', '457-55-5462', '5555555555554444', 5382, 'pays with 4012888888881881'),
    (3, 'Grace Hopper', 'grace@example.com', '078-05-1120', '378282246310005', 6193, '');

CREATE TABLE orders (
    id      integer PRIMARY KEY,
    user_id integer NOT NULL REFERENCES users,
    item    text NOT NULL,
    cents   integer NOT NULL,
    status  text NOT NULL DEFAULT 'open'
);
INSERT INTO orders (id, user_id, item, cents, status) VALUES
    (1, 1, 'analytical engine', 1250000, 'open'),
    (2, 2, 'enigma manual', 4999, 'paid'),
    (3, 3, 'nanosecond wire', 299, 'paid'),
    (4, 1, 'punched cards', 1999, 'open');

CREATE TABLE scratch (id integer, note text);
