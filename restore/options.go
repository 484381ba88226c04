package restore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Options say what to restore, from which set, to where and how.
type Options struct {
	Target *pg.Endpoint
	Search pgtool.Search
	Set    *backupset.Set
	Report report.Reporter

	Kind     backupset.Kind // Cluster: globals and every database; Single: one database
	Database string         // Single: its name in the set
	As       string         // Single: its name on the target; empty: the same

	Tables, Schemas      []string // Single: patterns of what to restore
	SchemaOnly, DataOnly bool     // Single
	NoOwner, NoACL       bool
	MapRoles             map[string]string
	MapTablespaces       map[string]string
	Jobs                 int
	Replace              bool // --clean: existing databases may be replaced
	Analyze              bool
	Salvage              bool  // restore what is sound of a damaged set, and say what is lost
	Checked              bool  // the caller has just found every digest of the set good: it need not be read again
	DryRun               bool  // nothing will be executed: every digest is checked by Prepare
	MaintenanceMemory    int64 // bytes for each session that builds indexes; 0: as the server is set

	Now func() time.Time
}

// Validate finds options that cannot work together.
func (o Options) Validate() error {
	single := o.Kind == backupset.Single
	selective := len(o.Tables)+len(o.Schemas) > 0 || o.SchemaOnly || o.DataOnly
	switch {
	case single && o.Database == "":
		return fault.New(fault.Usage, "dbbackup restore single NAME", "no database named")
	case !single && (selective || o.As != "" || len(o.MapRoles) > 0):
		return fault.New(fault.Usage, "use `dbbackup restore single NAME`",
			"tables, schemas, another name and mapped roles can be given for a single database only")
	case o.SchemaOnly && o.DataOnly:
		return fault.New(fault.Usage, "", "--schema-only and --data-only exclude each other")
	case o.DataOnly && o.Replace:
		return fault.New(fault.Usage, "", "--data-only loads into an existing database, --clean replaces it")
	case o.Salvage && o.SchemaOnly:
		return fault.New(fault.Usage, "", "--salvage is about rows, and --schema-only restores none")
	case o.Salvage && o.Replace:
		return fault.New(fault.Usage, "give --target-db NEW, look at what came back, and then decide which one to keep",
			"--salvage may lose rows: it does not replace a database that exists")
	case o.Jobs < 1:
		return fault.New(fault.Usage, "", "the number of jobs begins at 1")
	}
	return nil
}

// as is the name on the target.
func (o Options) as() string {
	if o.As != "" {
		return o.As
	}
	return o.Database
}

// whole reports whether a plain dump serves: psql runs all of it, as it is.
func (o Options) whole() bool {
	return len(o.Tables)+len(o.Schemas)+len(o.MapRoles)+len(o.MapTablespaces) == 0 &&
		!o.SchemaOnly && !o.DataOnly && !o.NoOwner && !o.NoACL
}

// ParseMap reads A=B pairs. A name with an equals sign cannot be mapped.
func ParseMap(flag string, pairs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, pair := range pairs {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || from == "" || to == "" {
			return nil, fault.New(fault.Usage, flag+" SOURCE=TARGET", "%s %q is not a pair of names", flag, pair)
		}
		if _, twice := m[from]; twice {
			return nil, fault.New(fault.Usage, "", "%s maps %q twice", flag, from)
		}
		m[from] = to
	}
	return m, nil
}

// Problems is everything that stands in the way, found before anything was
// written.
type Problems []string

func (p Problems) Error() string {
	if len(p) == 1 {
		return p[0]
	}
	return fmt.Sprintf("%d things stand in the way:\n  - %s", len(p), strings.Join(p, "\n  - "))
}

// sorted returns the problems, each once.
func (p Problems) sorted() Problems {
	slices.Sort(p)
	return slices.Compact(p)
}
