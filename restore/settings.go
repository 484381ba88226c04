package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// dropUnknownSettings leaves out settings of the database that the target's
// version does not know any more: ALTER DATABASE ... SET would be refused, and
// the database could not come to its place because of it. Settings of
// extensions, with a dot in their names, are always taken.
func (p *preparation) dropUnknownSettings(ctx context.Context, s *Step) error {
	if len(s.properties.Settings) == 0 {
		return nil
	}
	known, err := p.conn.KnownSettings(ctx)
	if err != nil {
		return err
	}
	s.properties.Settings = slices.DeleteFunc(s.properties.Settings, func(setting pg.Setting) bool {
		name := strings.ToLower(setting.Name)
		if known[name] || strings.Contains(name, ".") {
			return false
		}
		p.Omitted = append(p.Omitted, fmt.Sprintf("setting %s of database %s: this version of the server does not know it",
			pgname.Printable(setting.Name), pgname.Printable(s.Name)))
		return true
	})
	return nil
}
