// Package sysprobe looks at the host that dbbackup runs on, and says what
// follows from it.
//
// Probe gathers facts: processors and memory that this process may really use
// (cgroup v1 and v2 counted), the file systems of the store and of local data
// directories, block devices, kernel settings and resource limits. Two pure
// functions draw conclusions: Facts.Limits sizes a run, Advise says what to
// tune and where PostgreSQL's manual sees it differently.
//
// What holds here:
//
//  1. Probe only reads. Nothing in this package changes a host;
//     scripts/tune-host.sh does, and takes it back.
//  2. Every path is read below Options.Root, and no environment variable is
//     read, so that a folder of files is as good a host as a real one.
//  3. A fact that the host does not tell is unknown (-1, or the empty string),
//     never a guess, and never advice.
//
// It does not promise that a number stays true: memory and space are of the
// moment of the probe. It knows nothing of a server on another machine.
package sysprobe
