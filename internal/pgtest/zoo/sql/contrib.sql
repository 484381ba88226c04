-- Needs the contrib extensions.
CREATE SCHEMA contrib;
CREATE EXTENSION hstore SCHEMA contrib;
CREATE EXTENSION pgcrypto SCHEMA contrib;
CREATE EXTENSION ltree SCHEMA contrib;
CREATE EXTENSION citext;
CREATE EXTENSION pg_trgm SCHEMA contrib;
CREATE EXTENSION btree_gist;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION cube;
CREATE EXTENSION earthdistance;
COMMENT ON EXTENSION hstore IS 'own comment';
GRANT EXECUTE ON FUNCTION contrib.digest(text, text) TO zoo_reader;
REVOKE EXECUTE ON FUNCTION contrib.digest(text, text) FROM PUBLIC;
CREATE TABLE zoo.extended(id int, h contrib.hstore, l contrib.ltree, c citext PRIMARY KEY, k cube, digest bytea, EXCLUDE USING gist (id WITH =));
INSERT INTO zoo.extended
SELECT i, contrib.hstore('key "' || i, NULL), ('top.n' || i)::contrib.ltree, 'Case' || i, cube(array[i, i]), contrib.digest(i::text, 'sha256') FROM generate_series(1, 20) i;
CREATE INDEX ON zoo.extended USING gin (h);
CREATE INDEX ON zoo.extended USING gist (l);
CREATE INDEX ON zoo.extended USING gin ((c::text) contrib.gin_trgm_ops);
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid', dbname 'x', fetch_size '1000');
CREATE USER MAPPING FOR zoo_writer SERVER remote OPTIONS (user 'u', password 'p''w');
CREATE FOREIGN TABLE zoo.remote_table(a int, b zoo.mood) SERVER remote OPTIONS (schema_name 's', table_name 't');
CREATE TABLE zoo.mixed(a int NOT NULL, b text) PARTITION BY RANGE (a);
CREATE TABLE zoo.mixed_here PARTITION OF zoo.mixed FOR VALUES FROM (0) TO (10);
CREATE FOREIGN TABLE zoo.mixed_there PARTITION OF zoo.mixed FOR VALUES FROM (10) TO (20) SERVER remote;
INSERT INTO zoo.mixed VALUES (1, 'here');
