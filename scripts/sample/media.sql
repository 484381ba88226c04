-- BLOBs, as bytea and as large objects.
--
-- usage: createdb media && psql -d media -f media.sql
--        psql -v files=2000 makes it larger (default 100, about 15 MB in all)
\if :{?files} \else \set files 100 \endif
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE TABLE files(id bigserial PRIMARY KEY, name text NOT NULL, body bytea NOT NULL, digest bytea GENERATED ALWAYS AS (sha256(body)) STORED);
ALTER TABLE files ALTER body SET STORAGE EXTERNAL;
INSERT INTO files(name, body)
SELECT 'file ' || i, (SELECT string_agg(gen_random_bytes(1024), '') FROM generate_series(1, 64 + i % 64) WHERE i = i)
FROM generate_series(1, :files) i;
CREATE TABLE scans(id int PRIMARY KEY, image oid NOT NULL);
INSERT INTO scans
SELECT i, lo_from_bytea(0, (SELECT string_agg(gen_random_bytes(1000), '') FROM generate_series(1, 1 + i % 90) WHERE i = i))
FROM generate_series(1, :files) i;
DO $$
DECLARE scan record;
BEGIN
    FOR scan IN SELECT * FROM scans WHERE id % 10 = 0 LOOP
        EXECUTE format('ALTER LARGE OBJECT %s OWNER TO shop_owner', scan.image);
        EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO shop_staff', scan.image);
        EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', scan.image, 'scan ' || scan.id);
    END LOOP;
END $$;
ANALYZE;
