// Package verify finds out whether a backup set would restore, without a
// server. It reads every byte: first the digests say whether the files are
// what was captured, then PostgreSQL's own pg_restore reads each archive to its
// end and each plain dump is read statement by statement, which says whether
// what was captured is whole.
//
// Not promised: that a target accepts what it reads. A restore into a
// throwaway server proves that.
package verify
