package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
	"dbbackup/internal/sqltext"
	"dbbackup/internal/throwaway"
)

// onThrowaway drills on a server that is gone afterwards.
func (d *drill) onThrowaway(ctx context.Context) (err error) {
	server, err := d.start(ctx)
	if err != nil {
		return d.explain(err)
	}
	defer func() { err = errors.Join(err, server.Close(ctx)) }()
	d.o.Report.Info("drilling on a throwaway server", report.F("programs", server.BinDir))
	endpoint, err := pg.Resolve(ctx, pg.Options{Params: server.Params(), Env: server.Env(), Application: "dbbackup drill"})
	if err != nil {
		return err
	}
	m := d.o.Set.Manifest()
	if err := d.makeTablespaces(ctx, server, endpoint); err != nil {
		return err
	}
	if m.Kind == backupset.Cluster && m.Globals != nil {
		return d.whole(ctx, endpoint)
	}
	if err := d.makeRoles(ctx, endpoint); err != nil {
		return err
	}
	if m.Kind == backupset.Cluster {
		return d.whole(ctx, endpoint)
	}
	return d.each(ctx, endpoint)
}

// superuser is that of the source, so that the set's roles find theirs; where
// initdb would refuse the name it is postgres.
func (d *drill) superuser() string {
	name := d.o.Set.Manifest().Server.BootstrapRole
	if strings.HasPrefix(name, "pg_") || strings.ContainsAny(name, "\"$'\\\n\r") {
		return ""
	}
	return name
}

// explain says what else could be done where a throwaway server cannot be made.
func (d *drill) explain(err error) error {
	if !fault.Is(err, fault.Precondition) {
		return err
	}
	return fault.New(fault.Precondition, "choose the folder with --drill-dir, or drill on a running server with --drill-target", "%w", err)
}

// makeTablespaces makes those that the set names, in folders of the server: a
// plain dump cannot be told to use others.
func (d *drill) makeTablespaces(ctx context.Context, server *throwaway.Server, endpoint *pg.Endpoint) error {
	names := tablespaces(d.o.Set.Manifest())
	if len(names) == 0 {
		return nil
	}
	conn, err := endpoint.Connect(ctx, endpoint.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	for i, name := range names {
		dir, err := server.MakeDir(fmt.Sprintf("tablespace-%d", i+1))
		if err != nil {
			return err
		}
		step := "create tablespace " + pgname.Printable(name)
		if err := conn.Exec(ctx, step, fmt.Sprintf("CREATE TABLESPACE %s LOCATION %s", pgname.Ident(name), pgname.Literal(dir))); err != nil {
			return err
		}
		// Whom the source let use it is no matter of a drill's.
		if err := conn.Exec(ctx, step, fmt.Sprintf("GRANT CREATE ON TABLESPACE %s TO PUBLIC", pgname.Ident(name))); err != nil {
			return err
		}
	}
	return nil
}

// tablespaces are those that something of the set names, but initdb's.
func tablespaces(m *backupset.Manifest) []string {
	var names []string
	if m.Globals != nil {
		for _, t := range m.Globals.Tablespaces {
			names = append(names, t.Name)
		}
	}
	for i := range m.Databases {
		names = append(append(names, m.Databases[i].Tablespaces...), m.Databases[i].Tablespace)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		return name == "" || name == "pg_default" || name == "pg_global"
	})
}

// makeRoles makes the roles that a restore of single databases expects: as the
// set's globals say, where it has them, and else without any right.
func (d *drill) makeRoles(ctx context.Context, endpoint *pg.Endpoint) error {
	conn, err := endpoint.Connect(ctx, endpoint.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	has, err := roleNames(ctx, conn)
	if err != nil {
		return err
	}
	statements, err := d.roleStatements(ctx)
	if err != nil {
		return err
	}
	for _, s := range statements {
		if has[s.Role] && s.Kind != sqltext.Membership {
			continue
		}
		step := "make role " + pgname.Printable(s.Role)
		if err := conn.Exec(ctx, step, s.SQL); err != nil && pg.IsRefused(err) {
			d.o.Report.Warn("a role of the set is not quite what it was", report.F("because", err))
		} else if err != nil {
			return err
		}
	}
	if has, err = roleNames(ctx, conn); err != nil {
		return err
	}
	for _, name := range roles(d.o.Set.Manifest()) {
		if has[name] || strings.HasPrefix(name, "pg_") {
			continue
		}
		if err := conn.Exec(ctx, "make role "+pgname.Printable(name), "CREATE ROLE "+pgname.Ident(name)+" NOLOGIN"); err != nil {
			return err
		}
	}
	return nil
}

func roleNames(ctx context.Context, conn *pg.Conn) (map[string]bool, error) {
	list, err := conn.Roles(ctx)
	has := make(map[string]bool, len(list))
	for _, r := range list {
		has[r.Name] = true
	}
	return has, err
}

// roles are those that the set's databases name.
func roles(m *backupset.Manifest) []string {
	var names []string
	for i := range m.Databases {
		names = append(append(names, m.Databases[i].Roles...), m.Databases[i].Owner)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// roleStatements are those of globals.sql that make roles and memberships.
func (d *drill) roleStatements(ctx context.Context) ([]sqltext.GlobalStatement, error) {
	g := d.o.Set.Manifest().Globals
	if g == nil {
		return nil, nil
	}
	in, err := d.o.Set.OpenObject(ctx, g.Object)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	statements, err := sqltext.ParseGlobals(in)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", g.Object, err)
	}
	return slices.DeleteFunc(statements, func(s sqltext.GlobalStatement) bool {
		return s.Kind != sqltext.CreateRole && s.Kind != sqltext.AlterRole && s.Kind != sqltext.Membership
	}), nil
}
