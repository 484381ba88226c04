// Package restore is the verb: it brings databases of a backup set back.
//
// Prepare looks at the set and at the target and says what would be done, or
// everything that stands in the way, in one list; nothing is written before
// that list is empty and the digests of all needed objects are known good, or,
// for chunks of a database that is to be made, that they are there: their digests
// are checked while they are loaded, each before it is committed (R1). Execute
// then fills each database under another name and renames it last, so that a half
// restore cannot be mistaken for the real one (R2). An existing database is
// replaced only when that was asked for and confirmed, and only by one that is
// complete.
//
// The databases postgres and template1 of a fresh server cannot be renamed
// into place while they are in use; when they are empty they are filled as
// they are, in one transaction.
//
// An interrupted restore of a chunked database goes on when the same restore is
// run again (R3). Of the other modes it begins anew and removes what the
// interrupted one left.
package restore
