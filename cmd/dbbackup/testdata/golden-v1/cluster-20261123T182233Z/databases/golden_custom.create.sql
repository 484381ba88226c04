-- Database golden_custom and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.
CREATE DATABASE "golden_custom" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C.UTF-8' LC_CTYPE = 'C.UTF-8';
BEGIN;
ALTER DATABASE "golden_custom" OWNER TO "golden_owner";
COMMENT ON DATABASE "golden_custom" IS 'golden';
ALTER DATABASE "golden_custom" SET "TimeZone" TO 'UTC';
COMMIT;
