SET search_path = zoo, public;
CREATE TABLE infinite_intervals(i interval);
INSERT INTO infinite_intervals VALUES ('infinity'), ('-infinity');
CREATE TABLE partitioned_identity(id int GENERATED ALWAYS AS IDENTITY, a int) PARTITION BY RANGE (a);
CREATE TABLE partitioned_identity_1 PARTITION OF partitioned_identity FOR VALUES FROM (0) TO (100);
INSERT INTO partitioned_identity(a) VALUES (1), (2);
GRANT MAINTAIN ON tree TO zoo_writer;
