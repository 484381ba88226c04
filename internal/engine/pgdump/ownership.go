package pgdump

import (
	"context"
	"fmt"
	"io"
	"strings"

	"dbbackup/internal/child"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/sqltext"
)

// withOwnership are the kinds of objects that mapOwnership makes: those whose
// definitions name roles, and event triggers, which would fire for what it does.
var withOwnership = []string{"POLICY", "USER MAPPING", "EVENT TRIGGER"}

// madeWithOwnership reports whether mapOwnership makes an entry.
func madeWithOwnership(e *pgarchive.Entry) bool {
	for _, kind := range withOwnership {
		if e.Desc == kind || e.Desc == "COMMENT" && strings.HasPrefix(e.Tag, kind+" ") {
			return true
		}
	}
	return false
}

// isMadeWithOwnership reports whether a statement belongs to such an entry.
func isMadeWithOwnership(sql string) bool {
	for _, kind := range withOwnership {
		for _, verb := range []string{"CREATE ", "COMMENT ON ", "ALTER "} {
			if strings.HasPrefix(sql, verb+kind+" ") {
				return true
			}
		}
	}
	return false
}

// mapOwnership gives owners and privileges to mapped roles. pg_restore cannot
// rename roles, so the objects were made without owners and privileges; now
// pg_restore prints the statements that it would have run for these, and they
// are run here with the roles' names replaced. Event triggers come last among
// them, as in every restore.
func (p *replay) mapOwnership(ctx context.Context) ([]pgtool.ObjectError, error) {
	conn, err := p.target.Endpoint.Connect(ctx, p.load.Database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	args := []string{"--schema-only", "--file=-"}
	if p.load.NoOwner {
		args = append(args, "--no-owner")
	}
	if p.load.NoACL {
		args = append(args, "--no-acl")
	}
	if p.load.Entries != nil {
		list, remove, err := p.listFile(p.load.Entries)
		if err != nil {
			return nil, err
		}
		defer remove()
		args = append(args, "--use-list="+list)
	}
	command := p.target.Tools.Command(pgtool.PgRestore, append(args, p.load.Path), p.env())
	var problems []pgtool.ObjectError
	_, err = child.Pipe(ctx, command, func(out io.Reader) error {
		return sqltext.Split(out, func(s sqltext.Statement) error {
			sql := s.Body()
			if s.Kind != sqltext.SQL || !sqltext.OwnershipStatement(sql) && !isMadeWithOwnership(sql) {
				return nil
			}
			mapped, _ := sqltext.MapRoles(sql, p.load.MapRoles)
			if err := conn.Exec(ctx, "owners and privileges", mapped); err != nil {
				problems = append(problems, pgtool.ObjectError{Object: mapped, Message: err.Error()})
			}
			return ctx.Err()
		})
	})
	if err != nil {
		return problems, fmt.Errorf("owners and privileges: %w", err)
	}
	return problems, nil
}
