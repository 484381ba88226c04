CREATE TABLE zoo.spaced(a int PRIMARY KEY USING INDEX TABLESPACE zoo_space, b text) TABLESPACE zoo_space;
INSERT INTO zoo.spaced SELECT i, 'b' FROM generate_series(1, 10) i;
CREATE INDEX spaced_b ON zoo.spaced (b) TABLESPACE zoo_space;
CREATE MATERIALIZED VIEW zoo.spaced_mv TABLESPACE zoo_space AS SELECT a FROM zoo.spaced;
