package pgdump

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"dbbackup/compress"
	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/sqltext"
)

// plain captures into gzipped SQL: pg_dump's pipe, parallel gzip, the store.
func (c *capture) plain(ctx context.Context, captured *Captured) (err error) {
	object, err := c.set.Object(ctx, c.req.Name+".sql.gz", c.req.Expected)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Abort()) }() // after a commit this does nothing
	var raw, stored atomic.Int64
	c.progress.watch(stored.Load, raw.Load)
	var trailer sqltext.TailCheck
	captured.Usage, err = child.Pipe(ctx, c.command(append(c.dumpArgs("plain"), "--compress=0")), func(pipe io.Reader) error {
		return c.compress(&counter{w: object, n: &stored}, io.TeeReader(pipe, io.MultiWriter(&trailer, &counter{w: io.Discard, n: &raw})))
	})
	if err != nil {
		return c.explainRoom(err)
	}
	if err := trailer.Complete(); err != nil {
		// %v: the kind of err is that of damage in a store, and nothing is stored.
		return fault.New(fault.Failed, "", "pg_dump exited with status 0, but its dump is not whole: %v", err)
	}
	done, err := object.Commit()
	if err != nil {
		return err
	}
	captured.Dump, captured.StoredBytes, captured.DumpBytes = done.Name, done.Bytes, raw.Load()
	return nil
}

func (c *capture) compress(w io.Writer, r io.Reader) error {
	gz, err := compress.NewGzipWriter(w, c.req.Level, c.req.Procs)
	if err != nil {
		return err
	}
	if _, err := io.Copy(gz, r); err != nil {
		gz.Abort()
		return err
	}
	return gz.Close()
}

// counter counts what passes to w.
type counter struct {
	w io.Writer
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}
