package pgdump

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Source is where a capture reads from.
type Source struct {
	Endpoint *pg.Endpoint
	Tools    pgtool.Tools
	Standby  bool
}

// Request is what to capture, and how.
type Request struct {
	Database string
	Mode     backupset.Mode // custom, plain or directory; auto was resolved before
	Name     string         // base of the object's name, e.g. databases/app
	Level    int            // gzip level, 0 to 6
	Jobs     int            // directory mode: pg_dump's workers
	Procs    int            // plain mode: goroutines that compress

	WithoutData      []pgname.Table // tables of which only the definition is wanted
	SkipLargeObjects bool

	Expected int64                                    // bytes that will be stored, estimated
	Free     func() (bytes, inodes uint64, err error) // what the store has left; nil: nobody knows

	LockTimeout time.Duration // for each table's lock; 0 waits for ever
	Limit       time.Duration // for the whole capture; 0 none
	Stall       time.Duration // without a byte; 0 none
}

// Captured is a finished capture. Its objects are recorded in the set.
type Captured struct {
	Dump        string // object, or folder of objects
	DumpBytes   int64  // plain mode: SQL before compression
	StoredBytes int64
	Snapshot    pg.Snapshot
	Usage       child.Usage
}

// Capture writes one database into the set. When it returns an error nothing
// of it is in the set. An error of kind fault.Unavailable means that the
// server was lost, and that trying again is safe.
func Capture(ctx context.Context, src Source, req Request, set *backupset.Writer, r report.Reporter, task report.Task) (Captured, error) {
	c := &capture{src: src, req: req, set: set, report: r, task: task, application: ApplicationName("pg_dump")}
	conflicts, err := pg.WatchConflicts(ctx, src.Endpoint, src.Standby, req.Database)
	if err != nil {
		return Captured{}, err
	}
	var captured Captured
	err = src.Endpoint.WithSnapshot(ctx, req.Database, func(ctx context.Context, k *pg.Keeper) error {
		captured.Snapshot = k.Snapshot
		err := c.watched(ctx, k, &captured)
		if err == nil {
			return nil
		}
		return c.explain(ctx, k, conflicts, err)
	})
	if err != nil {
		c.endBackends(ctx)
		return Captured{}, fmt.Errorf("capture database %s: %w", pgname.Printable(req.Database), err)
	}
	return captured, nil
}

// capture is one attempt at one database.
type capture struct {
	src         Source
	req         Request
	set         *backupset.Writer
	report      report.Reporter
	task        report.Task
	application string // of pg_dump's sessions, so that they can be found and ended
	snapshot    string
	encoding    string

	progress progress
	blockers Blockers
}

// ApplicationName is unique, so that only our own backends are ever ended.
func ApplicationName(of string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return "dbbackup " + of + " " + hex.EncodeToString(b[:])
}

// watched runs the capture under the time limits, and beside it the watch for
// lock waits.
func (c *capture) watched(ctx context.Context, k *pg.Keeper, captured *Captured) error {
	c.snapshot, c.encoding = k.Snapshot.Name, k.Encoding
	stop := c.blockers.watch(ctx, c.src.Endpoint, c.application, c.report, c.req.Database)
	defer stop()
	limits := child.WatchOptions{Limit: c.req.Limit, Stall: c.req.Stall, Progress: c.progress.alive}
	return child.Watch(ctx, limits, func(ctx context.Context) error {
		stopProgress := c.progress.report(ctx, c.task)
		defer stopProgress()
		switch c.req.Mode {
		case backupset.Plain:
			return c.plain(ctx, captured)
		case backupset.Custom, backupset.Directory:
			return c.archive(ctx, captured)
		default:
			return fmt.Errorf("mode %q is not one of this engine's", c.req.Mode)
		}
	})
}

// dumpArgs are the options that all modes share. Names are data: they reach
// pg_dump inside an escaped connection string or a quoted pattern only.
func (c *capture) dumpArgs(format string) []string {
	args := []string{
		"--dbname=" + c.src.Endpoint.ChildConninfo(c.req.Database, c.application),
		"--no-password",
		"--format=" + format,
		"--snapshot=" + c.snapshot,
		"--encoding=" + c.encoding, // else the role's client_encoding decides
		"--quote-all-identifiers",  // a newer server may have made a word of a name
	}
	if c.req.LockTimeout > 0 {
		args = append(args, "--lock-wait-timeout="+strconv.FormatInt(c.req.LockTimeout.Milliseconds(), 10))
	}
	if c.req.SkipLargeObjects {
		args = append(args, "--no-blobs")
	}
	for _, t := range c.req.WithoutData {
		args = append(args, "--exclude-table-data="+pgname.DumpPattern(t.Schema, t.Name))
	}
	return args
}

func (c *capture) command(args []string) child.Command {
	return c.src.Tools.Command(pgtool.PgDump, args, pgtool.Environ(c.src.Endpoint.ChildEnv(), nil))
}

// explain turns pg_dump's failure into what an operator needs to know: who
// held the lock, that the server went away, that the standby cancelled it.
func (c *capture) explain(ctx context.Context, k *pg.Keeper, conflicts *pg.Conflicts, err error) error {
	var exit *child.ExitError
	if !errors.As(err, &exit) || exit.Cause != nil || ctx.Err() != nil {
		return err
	}
	if held := k.Held(ctx); held != nil {
		return fault.New(fault.Unavailable, "", "%w: %w", held, err)
	}
	if b := c.blockers.Recent(); b != "" {
		return fault.New(fault.Failed, "end that session, or allow a longer --lock-timeout",
			"a table is locked by %s: %w", b, err)
	}
	return Cancelled(ctx, conflicts, err)
}

// Cancelled says that a standby cancelled what failed with err, where it did: a
// statement, or a program of PostgreSQL. Else it is err.
func Cancelled(ctx context.Context, conflicts *pg.Conflicts, err error) error {
	var exit *child.ExitError
	program := errors.As(err, &exit) && exit.Cause == nil
	statement := pg.SQLState(err) != "" && !fault.Is(err, fault.Unavailable) // else it is explained
	if !program && !statement || !conflicts.Cancelled(ctx, err) {
		return err
	}
	return pg.CancelledError(err)
}

// endTimeout bounds the clean-up on a server that may be gone.
const endTimeout = 5 * time.Second

// endBackends ends what is left of pg_dump's sessions: one that waits for a
// lock does not notice that its client has died. A server that cannot be
// reached any more has none, or ends them by itself.
func (c *capture) endBackends(ctx context.Context) {
	EndBackends(ctx, c.src.Endpoint, c.application, c.report, c.req.Database)
}

// EndBackends ends what is left of the sessions of an ApplicationName.
func EndBackends(ctx context.Context, endpoint *pg.Endpoint, application string, r report.Reporter, database string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	conn, err := endpoint.ConnectOnce(ctx, endpoint.Database)
	if err != nil {
		return
	}
	defer conn.Close(ctx) //nolint:errcheck // the sessions are ended by then
	if n, err := conn.TerminateBackends(ctx, application); err == nil && n > 0 {
		r.Info("ended sessions that the capture left behind", report.F("database", database), report.F("sessions", n))
	}
}

func fileBytes(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}
