// Package dir keeps a store in a directory of a local or mounted file system.
//
// What it promises, and where the promise is kept:
//   - An object is visible under its key only when it is complete and durable
//     (B1, B5): temporary file, fsync, close, rename that never replaces, fsync
//     of every folder up to the root. Any of these steps failing fails the
//     object for good, because a second fsync after a failed one reports
//     success for pages that the kernel already dropped.
//   - Nothing outside the directory is touched. Every path goes through an
//     os.Root, and a symbolic link anywhere in a key is refused even if it
//     leads to a place inside.
//   - Files are 0600 and folders 0700 whatever the umask says, and in another
//     user's directory what root makes is that user's (owner.go).
//   - One run at a time: flock on the file .lock, which the kernel gives back
//     when the process dies. No clock and no process table is asked, so a dead
//     holder never blocks and a live one is never robbed.
//
// Names that begin with a dot are the store's own and are never listed:
// .lock, .NAME.partial-RANDOM (an object being written) and .staged-RANDOM (a
// folder in which a child process writes).
//
// It does not promise anything about file systems that lie about fsync, nor
// mutual exclusion between hosts where a network file system keeps flock to
// one host (NFS before Linux 2.6.12, or mounted with local_lock=flock).
package dir
