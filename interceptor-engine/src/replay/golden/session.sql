-- session opened: psql to orders-db
-- 00:00:00.012 #1 allow
SELECT id, note
  FROM orders;
-- 00:00:01.000 #2 block
-- DROP TABLE orders
-- block: not here\x07
-- 00:01:01.000 #3 allow
PREPARE interceptor_replay AS SELECT $1::int / 0;
EXECUTE interceptor_replay('1', NULL);
DEALLOCATE interceptor_replay;
-- error 22012: division by zero
-- 00:01:01.000 #4 allow
COPY t TO STDOUT;
-- session closed: client closed
