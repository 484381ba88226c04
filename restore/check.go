package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
)

// checkObjects reads the objects that the restore needs and compares their
// digests (R1); of a plain dump it also proves that the end is there. Chunks are
// checkChunks's.
func (p *preparation) checkObjects(ctx context.Context, chosen []backupset.Database) error {
	if p.o.Checked {
		return nil
	}
	set := p.o.Set
	var objects []backupset.Object
	var references []backupset.Reference
	for _, d := range chosen {
		if p.partly(d) || p.streams(d) {
			objects = append(objects, withoutRows(set, d)...)
			continue
		}
		objects = append(objects, set.ObjectsOf(d.Name)...)
		references = append(references, set.ReferencesOf(d.Name)...)
	}
	if g := set.Manifest().Globals; g != nil && p.o.Kind == backupset.Cluster {
		if o, ok := set.Object(g.Object); ok {
			objects = append(objects, o)
		}
	}
	err := p.read(ctx, objects, references)
	if err == nil {
		err = notWritten(p.checkPlainDumps(ctx, chosen))
	}
	return withHint(p.damageHint(chosen), err)
}

// read reads objects to their ends, before anything is written.
func (p *preparation) read(ctx context.Context, objects []backupset.Object, references []backupset.Reference) error {
	return notWritten(p.readToEnd(ctx, objects, references))
}

func (p *preparation) readToEnd(ctx context.Context, objects []backupset.Object, references []backupset.Reference) error {
	total := int64(0)
	for _, o := range objects {
		total += o.Bytes
	}
	for _, o := range references {
		total += o.Bytes
	}
	task := p.o.Report.Task("check "+p.o.Set.ID(), total)
	var read atomic.Int64
	err := problemsError(p.o.Set.CheckObjects(ctx, objects, references, func(n int64) { task.Progress(read.Add(n)) }))
	task.End(err)
	if err == nil {
		return ctx.Err()
	}
	return err
}

func notWritten(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("check before the restore, nothing was written: %w", err)
}

func problemsError(problems []backupset.Problem) error {
	const shown = 20
	var errs []error
	n := 0
	for _, problem := range problems {
		if problem.Severity != backupset.Damage {
			continue
		}
		if n++; n <= shown {
			errs = append(errs, problem.Err)
		}
	}
	if n > shown {
		errs = append(errs, fmt.Errorf("and %d more objects are damaged", n-shown))
	}
	return errors.Join(errs...)
}

func (p *preparation) checkPlainDumps(ctx context.Context, chosen []backupset.Database) error {
	for _, d := range chosen {
		if d.Mode != backupset.Plain {
			continue
		}
		if err := pgdump.CheckPlain(ctx, p.open(d.Dump), d.DumpBytes); err != nil {
			return fmt.Errorf("database %s, object %s: %w", pgname.Printable(d.Name), d.Dump, err)
		}
	}
	return nil
}

// open returns a function that reads an object with its digest checked.
func (p *Plan) open(object string) func(ctx context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) { return p.o.Set.OpenObject(ctx, object) }
}

// checkTarget collects what the target lacks.
func (p *preparation) checkTarget(ctx context.Context) error {
	if from := pgtool.VersionOf(p.o.Set.Manifest().Server.VersionNum); from.Major > pgtool.VersionOf(p.Server.VersionNum).Major {
		p.problem("the set comes from PostgreSQL %s, and the server is %s: an older major version does not understand it", from, p.Server.Version)
	}
	if p.Server.Standby {
		p.problem("the server is a standby: it cannot be written to")
	}
	if p.Server.ReadOnly {
		p.problem("the server starts transactions read-only (default_transaction_read_only): it is not meant to be written to; " +
			"give -d 'options=-c\\ default_transaction_read_only=off' if it is")
	}
	if !p.Server.Superuser && !p.Server.CreateDB && !p.o.DataOnly {
		p.problem("role %s may not create databases: it needs CREATEDB, or be a superuser", p.o.Target.User)
	}
	p.checkNames()
	if err := p.checkExtensions(ctx); err != nil {
		return err
	}
	for _, s := range p.Steps {
		if s.Action == Create || s.Action == Replace {
			if err := p.checkLocale(ctx, s); err != nil {
				return err
			}
		}
	}
	return p.checkSpace()
}

func (p *preparation) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// checkNames looks for roles and tablespaces that the databases name and that
// will not be there.
func (p *preparation) checkNames() {
	for _, s := range p.Steps {
		d := s.Source
		for _, role := range rolesOf(d) {
			p.checkRole(d, role)
		}
		for _, tablespace := range append(slices.Clone(d.Tablespaces), d.Tablespace) {
			to := tablespace
			if mapped, ok := p.o.MapTablespaces[tablespace]; ok {
				to = mapped
			}
			if to != "" && !slices.Contains(p.tablespaces, to) {
				p.problem("tablespace %s does not exist, and database %s uses it: create it, or give --map-tablespace %s=pg_default",
					pgname.Printable(to), pgname.Printable(d.Name), pgname.Printable(tablespace))
			}
		}
	}
}

func rolesOf(d backupset.Database) []string {
	roles := append(slices.Clone(d.Roles), d.Owner)
	slices.Sort(roles)
	return slices.Compact(roles)
}

func (p *preparation) checkRole(d backupset.Database, role string) {
	if role == "" || p.o.NoOwner && p.o.NoACL {
		return
	}
	to := role
	if mapped, ok := p.o.MapRoles[role]; ok {
		to = mapped
	}
	if _, ok := p.roles[to]; !ok {
		p.problem("role %s does not exist, and objects of database %s name it: create it, give --map-role %s=OTHER, or --no-owner --no-acl",
			pgname.Printable(to), pgname.Printable(d.Name), pgname.Printable(role))
	}
}

func (p *preparation) checkExtensions(ctx context.Context) error {
	if p.o.DataOnly {
		return nil
	}
	available, err := p.conn.Extensions(ctx)
	if err != nil {
		return err
	}
	for _, s := range p.Steps {
		for _, e := range s.Source.Extensions {
			if !slices.Contains(available, e) {
				p.problem("extension %s is not installed on the server, and database %s needs it: install its package",
					pgname.Printable(e), pgname.Printable(s.Source.Name))
			}
		}
	}
	return nil
}

func (p *preparation) checkLocale(ctx context.Context, s Step) error {
	name := pgname.Printable(s.Source.Name)
	if s.properties.Provider == "icu" {
		ok, err := p.conn.HasICU(ctx)
		if err != nil {
			return err
		}
		if !ok {
			p.problem("database %s uses ICU locales, and the server was built without ICU", name)
		}
	}
	for _, locale := range []string{s.properties.Collate, s.properties.CType} {
		ok, err := p.conn.HasCollation(ctx, locale)
		if err != nil {
			return err
		}
		if !ok {
			p.problem("locale %s of database %s is not known to the server: generate it on the host (locale-gen) and restart",
				pgname.Printable(locale), name)
		}
	}
	return nil
}

// checkSpace compares what the databases took on the source with what is free
// where the target keeps its data. It can only look when that is here.
func (p *preparation) checkSpace() error {
	need := int64(0)
	for _, s := range p.Steps {
		need += s.Source.DatabaseBytes
	}
	if p.Server.DataDirectory == "" || !p.o.Target.Local() {
		p.Notices = append(p.Notices, fmt.Sprintf("free space on the server was not checked; the databases took %s on the source",
			bytesize.Format(need)))
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.Server.DataDirectory, &fs); err != nil {
		p.Notices = append(p.Notices, fmt.Sprintf("free space in %s could not be checked: %v", p.Server.DataDirectory, err))
		return nil
	}
	if free := int64(fs.Bavail) * fs.Bsize; need > free { //nolint:gosec // far below 2^63
		p.problem("the databases take about %s, and %s has %s free", bytesize.Format(need), p.Server.DataDirectory, bytesize.Format(free))
	}
	return nil
}
