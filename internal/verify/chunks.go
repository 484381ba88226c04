package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/pgname"
)

// chunked reads the definitions of a chunked database as pg_restore does, and
// its chunks to their ends: rows and digests must be what was counted. Damage
// is named by table.
func (v *verification) chunked(ctx context.Context, d backupset.Database) error {
	contents, err := v.set.Contents(ctx, &d)
	if err != nil {
		return v.found(d, err)
	}
	v.nameChunks(d, contents)
	schema := d
	schema.Dump += "/" + backupset.SchemaName
	if !v.bad[schema.Dump] {
		path, done, err := v.set.Fetch(ctx, schema.Dump)
		if err == nil {
			err = errors.Join(v.restoreToNowhere(ctx, schema, path), done())
		}
		if err := v.found(schema, err); err != nil {
			return err
		}
	}
	task := v.o.Report.Task("chunks of "+pgname.Printable(d.Name), d.DumpBytes)
	var read atomic.Int64
	damage, err := pgcopy.Check(ctx, v.set, contents, func(n int64) { task.Progress(read.Add(n)) })
	task.End(err)
	for _, one := range damage {
		if v.bad[one.Object] {
			continue // named already
		}
		v.problems = append(v.problems, backupset.Problem{
			Severity: backupset.Damage, Object: one.Object, Database: d.Name, Err: one.Err,
			Text: fmt.Sprintf("database %s, table %s: %v", pgname.Printable(d.Name), one.Table, one.Err),
		})
	}
	return err
}

// nameChunks says which tables have rows in the objects that are damaged.
func (v *verification) nameChunks(d backupset.Database, contents *backupset.Contents) {
	tables := map[string][]string{}
	contents.Pieces(func(t *backupset.ChunkedTable, p *backupset.Piece) {
		key := p.Object
		if p.Set != "" {
			key = "../" + p.Set + "/" + p.Object
		}
		name := "large objects"
		if t != nil {
			name = pgname.Table{Schema: t.Schema, Name: t.Name}.Printable()
		}
		if list := tables[key]; v.bad[key] && (len(list) == 0 || list[len(list)-1] != name) {
			tables[key] = append(list, name)
		}
	})
	for i := range v.problems {
		p := &v.problems[i]
		if names := tables[p.Object]; len(names) > 0 && p.Database == d.Name {
			p.Text += "; it holds rows of " + shortened(names)
		}
	}
}

// shortened joins some names.
func shortened(names []string) string {
	const shown = 10
	text := strings.Join(names[:min(len(names), shown)], ", ")
	if rest := len(names) - shown; rest > 0 {
		text += fmt.Sprintf(" and %d more tables", rest)
	}
	return text
}
