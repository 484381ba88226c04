-- Database template1 and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.
CREATE DATABASE "template1" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C.UTF-8' LC_CTYPE = 'C.UTF-8';
BEGIN;
ALTER DATABASE "template1" OWNER TO "postgres";
REVOKE ALL ON DATABASE "template1" FROM PUBLIC;
REVOKE ALL ON DATABASE "template1" FROM "postgres";
GRANT CONNECT ON DATABASE "template1" TO PUBLIC;
GRANT CREATE ON DATABASE "template1" TO "postgres";
GRANT TEMPORARY ON DATABASE "template1" TO "postgres";
GRANT CONNECT ON DATABASE "template1" TO "postgres";
COMMENT ON DATABASE "template1" IS 'default template for new databases';
ALTER DATABASE "template1" IS_TEMPLATE true;
COMMIT;
