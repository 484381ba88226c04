-- Cluster-wide objects. Runs once per cluster; Load looks for zoo_owner first.
CREATE ROLE zoo_owner NOLOGIN CREATEDB;
CREATE ROLE zoo_group NOLOGIN;
CREATE ROLE zoo_reader LOGIN PASSWORD 'reader''s secret' CONNECTION LIMIT 7 VALID UNTIL '2099-12-31 23:59:59+00';
CREATE ROLE zoo_writer LOGIN NOINHERIT PASSWORD NULL;
CREATE ROLE zoo_auditor BYPASSRLS CREATEROLE;
CREATE ROLE zoo_settings;
CREATE ROLE "Zoo_Owner";
CREATE ROLE "zoo role ""quoted"" 'both'";
CREATE ROLE "-zoo=role";
CREATE ROLE "zoo$(touch pwned)%*?";
CREATE ROLE U&"zoo\000Aline";
CREATE ROLE "zoo_ÄÖÜ_日本語_ÄÖÜ_日本語_ÄÖÜ_日本語_XYZ12345";
GRANT zoo_group TO zoo_reader WITH ADMIN OPTION;
GRANT zoo_group TO "zoo role ""quoted"" 'both'", "-zoo=role";
GRANT pg_monitor TO zoo_auditor;
COMMENT ON ROLE zoo_owner IS 'owns ''most'' of the zoo
on two lines';
ALTER ROLE zoo_settings SET work_mem = '7MB';
ALTER ROLE zoo_settings SET search_path = "zoo", "$user", public;
ALTER ROLE zoo_settings SET application_name = 'it''s "quoted"';
