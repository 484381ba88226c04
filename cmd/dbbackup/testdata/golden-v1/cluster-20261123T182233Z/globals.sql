--
-- PostgreSQL database cluster dump
--

\restrict CnvsZUm1RLqQq4hUE1JSINX0z89nXjdgkH6L5UictAR69ifdOl4wbsLKbt3oGor

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE "golden_owner";
ALTER ROLE "golden_owner" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE "golden_reader";
ALTER ROLE "golden_reader" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE "postgres";
ALTER ROLE "postgres" WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

--
-- User Configurations
--

--
-- User Config "golden_owner"
--

ALTER ROLE "golden_owner" SET "work_mem" TO '8MB';


--
-- Role memberships
--

GRANT "golden_reader" TO "golden_owner" GRANTED BY "postgres";






\unrestrict CnvsZUm1RLqQq4hUE1JSINX0z89nXjdgkH6L5UictAR69ifdOl4wbsLKbt3oGor

--
-- PostgreSQL database cluster dump complete
--

