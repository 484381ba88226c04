// Package pgtest runs throwaway PostgreSQL clusters for tests, from the
// binaries of this machine, in about half a second each.
//
// A cluster listens on a free port of 127.0.0.1 and on a Unix socket, and asks
// for a SCRAM password on both, so that tests authenticate as users do; only the
// superuser's verifier is one that is cheap to check. A cluster is durable against
// nothing: fsync is off. It lies in os.TempDir(), which had better be in memory,
// as scripts/test.sh has it: TMPDIR=/dev/shm go test ./cmd/dbbackup. As root, the
// server runs as the user postgres, who must be able to reach that folder.
//
// What a test process started ends with it: Cleanup stops the server and
// removes its folder, and a test process that is killed takes the postmaster
// with it (the kernel sends SIGQUIT when the thread that forked it is gone).
// The folder that a killed process left is removed by a later Open.
//
// Tests of one package share a cluster through Shared and take a database each
// from Cluster.Database; what needs a server of its own gets it from Shared.Start,
// which copies what initdb made once. Without PostgreSQL a test is skipped with
// the reason, and fails where the environment has CI set. PGTEST_BIN, a list like
// PATH of folders with server binaries, replaces the search for installed versions.
//
// The package is for tests and for the programs below cmd, which give shell
// scripts the same clusters. It promises nothing about PostgreSQL before 13.
package pgtest
