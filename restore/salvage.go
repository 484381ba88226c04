package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
)

const salvageHint = "restore another set; where there is none, --salvage restores what is sound"

// What a person can do about what a salvage cannot restore; the runbook has the rest.
const (
	byHandHint     = "restore another set, or its sound tables one by one with pg_restore: docs/runbook-lost-table.md, \"The set is damaged\""
	noSchemaHint   = "make the definitions from another set (--schema-only) or from the application's own scripts, and load the rows into them: --data-only --salvage"
	noContentsHint = "restore another set, a newer incremental one among them: it knows the chunks that it took from this one; what is left by hand: docs/runbook-lost-table.md, \"contents.json is damaged\""
)

// damageHint says what is best done about damage in databases.
func (p *preparation) damageHint(chosen []backupset.Database) string {
	if p.o.Kind == backupset.Single && chosen[0].Mode != backupset.Chunked {
		return byHandHint
	}
	return salvageHint
}

// refuseSalvage: what is lost of a database can be told by chunks only.
func (p *preparation) refuseSalvage(d backupset.Database) error {
	if !p.o.Salvage || d.Mode == backupset.Chunked {
		return nil
	}
	return fault.New(fault.Usage, byHandHint,
		"database %s was captured in %s mode by pg_dump: --salvage is for sets in chunks", pgname.Printable(d.Name), d.Mode)
}

// Gone is a database of which nothing can be restored.
type Gone struct {
	Source backupset.Database
	Err    error
}

func (g Gone) String() string {
	text := "all of database " + pgname.Printable(g.Source.Name) + ": " + strings.ReplaceAll(g.Err.Error(), "\n", "; ")
	if hints := fault.Hints(g.Err); len(hints) > 0 {
		text += "; " + hints[0] // the others are for whoever has not come to salvage yet
	}
	return text
}

// of begins what is said of a database where there are several.
func (p *Plan) of(d backupset.Database) string {
	if p.o.Kind == backupset.Single {
		return ""
	}
	return "database " + pgname.Printable(d.Name) + ": "
}

// lose declares something of the set damaged.
func (p *preparation) lose(what string) {
	p.damaged, p.Omitted = true, append(p.Omitted, what)
}

// Lost reports whether a salvage found something of the set damaged or missing.
func (p *Plan) Lost() bool { return p.damaged }

// salvage is planSound for a set that may be damaged: it reads all that the restore
// needs before anything is written, and what is not sound becomes a declared
// omission. Of a cluster a database of which nothing can be restored is one, too.
func (p *preparation) salvage(ctx context.Context, chosen []backupset.Database) error {
	if err := p.salvageGlobals(ctx); err != nil {
		return err
	}
	var gone []error
	for _, d := range chosen {
		err := p.salvageDatabase(ctx, d)
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.Integrity) || ctx.Err() != nil {
			return err
		}
		g := Gone{d, err}
		p.Gone, gone = append(p.Gone, g), append(gone, err)
		p.lose(g.String())
	}
	if len(gone) == len(chosen) {
		return errors.Join(gone...)
	}
	return nil
}

// salvageGlobals: without the globals of a set its databases can still be restored,
// where the roles that they name are made by hand.
func (p *preparation) salvageGlobals(ctx context.Context) error {
	g := p.o.Set.Manifest().Globals
	if g == nil || p.o.Kind != backupset.Cluster {
		return nil
	}
	err := p.readAll(ctx, g.Object)
	switch {
	case err == nil:
		return p.planGlobals(ctx)
	case !fault.Is(err, fault.Integrity), ctx.Err() != nil:
		return err
	}
	p.lose(fmt.Sprintf("roles and tablespaces, of which those that the databases name must be there: %v", err))
	return nil
}

// salvageDatabase plans what can be restored of one database: of one in chunks all
// that is sound, of what pg_dump wrote everything or nothing.
func (p *preparation) salvageDatabase(ctx context.Context, d backupset.Database) error {
	if d.Mode == backupset.Chunked {
		if err := p.planDatabase(ctx, d); err != nil {
			return err
		}
		return p.salvageChunks(ctx, &p.Steps[len(p.Steps)-1])
	}
	err := p.readAll(ctx, archiveOf(d))
	if err == nil {
		err = p.checkPlainDumps(ctx, []backupset.Database{d})
	}
	if err != nil {
		return withHint(byHandHint, err)
	}
	return p.planDatabase(ctx, d)
}

// readAll reads an object, or the folder of them, to its end.
func (p *preparation) readAll(ctx context.Context, name string) error {
	objects := slices.Clone(p.o.Set.Below(name))
	if o, ok := p.o.Set.Object(name); ok {
		objects = append(objects, o)
	}
	return p.readToEnd(ctx, objects, nil)
}

// withHint adds what can be done about damage.
func withHint(hint string, err error) error {
	if !fault.Is(err, fault.Integrity) {
		return err
	}
	return fault.New(fault.Integrity, hint, "%w", err)
}

// salvageProperties takes what the manifest has where the database's own properties
// are damaged. Whom they let in is not known then: but for the databases that
// everybody needs, only the owner gets in.
func (p *preparation) salvageProperties(ctx context.Context, s *Step) error {
	err := p.o.Set.Reread(func() error { return p.readProperties(ctx, s) })
	if !fault.Is(err, fault.Integrity) || ctx.Err() != nil {
		return err
	}
	d := s.Source
	s.properties = pg.Database{
		Name: d.Name, Owner: d.Owner, Encoding: d.Encoding, Provider: d.LocaleProvider, Collate: d.Collate, CType: d.CType,
		Locale: d.Locale, Tablespace: d.Tablespace, Template: d.Template, AllowConn: true, ConnectionLimit: -1,
	}
	if p.o.DataOnly {
		return nil // which has no use for them
	}
	lost, name := "privileges, settings and comment of database %s itself: %v", pgname.Printable(d.Name)
	if d.Name != "postgres" && d.Name != "template1" {
		lost = "privileges, settings and comment of database %s itself, to which only its owner may connect until it is granted: %v"
		s.properties.Grants = []pg.Grant{}
		for _, privilege := range []string{"CREATE", "TEMPORARY", "CONNECT"} {
			s.properties.Grants = append(s.properties.Grants, pg.Grant{Grantor: d.Owner, Grantee: d.Owner, Privilege: privilege})
		}
	}
	p.lose(fmt.Sprintf(lost, name, err))
	return nil
}

// openDamaged is openArchive for one that may be damaged, which is found out before
// anything of it is read. Rows that go into tables that are there need no
// definitions.
func (p *preparation) openDamaged(ctx context.Context, s *Step) error {
	err := p.readAll(ctx, archiveOf(s.Source))
	switch {
	case err == nil:
		return p.openArchive(ctx, s)
	case !fault.Is(err, fault.Integrity), ctx.Err() != nil:
		return err
	case !p.o.DataOnly:
		return withHint(noSchemaHint, notWritten(err))
	}
	p.damaged = true
	p.Notices = append(p.Notices, fmt.Sprintf("the definitions of database %s are damaged, and --data-only does not need them: %v", pgname.Printable(s.Source.Name), err))
	s.toc = definedIn(s.contents)
	return nil
}

// definedIn is the table of contents of an archive of which only what has rows or
// values is known.
func definedIn(c *backupset.Contents) *pgarchive.TOC {
	toc := &pgarchive.TOC{}
	add := func(desc, schema, name string) {
		toc.Entries = append(toc.Entries, pgarchive.Entry{
			ID: len(toc.Entries) + 1, Desc: desc, Schema: schema, Tag: name, Section: pgarchive.PreData, Offset: -1,
		})
	}
	for i := range c.Tables {
		add("TABLE", c.Tables[i].Schema, c.Tables[i].Name)
	}
	for _, s := range c.Sequences {
		add("SEQUENCE", s.Schema, s.Name)
	}
	return toc
}

// salvageChunks reads the chunks of a database and leaves out those that are damaged.
func (p *preparation) salvageChunks(ctx context.Context, s *Step) error {
	total := int64(0)
	s.contents.Pieces(func(_ *backupset.ChunkedTable, piece *backupset.Piece) { total += piece.RawBytes })
	task := p.o.Report.Task("check "+p.o.Set.ID(), total)
	var read atomic.Int64
	losses, err := pgcopy.Salvage(ctx, p.o.Set, s.contents, s.chosenTables(), s.entries == nil,
		func(n int64) { task.Progress(read.Add(n)) })
	task.End(err)
	if err != nil {
		return notWritten(err)
	}
	s.lost = losses
	for _, l := range losses {
		p.lose(p.of(s.Source) + l.String())
	}
	return nil
}

// failing are the refusals that make a restore fail: all but those of foreign keys
// where rows are lost, to which others may refer.
func (s *Step) failing(problems []pgtool.ObjectError) []pgtool.ObjectError {
	if len(s.lost) == 0 {
		return problems
	}
	return slices.DeleteFunc(slices.Clone(problems), func(e pgtool.ObjectError) bool {
		return e.ForeignKey
	})
}

// lostKey identifies what is lost, because a restore that was interrupted goes on
// only where the same is missing.
func (s *Step) lostKey() string {
	var key strings.Builder
	for _, l := range s.lost {
		fmt.Fprintf(&key, "%q %d %d;", l.Table, l.FirstPage, l.FirstOID)
	}
	return key.String()
}
