// Package backup is the verb: it captures a cluster or one database into a
// new backup set of a store.
//
// Run reads as a table of contents: survey the server, take the store's lock,
// plan, check that it can work, capture, commit. The set exists only after the
// last object is durable (B1). A database that fails is named and removed from
// the set; the others finish and are kept (B4). What cannot be captured is
// declared in the manifest (B7).
//
// A run of the native engine that is interrupted leaves what it captured, and
// can be gone on with (Resuming); an incremental one starts from an older set.
//
// Not promised: one snapshot across databases, which PostgreSQL does not have.
// Each database is consistent in itself (B3), globals are read beside them.
package backup
