package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/sqltext"
)

// Options say how thoroughly.
type Options struct {
	Quick  bool // only existence and sizes
	Search pgtool.Search
	Env    []string // for pg_restore
	Report report.Reporter
}

// Set checks one set and returns what is wrong with it; warnings are among
// them. Of a set that is locked only the digests are checked. The error says that
// the check could not be done.
func Set(ctx context.Context, set *backupset.Set, o Options) ([]backupset.Problem, error) {
	problems := set.CheckQuick(ctx)
	if o.Quick {
		return problems, ctx.Err()
	}
	v := &verification{set: set, o: o, bad: map[string]bool{}}
	v.add(problems)
	v.digests(ctx)
	if set.Locked() { // all is stored as it was written; what is in it nobody here can tell
		return v.problems, context.Cause(ctx)
	}
	err := v.archives(ctx)
	return v.problems, errors.Join(err, context.Cause(ctx))
}

type verification struct {
	set      *backupset.Set
	o        Options
	problems []backupset.Problem
	bad      map[string]bool // objects that are known to be damaged
}

func (v *verification) add(problems []backupset.Problem) {
	for _, p := range problems {
		if p.Severity == backupset.Damage && v.bad[p.Object] && p.Object != "" {
			continue // already named
		}
		v.bad[p.Object] = v.bad[p.Object] || p.Severity == backupset.Damage
		v.problems = append(v.problems, p)
	}
}

func (v *verification) digests(ctx context.Context) {
	total := int64(0)
	for _, o := range v.set.Manifest().Objects {
		total += o.Bytes
	}
	for _, r := range v.set.Manifest().References {
		total += r.Bytes
	}
	task := v.o.Report.Task("digests of "+v.set.ID(), total)
	var read atomic.Int64
	problems := v.set.CheckDigests(ctx, func(n int64) { task.Progress(read.Add(n)) })
	v.add(problems)
	task.End(nil)
}

// archives looks into each database's dump: of a sound one, whether it is
// whole; of a damaged one, which tables are lost.
func (v *verification) archives(ctx context.Context) error {
	for _, d := range v.set.Manifest().Databases {
		if ctx.Err() != nil {
			return nil // the caller says so
		}
		task := v.o.Report.Task("dump of "+pgname.Printable(d.Name), 0)
		err := v.archive(ctx, d)
		task.End(err)
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) archive(ctx context.Context, d backupset.Database) error {
	damaged := v.damagedDump(d)
	if d.Mode == backupset.Chunked {
		return v.chunked(ctx, d)
	}
	if d.Mode == backupset.Plain {
		if damaged {
			return nil // gzip and SQL have no place to name beyond the damage
		}
		return v.found(d, v.set.Reread(func() error { return v.plain(ctx, d) }))
	}
	if !v.set.Local() && d.Mode == backupset.Custom {
		if damaged {
			return nil // reading it again would only find it cut
		}
		return v.found(d, v.set.Reread(func() error { return v.streamToNowhere(ctx, d) }))
	}
	path, done, err := v.set.Fetch(ctx, d.Dump)
	if err != nil {
		return v.found(d, err)
	}
	defer done() //nolint:errcheck // what stays is in the temporary folder
	if damaged {
		return v.nameTables(ctx, d, path)
	}
	return v.found(d, v.restoreToNowhere(ctx, d, path))
}

// streamToNowhere is restoreToNowhere for an archive that is not on this machine.
func (v *verification) streamToNowhere(ctx context.Context, d backupset.Database) error {
	in, err := v.set.OpenObject(ctx, d.Dump)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	tools, err := v.tools(ctx, d)
	if err != nil {
		return pgarchive.CheckPiped(in, pgarchive.WithoutSQL())
	}
	command := tools.Command(pgtool.PgRestore, []string{"--file=/dev/null"}, pgtool.Environ(v.o.Env, nil))
	command.Stdin = in
	return unreadable(child.Run(ctx, command))
}

// tools finds a pg_restore that reads a database's archive, or says why there is
// none.
func (v *verification) tools(ctx context.Context, d backupset.Database) (pgtool.Tools, error) {
	tools, err := v.o.Search.ForArchive(ctx, v.set.Manifest().Server.VersionNum, majorOf(d))
	if err != nil {
		v.o.Report.Warn("no pg_restore that reads this archive; its data was checked without", report.F("database", d.Name), report.F("because", err))
	}
	return tools, err
}

// unreadable says that pg_restore refused an archive.
func unreadable(_ child.Usage, err error) error {
	var exit *child.ExitError
	if errors.As(err, &exit) && exit.Cause == nil {
		return fault.New(fault.Integrity, "", "pg_restore cannot read it: %w", err)
	}
	return err
}

func (v *verification) damagedDump(d backupset.Database) bool {
	if v.bad[d.Dump] {
		return true
	}
	for _, o := range v.set.Below(d.Dump) {
		if v.bad[o.Name] {
			return true
		}
	}
	return false
}

// found records damage and returns every other error.
func (v *verification) found(d backupset.Database, err error) error {
	if err == nil || !fault.Is(err, fault.Integrity) {
		return err
	}
	v.add([]backupset.Problem{{
		Severity: backupset.Damage, Object: d.Dump, Database: d.Name, Err: err,
		Text: fmt.Sprintf("database %s, %s: %v", pgname.Printable(d.Name), d.Dump, err),
	}})
	return nil
}

func (v *verification) plain(ctx context.Context, d backupset.Database) error {
	in, err := v.set.OpenObject(ctx, d.Dump)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	gz, err := compress.NewGzipReader(in)
	if err != nil {
		return fault.New(fault.Integrity, "", "gzip: %w", err)
	}
	gz.Limit(d.DumpBytes)
	if err := sqltext.CheckDump(gz); err != nil {
		return fault.New(fault.Integrity, "", "plain dump: %w", err)
	}
	return nil
}

// restoreToNowhere lets pg_restore read the whole archive. Where no pg_restore
// is installed, our own reader checks the structure and the checksums.
func (v *verification) restoreToNowhere(ctx context.Context, d backupset.Database, path string) error {
	tools, err := v.tools(ctx, d)
	if err != nil {
		return v.checkData(ctx, path)
	}
	return unreadable(child.Run(ctx, tools.Command(pgtool.PgRestore, []string{"--file=/dev/null", path}, pgtool.Environ(v.o.Env, nil))))
}

func majorOf(d backupset.Database) int {
	var major int
	if _, err := fmt.Sscanf(d.DumpTool.Version, "%d", &major); err != nil {
		return 0
	}
	return major
}

func (v *verification) checkData(ctx context.Context, path string) error {
	toc, err := pgarchive.Open(path, pgarchive.WithoutSQL())
	if err != nil {
		return err
	}
	damage, err := toc.CheckData(ctx, path)
	for _, d := range damage {
		return fault.New(fault.Integrity, "", "%w", d)
	}
	if errors.Is(err, pgarchive.ErrNotChecked) {
		return nil
	}
	return err
}

// nameTables says which tables a damaged archive has lost, as far as its
// table of contents can still be read.
func (v *verification) nameTables(ctx context.Context, d backupset.Database, path string) error {
	toc, err := pgarchive.Open(path, pgarchive.WithoutSQL())
	if err != nil {
		return v.note(d, fmt.Sprintf("its table of contents cannot be read: %v", err))
	}
	damage, err := toc.CheckData(ctx, path)
	for _, one := range damage {
		if err := v.note(d, fmt.Sprintf("damaged: %v", one)); err != nil {
			return err
		}
	}
	if len(damage) == 0 && err == nil {
		return v.note(d, "the data blocks of all tables are readable: the damage is in the table of contents, or in data without checksums")
	}
	if err != nil && !fault.Is(err, fault.Integrity) && !errors.Is(err, pgarchive.ErrNotChecked) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
}

func (v *verification) note(d backupset.Database, text string) error {
	v.problems = append(v.problems, backupset.Problem{
		Severity: backupset.Damage, Object: d.Dump, Database: d.Name,
		Text: fmt.Sprintf("database %s, %s: %s", pgname.Printable(d.Name), d.Dump, text),
		Err:  fault.New(fault.Integrity, "", "%s", text),
	})
	return nil
}
