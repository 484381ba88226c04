--
-- PostgreSQL database cluster dump
--

\restrict UcCjm9nFFqb8SlvGqIPAbJUScpLAxGl0gplhRDdUSu4In5dGc9wOqK7dEYVISfP

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






\unrestrict UcCjm9nFFqb8SlvGqIPAbJUScpLAxGl0gplhRDdUSu4In5dGc9wOqK7dEYVISfP

--
-- PostgreSQL database cluster dump complete
--

