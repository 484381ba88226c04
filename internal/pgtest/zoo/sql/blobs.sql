-- Large objects: many, of all sizes around a page of pg_largeobject (2 kB) and
-- of the pieces that lo_read hands out, with owners, privileges and comments.
DO $$
DECLARE id oid;
BEGIN
    FOR i IN 1..300 LOOP
        id := lo_from_bytea(500000 + i, decode(repeat(md5(i::text), 1 + (i * 37) % 300), 'hex'));
        IF i % 3 = 0 THEN EXECUTE format('ALTER LARGE OBJECT %s OWNER TO zoo_owner', id); END IF;
        IF i % 5 = 0 THEN EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO zoo_reader', id); END IF;
        IF i % 7 = 0 THEN EXECUTE format('GRANT ALL ON LARGE OBJECT %s TO "-zoo=role" WITH GRANT OPTION', id); END IF;
        IF i % 11 = 0 THEN EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', id, 'comment''s ' || i); END IF;
    END LOOP;
    PERFORM lo_create(500500);                                            -- no byte
    PERFORM lo_from_bytea(500501, decode(repeat('00', 300000), 'hex'));
    PERFORM lo_put(lo_create(500502), 5000000, 'x');                      -- sparse
    PERFORM lo_from_bytea(500503, '\x00');
    PERFORM lo_from_bytea(4294967295, 'the last oid');
END $$;
CREATE TABLE zoo.documents(id int PRIMARY KEY, body oid);
INSERT INTO zoo.documents SELECT i, 500000 + i FROM generate_series(1, 300) i;
