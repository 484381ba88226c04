// Package pg talks to PostgreSQL servers: it resolves connections the way
// libpq does, reads what a backup must know from the catalogs, holds exported
// snapshots, and makes the few statements that a restore runs itself. It is
// the only package that imports pgx.
//
// Rules that hold here:
//   - Every session sets what pg_dump's setup_connection sets before it reads
//     anything, so that no role or database setting changes what is read.
//   - One database is read under one exported snapshot (B3).
//   - Names are quoted as data; passwords never leave Params except into a
//     child's environment (S1).
//   - Errors are classified by SQLSTATE or type, never by message text.
//
// The package does not decide what to do: it neither retries a statement nor
// chooses what to capture.
package pg
