package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/sqltext"
)

// planGlobals reads the set's globals and keeps what the target lacks. Roles
// that exist are kept as they are, passwords included; where they differ, that
// is said. After this the roles and tablespaces to come count as there.
func (p *preparation) planGlobals(ctx context.Context) error {
	g := p.o.Set.Manifest().Globals
	if p.o.Kind != backupset.Cluster || g == nil {
		return nil
	}
	var statements []sqltext.GlobalStatement
	err := p.o.Set.Reread(func() (err error) {
		statements, err = p.readGlobals(ctx, g.Object)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range statements {
		if !p.wanted(s) {
			continue
		}
		p.globals = append(p.globals, s)
		p.Globals = append(p.Globals, describe(s))
	}
	p.addGlobals(g)
	return nil
}

func (p *preparation) readGlobals(ctx context.Context, object string) ([]sqltext.GlobalStatement, error) {
	in, err := p.o.Set.OpenObject(ctx, object)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	statements, err := sqltext.ParseGlobals(in)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", object, err)
	}
	return statements, nil
}

// addGlobals counts what planGlobals will create as there.
func (p *preparation) addGlobals(g *backupset.Globals) {
	for _, role := range g.Roles {
		if _, ok := p.roles[role]; !ok {
			p.roles[role] = pg.Role{Name: role}
		}
	}
	for _, t := range g.Tablespaces {
		if _, mapped := p.o.MapTablespaces[t.Name]; !mapped && !slices.Contains(p.tablespaces, t.Name) {
			p.tablespaces = append(p.tablespaces, t.Name)
		}
	}
}

// describe says what a statement does without showing it: it may hold a
// password verifier.
func describe(s sqltext.GlobalStatement) string {
	switch s.Kind {
	case sqltext.CreateTablespace:
		return fmt.Sprintf("create tablespace %s at %s", pgname.Printable(s.Tablespace), s.Location)
	case sqltext.CreateRole:
		return "create role " + pgname.Printable(s.Role)
	case sqltext.AlterRole:
		return "set attributes of role " + pgname.Printable(s.Role)
	case sqltext.Membership:
		return fmt.Sprintf("make %s a member of %s", pgname.Printable(s.Member), pgname.Printable(s.Role))
	case sqltext.AlterTablespace, sqltext.TablespaceACL, sqltext.TablespaceComment:
		return "set properties of tablespace " + pgname.Printable(s.Tablespace)
	case sqltext.ParameterGrant:
		return "grant on a parameter"
	case sqltext.RoleSetting, sqltext.RoleComment:
		return "set properties of role " + pgname.Printable(s.Role)
	default:
		return "global statement"
	}
}

// wanted decides about one statement of globals.sql.
func (p *preparation) wanted(s sqltext.GlobalStatement) bool {
	switch s.Kind {
	case sqltext.Session, sqltext.MetaLine:
		return false
	case sqltext.CreateRole, sqltext.RoleSetting, sqltext.RoleComment:
		return !p.hasRole(s.Role)
	case sqltext.AlterRole:
		return p.wantedAttributes(s)
	case sqltext.Membership:
		return p.wantedMembership(s)
	case sqltext.CreateTablespace, sqltext.AlterTablespace, sqltext.TablespaceACL, sqltext.TablespaceComment:
		_, mapped := p.o.MapTablespaces[s.Tablespace]
		return !mapped && !slices.Contains(p.tablespaces, s.Tablespace)
	default:
		return true
	}
}

func (p *preparation) hasRole(name string) bool {
	_, ok := p.roles[name]
	return ok
}

func (p *preparation) wantedAttributes(s sqltext.GlobalStatement) bool {
	existing, ok := p.roles[s.Role]
	if !ok {
		return true
	}
	var differ []string
	for _, attribute := range attributes(existing) {
		if !slices.Contains(strings.Fields(beforePassword(s.SQL)), attribute) {
			differ = append(differ, attribute)
		}
	}
	if len(differ) > 0 {
		p.Notices = append(p.Notices, fmt.Sprintf("role %s exists and is kept; unlike in the set it is %s",
			pgname.Printable(s.Role), strings.Join(differ, " ")))
	}
	return false
}

// beforePassword cuts an ALTER ROLE before what must not be looked at.
func beforePassword(sql string) string {
	before, _, _ := strings.Cut(sql, " PASSWORD ")
	return strings.TrimSuffix(before, ";")
}

// attributes are those of a role, in pg_dumpall's words.
func attributes(r pg.Role) []string {
	word := func(yes bool, name string) string {
		if yes {
			return name
		}
		return "NO" + name
	}
	return []string{
		word(r.Superuser, "SUPERUSER"), word(r.Inherit, "INHERIT"), word(r.CreateRole, "CREATEROLE"),
		word(r.CreateDB, "CREATEDB"), word(r.Login, "LOGIN"), word(r.Replication, "REPLICATION"),
		word(r.BypassRLS, "BYPASSRLS"),
	}
}

// wantedMembership: between two roles that exist already nothing is changed.
func (p *preparation) wantedMembership(s sqltext.GlobalStatement) bool {
	member, ok := p.roles[s.Member]
	if !ok || !p.hasRole(s.Role) && !strings.HasPrefix(s.Role, "pg_") {
		return true
	}
	if !slices.Contains(member.MemberOf, s.Role) {
		p.Notices = append(p.Notices, fmt.Sprintf("roles %s and %s exist and are kept; in the set the first is a member of the second",
			pgname.Printable(s.Member), pgname.Printable(s.Role)))
	}
	return false
}

// restoreGlobals makes roles and tablespaces. The first one that the target
// refuses ends it: everything later would build on it.
func (p *Plan) restoreGlobals(ctx context.Context) error {
	if len(p.globals) == 0 {
		return nil
	}
	conn, err := p.o.Target.Connect(ctx, p.o.Target.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	p.o.Report.Info(fmt.Sprintf("restoring %d global statements", len(p.globals)))
	for _, s := range p.globals {
		if err := conn.Exec(ctx, "restore globals: "+describe(s), s.SQL); err != nil {
			return err
		}
	}
	return nil
}
