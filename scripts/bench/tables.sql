-- Many small tables: what a schema costs in memory, with next to no data.
SET synchronous_commit = off;
DO $$
BEGIN
  FOR i IN 1..10000 LOOP
    EXECUTE format('CREATE TABLE t%s(id int PRIMARY KEY, note text)', i);
    EXECUTE format('INSERT INTO t%s VALUES (%s, %L)', i, i, 'a note');
    IF i % 500 = 0 THEN
      COMMIT;
    END IF;
  END LOOP;
END $$;
ANALYZE;
-- No checkpoint: it would sync 40,000 files, and only memory is measured here.
