-- A small database for a name that careless tools misread.
CREATE TABLE "a table's ""odd"" name"("column
with a new line" text, "%s" int, "select" date);
INSERT INTO "a table's ""odd"" name" VALUES (E'tab\t, \\N and \\.', 1, '0044-03-15 BC'), (NULL, -1, 'infinity');
CREATE TABLE "Case"(v float8);
CREATE TABLE "case"(v numeric);
INSERT INTO "Case" VALUES ('NaN'), ('-Infinity'), (0.1), (5e-324);
INSERT INTO "case" VALUES ('NaN'), (1e-400), (1e400);
CREATE TABLE no_columns();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
