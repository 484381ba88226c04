// Package pgname treats the names of databases, schemas, tables and roles as
// what they are: data. It matches them against what a user typed, quotes them
// for SQL, and turns them into file names.
//
// A name is never an option, a connection string or a path (invariant S1):
// PostgreSQL allows every byte but NUL in it, so "-Fp", "a=b", "../../x" and a
// newline are all names.
package pgname
