-- Event triggers come last, as they do in a dump: they would fire for the rest.
CREATE FUNCTION zoo.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE DEBUG 'ddl: %', tg_tag; END $$;
CREATE EVENT TRIGGER zoo_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION zoo.on_ddl();
CREATE EVENT TRIGGER zoo_disabled ON sql_drop EXECUTE FUNCTION zoo.on_ddl();
ALTER EVENT TRIGGER zoo_disabled DISABLE;
COMMENT ON EVENT TRIGGER zoo_ddl IS 'says what it sees';
