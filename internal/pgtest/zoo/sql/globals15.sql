GRANT SET ON PARAMETER log_min_duration_statement TO zoo_reader;
GRANT ALTER SYSTEM ON PARAMETER work_mem TO zoo_writer WITH GRANT OPTION;
