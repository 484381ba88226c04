// Package pgdump is the engine that captures a database with pg_dump and
// replays it with pg_restore and psql, both directions of one technique in one
// place.
//
// Capture: custom and directory archives are written by pg_dump itself, so
// that no byte passes through this process; a plain dump goes from pg_dump's
// pipe straight into parallel gzip. Every capture reads under an exported
// snapshot (B3), counts only after the child exited 0 and its output was seen
// to be whole (B6), and is watched for stalls and time limits.
//
// Replay: pg_restore runs section by section (pre-data, data, post-data), so
// that a failure says where it happened; psql reads a plain dump that was
// already proven whole. Errors are returned by object. Which database is
// filled, and when it becomes visible, is the business of package restore.
//
// Not promised: values above 512 MB as text, which pg_dump cannot read, and
// continuing an interrupted capture.
package pgdump
