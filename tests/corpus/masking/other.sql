-- The second database: other secrets, in the same rows at the same places. What
-- was NULL is NULL: that a stored value is NULL is no secret.
TRUNCATE people, old_people;
INSERT INTO people VALUES
    (1, 'Ada',   NULL, '536-22-1178', 4012888888881881, 61935, '33333333-bbbb-4bbb-8bbb-000000000001', '{"iban": "FR1-other"}',  'eda@other.example',   '1901-01-17'),
    (2, 'Alan',  1,    '401-77-3365', 5105105105105100, 72840, '44444444-bbbb-4bbb-8bbb-000000000002', '{"iban": "FR2-other"}',  'elan@other.example',  '1902-02-28'),
    (3, 'Grace', 1,    NULL,          NULL,             NULL,  NULL,                                   NULL,                     NULL,                  NULL);
INSERT INTO old_people SELECT * FROM people;
