-- Database golden_plain and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.
CREATE DATABASE "golden_plain" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C.UTF-8' LC_CTYPE = 'C.UTF-8';
BEGIN;
ALTER DATABASE "golden_plain" OWNER TO "golden_owner";
COMMENT ON DATABASE "golden_plain" IS 'golden';
ALTER DATABASE "golden_plain" SET "TimeZone" TO 'UTC';
COMMIT;
