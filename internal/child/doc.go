// Package child runs one child process and leaves nothing of it behind. It
// owns os/exec for the project.
//
// A child is the leader of a process group of its own, so that a terminal's
// Ctrl-C reaches this process only, and so that everything the child forked
// (the workers of pg_dump -j) can be ended with it. When its context ends, the
// group gets Command.EndSignal (SIGTERM) and after Command.Grace SIGKILL. When the leader exits,
// whatever is left of the group is ended too: a program that is to outlive its
// parent must start a session of its own (setsid).
//
// Output counts only after exit status 0 (B6): the reader of Pipe reports EOF
// after the child was seen to succeed, and a child's failure in place of EOF.
// The same holds for what a child is fed: when reading Stdin fails, the child
// is ended before its input is closed, because psql takes the end of a cut
// input for the end of the data and commits it.
//
// Standard error is read to its end, in bounded memory, before Wait returns,
// so its last lines are never lost.
//
// If this process dies, the leader gets that signal from the kernel (PDEATHSIG);
// pg_dump and pg_restore hand it on to their workers. See Process.own for why
// that is safe with Go's threads.
//
// Not promised: that a process which left the group (setsid) ends, that a
// Reader given as Stdin is interrupted (Wait waits for its pending Read), and
// a shell: there is none (S1). A child in a group of its own cannot read from
// the terminal: pass -w to PostgreSQL's programs, or a password prompt stops
// them.
package child
