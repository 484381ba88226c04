// Package throwaway runs a PostgreSQL server that nobody else uses and that
// leaves nothing behind: what a drill restores a set into.
//
// The server is made by initdb from the programs of this host, of exactly the
// major version that is asked for. It listens on no network: its one socket
// stands in a folder that only the server's user (and root) may enter, and
// whoever can connect may be any role without a password. So there is no
// secret to leak, and a restore that gives the superuser the password of its
// source does not lock itself out. As root, the server runs as the user
// postgres, who must be able to enter the folder above its data.
//
// It is made to be filled fast and durable against nothing: fsync is off. It
// never starts again by itself after a crash, since a restart empties unlogged
// tables: a server that answers holds what was written to it. It runs no
// autovacuum and no subscription's workers. Its log names no statement that
// failed, and no row.
//
// Close stops the server and removes every file. When this process is killed
// the kernel tells the postmaster (SIGQUIT), which ends its backends. The
// folder then stays until a Start in the same parent folder removes it. Every
// process of the server holds the lock of its folder, open as its standard
// input, so a folder in use by any of them is never removed.
//
// Not promised: versions before 10, hosts other than Linux, and that databases
// restored into it behave as on their source: extensions and
// shared_preload_libraries are the caller's to provide (Options.Settings).
package throwaway
