package pgdump

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/pgtool"
)

// SchemaRequest is a capture of definitions alone, for an engine that captures
// the rows itself.
type SchemaRequest struct {
	Database    string
	Object      string // that the archive becomes
	Application string // of pg_dump's session
	Snapshot    string // exported, and held by the caller
	Encoding    string // of the database
	LockTimeout time.Duration
	Signs       *atomic.Int64 // grows with every sign of pg_dump's life
}

// CaptureSchema lets pg_dump write the definitions of a database, as a custom
// archive without data, under a snapshot of the caller's.
func CaptureSchema(ctx context.Context, src Source, req SchemaRequest, set *backupset.Writer) (child.Usage, error) {
	args := []string{
		"--dbname=" + src.Endpoint.ChildConninfo(req.Database, req.Application),
		"--no-password", "--format=custom", "--schema-only", "--snapshot=" + req.Snapshot, "--encoding=" + req.Encoding,
		"--quote-all-identifiers",
	}
	if req.LockTimeout > 0 {
		args = append(args, "--lock-wait-timeout="+strconv.FormatInt(req.LockTimeout.Milliseconds(), 10))
	}
	command := func(args []string) child.Command {
		return src.Tools.Command(pgtool.PgDump, args, pgtool.Environ(src.Endpoint.ChildEnv(), nil))
	}
	if !set.Local() {
		usage, _, err := pipeArchive(ctx, command(args), set, req.Object, 0, req.Signs)
		return usage, err
	}
	staged, err := set.Stage(ctx, req.Object)
	if err != nil {
		return child.Usage{}, err
	}
	defer staged.Discard() //nolint:errcheck // after a commit this does nothing; else gc finds it
	p, err := child.Start(ctx, command(append(args, "--file="+staged.Path())))
	if err != nil {
		return child.Usage{}, err
	}
	stop := passOn(p, func() int64 { return fileBytes(staged.Path()) }, req.Signs)
	usage, err := p.Wait()
	stop()
	if err != nil {
		return usage, err
	}
	if err := wholeArchive(staged.Path()); err != nil {
		return usage, err
	}
	_, err = staged.Commit(ctx)
	return usage, err
}

// passOn adds the processor time that a child uses, and the bytes that it has written,
// to signs, until the returned function is called.
func passOn(p *child.Process, written func() int64, signs *atomic.Int64) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		last, size := time.Duration(0), int64(0)
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			if used, ok := p.CPUTime(); ok && used > last {
				signs.Add(int64(used - last))
				last = used
			}
			if now := written(); now > size {
				signs.Add(now - size)
				size = now
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}
