// Package sqltext reads the SQL text that pg_dump, pg_dumpall and pg_restore
// write: it cuts a script into statements, sorts the statements of
// pg_dumpall --globals-only, renames roles in statements, and tells a whole
// plain dump from one that was cut.
//
// It is a lexer and no parser. It knows what can hide a semicolon or a name:
// '...' strings with standard_conforming_strings=on, E'...' escapes, "quoted"
// names, $tag$ quotes, -- and nested /* */ comments, parentheses, the bodies
// of SQL functions (BEGIN ATOMIC), psql's \ lines, and the rows between
// COPY ... FROM stdin and \. (the manual's chapter 4.1, Lexical Structure, and
// psql's psqlscan.l).
//
// Memory is that of one statement, at most MaxStatementBytes; rows are handed
// on in pieces. Statements put together again are the input, byte for byte.
//
// The shapes of statements that it understands are those that PostgreSQL's
// tools write. It does not promise anything about SQL that people write, about
// scripts with standard_conforming_strings=off, or about psql's variables.
package sqltext
