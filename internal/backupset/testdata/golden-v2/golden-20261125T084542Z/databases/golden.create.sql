-- Database golden and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.
CREATE DATABASE "golden" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C' LC_CTYPE = 'C';
BEGIN;
ALTER DATABASE "golden" OWNER TO "postgres";
COMMIT;
