--
-- PostgreSQL database cluster dump
--

\restrict 89K85FI3hkJKy8otimlDBERREMsJkBtMKdywXWdHd4a3T5ffSxdmkpPIKLOeruv

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE "keeper";
ALTER ROLE "keeper" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION BYPASSRLS;
CREATE ROLE "postgres";
ALTER ROLE "postgres" WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

--
-- User Configurations
--


--
-- Role memberships
--

GRANT "pg_read_all_data" TO "keeper" GRANTED BY "postgres";






\unrestrict 89K85FI3hkJKy8otimlDBERREMsJkBtMKdywXWdHd4a3T5ffSxdmkpPIKLOeruv

--
-- PostgreSQL database cluster dump complete
--

