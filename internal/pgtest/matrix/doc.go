// Package matrix tests dbbackup as a user runs it on several versions of
// PostgreSQL: a cluster is backed up with its own version's client tools, and
// restored into every version from that one up, with the tools of that one.
//
// What must come back equal, whatever the versions: roles and memberships, the
// rows of every table, large objects, sequences, settings, privileges and
// comments. The text of definitions differs between versions by itself (a view
// is printed in another way), so the restored schema must instead be that which
// PostgreSQL's own tools make on the target's version out of the same source.
//
// The tests need the build tag matrix and what scripts/matrix.sh sets up. They
// do not cover restores into an older version, which PostgreSQL does not promise.
package matrix
