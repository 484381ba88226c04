SET search_path = zoo, public;
CREATE TABLE storage_inline(a text STORAGE external);
INSERT INTO storage_inline VALUES ('x');
CREATE TABLE json_checked(a text CHECK (a IS JSON OBJECT WITH UNIQUE KEYS));
INSERT INTO json_checked VALUES ('{"a":1}');
