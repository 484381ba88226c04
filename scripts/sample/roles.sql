-- Roles of the sample cluster: an owner without login, a group, two members.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_staff NOLOGIN;
CREATE ROLE clerk LOGIN PASSWORD 'a clerk''s password' CONNECTION LIMIT 20;
CREATE ROLE auditor LOGIN NOINHERIT VALID UNTIL '2099-12-31 00:00+00';
GRANT shop_staff TO clerk, auditor;
GRANT shop_owner TO clerk WITH ADMIN OPTION;
GRANT pg_read_all_data TO auditor;
ALTER ROLE clerk SET statement_timeout = '5min';
COMMENT ON ROLE shop_owner IS 'owns the application''s objects';
