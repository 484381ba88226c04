package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/sqltext"
)

const (
	globalsObject = "globals.sql"
	serverFolder  = "server"
)

// captureGlobals stores what belongs to the cluster as a whole: roles with
// their memberships, tablespaces, grants on parameters, and the server's own
// settings and access rules. A single database's set has them too, because it
// cannot be restored elsewhere without its roles. When the server is lost
// meanwhile they are captured again, as a database is.
func (r *run) captureGlobals(ctx context.Context) error {
	var g *globals
	_, err := r.again(ctx, []report.Field{report.F("task", "globals"), report.F("begins", "from its beginning")}, func() error {
		g = &globals{}
		if err := r.set.Drop(ctx, globalsObject, serverFolder); err != nil { // an earlier attempt's
			return err
		}
		return r.globalsOnce(ctx, g)
	})
	for _, o := range g.omissions {
		r.omit("", o.Object, o.Reason)
	}
	if g.whole {
		r.manifest.Globals = &g.Globals
	}
	return err
}

// globals are what one attempt has captured.
type globals struct {
	backupset.Globals
	whole     bool // but perhaps for the server's files
	omissions []backupset.Omission
}

func (g *globals) omit(object, reason string) {
	g.omissions = append(g.omissions, backupset.Omission{Object: object, Reason: reason})
}

// globalsOnce is ended when it does not move: a server behind a network that has
// swallowed its connection says nothing for ever.
func (r *run) globalsOnce(ctx context.Context, g *globals) error {
	var moved signs
	conflicts, err := pg.WatchConflicts(ctx, r.o.Source, r.server.Standby, r.o.Source.Database)
	if err == nil {
		watch := child.WatchOptions{Stall: r.o.Defaults.Stall, Progress: moved.Load}
		err = child.Watch(ctx, watch, func(ctx context.Context) error { return r.readGlobals(ctx, g, &moved) })
	}
	if err != nil {
		return fmt.Errorf("capture globals: %w", pgdump.Cancelled(ctx, conflicts, err))
	}
	return nil
}

// signs counts what comes.
type signs struct{ atomic.Int64 }

func (s *signs) Write(p []byte) (int, error) {
	s.Add(int64(len(p)))
	return len(p), nil
}

func (r *run) readGlobals(ctx context.Context, g *globals, moved *signs) error {
	conn, err := r.o.Source.Connect(ctx, r.o.Source.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	g.Object, g.RolePasswords = globalsObject, r.server.ReadsPasswords
	if err := describeGlobals(ctx, conn, g); err != nil {
		return err
	}
	moved.Add(1)
	if err := r.dumpGlobals(ctx, g, moved); err != nil {
		// Whether the server is gone is not in pg_dumpall's words, but in a session's fate.
		return orLost(err, conn.Exec(ctx, "look for the server", "SELECT 1"))
	}
	g.whole = true
	moved.Add(1)
	if err := r.captureServerFiles(ctx, conn, g); err != nil {
		return fmt.Errorf("capture the server's files: %w", err)
	}
	return nil
}

// orLost says that err came about because the server was lost, if it was.
func orLost(err, lost error) error {
	if fault.Is(lost, fault.Unavailable) {
		return fault.New(fault.Unavailable, "", "%w: %w", lost, err)
	}
	return err
}

func describeGlobals(ctx context.Context, conn *pg.Conn, g *globals) error {
	roles, err := conn.Roles(ctx)
	if err != nil {
		return err
	}
	for _, role := range roles {
		g.Roles = append(g.Roles, role.Name)
	}
	slices.Sort(g.Roles)
	tablespaces, err := conn.Tablespaces(ctx)
	if err != nil {
		return err
	}
	g.Tablespaces = []backupset.Tablespace{}
	for _, t := range tablespaces {
		g.Tablespaces = append(g.Tablespaces, backupset.Tablespace{Name: t.Name, Owner: t.Owner, Location: t.Location})
	}
	if !g.RolePasswords {
		g.omit("passwords of roles", "only a superuser, or a role that may read pg_authid, sees them")
	}
	return nil
}

// dumpGlobals runs pg_dumpall, whose output counts only when it is whole.
func (r *run) dumpGlobals(ctx context.Context, g *globals, moved *signs) (err error) {
	object, err := r.set.Object(ctx, g.Object, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Abort()) }() // after a commit this does nothing
	args := []string{
		"--dbname=" + r.o.Source.ChildConninfo(r.o.Source.Database, "dbbackup pg_dumpall"),
		"--database=" + r.o.Source.Database,
		"--no-password", "--globals-only", "--quote-all-identifiers",
	}
	if !g.RolePasswords {
		args = append(args, "--no-role-passwords")
	}
	var trailer sqltext.TailCheck
	command := r.tools.Command(pgtool.PgDumpAll, args, pgtool.Environ(r.o.Source.ChildEnv(), nil))
	command.Stdout = io.MultiWriter(object, &trailer, moved)
	if _, err := child.Run(ctx, command); err != nil {
		return err
	}
	if err := trailer.CompleteCluster(); err != nil {
		// %v: the kind of err is that of damage in a store, and nothing is stored.
		return fault.New(fault.Failed, "", "pg_dumpall exited with status 0, but its output is not whole: %v", err)
	}
	_, err = object.Commit()
	return err
}

// captureServerFiles stores the server's configuration, as far as the role
// may read it. It is for the person who sets up the new server: restore does
// not apply it.
func (r *run) captureServerFiles(ctx context.Context, conn *pg.Conn, g *globals) error {
	settings, all, err := conn.ServerSettings(ctx)
	if err != nil {
		return err
	}
	if !all {
		g.omit("some settings of the server", "the role may not see all of them (pg_read_all_settings)")
	}
	text, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		return err
	}
	files, hidden, err := conn.ServerFiles(ctx)
	if err != nil {
		return err
	}
	for _, name := range hidden {
		g.omit("server file "+name, "the role may not read files of the server (pg_read_server_files)")
	}
	files = append(files, pg.ServerFile{Name: "settings.json", Content: append(text, '\n')})
	for _, f := range files {
		object := serverFolder + "/" + f.Name
		if err := r.set.WriteFile(ctx, object, f.Content); err != nil {
			return err
		}
		g.ServerFiles = append(g.ServerFiles, object)
	}
	slices.Sort(g.ServerFiles)
	return nil
}
