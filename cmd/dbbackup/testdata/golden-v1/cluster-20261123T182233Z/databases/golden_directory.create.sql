-- Database golden_directory and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.
CREATE DATABASE "golden_directory" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C.UTF-8' LC_CTYPE = 'C.UTF-8';
BEGIN;
ALTER DATABASE "golden_directory" OWNER TO "golden_owner";
COMMENT ON DATABASE "golden_directory" IS 'golden';
ALTER DATABASE "golden_directory" SET "TimeZone" TO 'UTC';
COMMIT;
