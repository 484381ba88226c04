// Package pgtool finds PostgreSQL's client programs in the versions that a
// server or an archive needs, builds their commands and environments, and
// reads their error texts for names.
//
// A pg_dump older than its server fails with an empty file (FACTS: exit 1, 0
// bytes), so versions are settled before anything is touched (T05, T06), and
// every refusal says both versions, the path that was tried and what to do.
// What an operator chose (a directory, the first in PATH) is used or refused,
// never silently bypassed. The exception is Debian's pg_wrapper, which is not
// a choice: it picks a version by itself.
//
// Secrets travel in the environment only, never in arguments (S1). Messages
// are asked for in the C locale. What ParseRestoreErrors finds is for naming
// objects only: whether a program succeeded is its exit status, and "errors
// ignored on restore: N" of a parallel pg_restore counts some errors twice.
//
// Not promised: that an environment that holds PGSERVICE connects to
// PGDATABASE. A service's dbname comes before it; set PGSERVICE to "" in
// Environ's extra, which removes it.
package pgtool
