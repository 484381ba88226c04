package pgdump

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgarchive"
)

// archive captures into a custom or directory archive. In a store whose objects
// are files pg_dump writes it itself into a staged place; elsewhere a custom
// archive goes through a pipe, and a directory is refused before a run begins.
func (c *capture) archive(ctx context.Context, captured *Captured) error {
	if !c.set.Local() {
		return c.piped(ctx, captured)
	}
	name, args := c.req.Name+".dump", c.dumpArgs("custom")
	if c.req.Mode == backupset.Directory {
		name, args = c.req.Name+".dir", c.dumpArgs("directory")
		args = append(args, "--jobs="+strconv.Itoa(max(c.req.Jobs, 1)))
	}
	staged, err := c.set.Stage(ctx, name)
	if err != nil {
		return err
	}
	defer staged.Discard() //nolint:errcheck // after a commit this does nothing; else gc finds it
	path := staged.Path()
	args = append(args, "--compress="+strconv.Itoa(c.req.Level), "--file="+path)
	captured.Usage, err = c.run(ctx, args, remembered(func() int64 { return treeBytes(path) }))
	if err != nil {
		return c.explainRoom(err)
	}
	if err := wholeArchive(path); err != nil {
		return err
	}
	objects, err := staged.Commit(ctx)
	if err != nil {
		return err
	}
	captured.Dump = name
	for _, o := range objects {
		captured.StoredBytes += o.Bytes
	}
	return nil
}

// piped captures into a custom archive by way of a pipe.
func (c *capture) piped(ctx context.Context, captured *Captured) error {
	if c.req.Mode != backupset.Custom {
		return fmt.Errorf("mode %s: %w", c.req.Mode, backupset.ErrNotLocal)
	}
	var stored atomic.Int64
	c.progress.watch(stored.Load, stored.Load)
	command := c.command(append(c.dumpArgs("custom"), "--compress="+strconv.Itoa(c.req.Level)))
	usage, object, err := pipeArchive(ctx, command, c.set, c.req.Name+".dump", c.req.Expected, &stored)
	if err != nil {
		return c.explainRoom(err)
	}
	captured.Usage, captured.Dump, captured.StoredBytes = usage, object.Name, object.Bytes
	return nil
}

// run runs pg_dump, which writes by itself; written tells how much so far.
func (c *capture) run(ctx context.Context, args []string, written func() int64) (child.Usage, error) {
	p, err := child.Start(ctx, c.command(args))
	if err != nil {
		return child.Usage{}, err
	}
	c.progress.watch(written, signsOf(p, written))
	return p.Wait()
}

// wholeArchive looks at what pg_dump left: exit status 0 proves nothing about
// a file (FACTS: exit codes and archives).
func wholeArchive(path string) error {
	toc, err := pgarchive.Open(path, pgarchive.WithoutSQL(), pgarchive.OnlyData())
	if err == nil {
		err = toc.Complete(fileBytes(path))
	}
	if err != nil {
		// %v: the kind of err is that of damage in a store, and nothing is stored.
		return fault.New(fault.Failed, "", "pg_dump exited with status 0, but its archive is not whole: %v", err)
	}
	return nil
}

// treeBytes sums the files at and below a path that is being written.
func treeBytes(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	if !info.IsDir() {
		return info.Size()
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0
	}
	sum := int64(0)
	for _, e := range entries {
		sum += fileBytes(filepath.Join(path, e.Name()))
	}
	return sum
}
