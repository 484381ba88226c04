// Package zoo holds one of every kind of PostgreSQL object, and the comparison
// that says whether a round trip brought them all back.
//
// Load fills a database with what dumps are known to lose: odd types and
// values, hostile names, cycles, privileges, settings, large objects. What only
// newer versions have lives in files of its own (sql/zoo15.sql: from 15 on).
// HostileDatabases names databases that a careless tool takes for an option, a
// path or a connection string; HostileSettings makes sessions print dates,
// floats and bytes in ways that a dump must not copy.
//
// Diff and DiffGlobals compare by definition (pg_dump's schema, entry by
// entry), by content (a count and an order-independent hash of every table's
// rows, computed by the server), and by what neither shows: sequences, large
// objects, populated views, the database's own properties. Rows whose text is
// larger than PostgreSQL's 1 GB limit cannot be compared this way. Between two
// major versions definitions compare by name only; whoever wants more restores
// with PostgreSQL's own tools beside it (Reference) and compares the two results,
// which have one version.
package zoo
