-- Database postgres and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.
CREATE DATABASE "postgres" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C.UTF-8' LC_CTYPE = 'C.UTF-8';
BEGIN;
ALTER DATABASE "postgres" OWNER TO "postgres";
COMMENT ON DATABASE "postgres" IS 'default administrative connection database';
COMMIT;
