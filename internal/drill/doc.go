// Package drill proves that a backup set restores, by restoring it: all of it,
// into a throwaway server of the major version that it comes from, or one
// database after the other into a server that somebody names, under names of
// the drill's own.
//
// Of every database that comes back, a chunked set's rows and digests are
// compared with what the capture counted, and amcheck compares the indexes with
// their tables. What the server refuses (duplicate keys under a unique index
// that was broken on the source, rows that violate a foreign key) is readable
// but not restorable, and is named by object.
//
// A named server is left as it was: the drill's databases are dropped in the
// end, also after a failure and an interruption. Nothing else there is touched,
// and the roles that the set needs must exist.
//
// Run returns an error only when the drill could not be done. What it found is
// in the Result, whose Err says it in one.
//
// Not promised: that the rows of sets in pg_dump's formats are those of the
// source (nothing counted them), and that a server with other settings,
// libraries and locales than this host's takes the set.
package drill
