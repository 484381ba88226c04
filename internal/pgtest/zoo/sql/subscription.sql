-- Lives in a shared catalog: CREATE DATABASE ... TEMPLATE does not copy it.
CREATE SUBSCRIPTION zoo_sub CONNECTION 'host=nowhere.invalid dbname=x password=hidden' PUBLICATION zoo_some, "Other" WITH (connect = false, slot_name = NONE);
COMMENT ON SUBSCRIPTION zoo_sub IS 'never connects';
