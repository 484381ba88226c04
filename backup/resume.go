package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
)

// asked is what of the options decides what a set will hold. It is stored with
// an unfinished set, and no secret is in it.
type asked struct {
	Kind           backupset.Kind      `json:"kind"`
	Database       string              `json:"database,omitempty"`
	Exclude        []string            `json:"exclude,omitempty"`
	Tables         []string            `json:"tables,omitempty"`
	Schemas        []string            `json:"schemas,omitempty"`
	ExcludeTables  []string            `json:"exclude_tables,omitempty"`
	ExcludeSchemas []string            `json:"exclude_schemas,omitempty"`
	Defaults       Settings            `json:"defaults"`
	PerDatabase    map[string]Settings `json:"per_database,omitempty"`
	Incremental    bool                `json:"incremental,omitempty"`

	sealed bool
}

func (o Options) asked() ([]byte, error) {
	return json.MarshalIndent(asked{
		Kind: o.Kind, Database: o.Database, Exclude: o.Exclude, Tables: o.Tables, Schemas: o.Schemas,
		ExcludeTables: o.ExcludeTables, ExcludeSchemas: o.ExcludeSchemas,
		Defaults: o.Defaults, PerDatabase: o.PerDatabase, Incremental: o.Incremental,
	}, "", "  ")
}

// Resuming completes options by what the run that o.Resume names was asked for.
// The name may be Latest, an id, or the beginning of one.
func Resuming(ctx context.Context, o Options) (Options, error) {
	folders, err := backupset.ListFolders(ctx, o.Store)
	if err != nil {
		return o, err
	}
	id, err := chooseResumable(folders.Resumable, o.Resume)
	if err != nil {
		return o, err
	}
	a, err := askedFor(ctx, o, id)
	if err != nil {
		return o, err
	}
	if !a.sealed {
		o.Sealing = nil
	}
	o.Resume, o.Kind, o.Database, o.Exclude, o.Incremental = id, a.Kind, a.Database, a.Exclude, a.Incremental
	o.Tables, o.Schemas, o.ExcludeTables, o.ExcludeSchemas = a.Tables, a.Schemas, a.ExcludeTables, a.ExcludeSchemas
	o.Defaults, o.PerDatabase = a.Defaults, a.PerDatabase
	return o, nil
}

// askedFor reads what the run of an unfinished set was asked for. The error says
// why what is none cannot be gone on with.
func askedFor(ctx context.Context, o Options, id string) (a asked, err error) {
	set, err := backupset.Reopen(ctx, o.Store, id, o.writes()...)
	if err != nil {
		return a, err
	}
	text, err := set.Scratch(ctx, backupset.RunName)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fault.New(fault.Integrity, "back up again", "unfinished set %s: object %s: %w", id, backupset.RunName, err)
	}
	a.sealed = set.Sealed()
	return a, nil
}

// supersededBy reports whether a set of other options holds all that was asked for.
func (a asked) supersededBy(o Options) bool {
	same := slices.Equal(a.Exclude, o.Exclude) && slices.Equal(a.Tables, o.Tables) && slices.Equal(a.Schemas, o.Schemas) &&
		slices.Equal(a.ExcludeTables, o.ExcludeTables) && slices.Equal(a.ExcludeSchemas, o.ExcludeSchemas)
	return a.Kind == o.Kind && a.Database == o.Database && (o.whole() || same)
}

// whole reports whether nothing of what the run is of was left out.
func (o Options) whole() bool {
	return len(o.Exclude)+len(o.Tables)+len(o.Schemas)+len(o.ExcludeTables)+len(o.ExcludeSchemas) == 0
}

// chooseResumable finds the set that is meant. What could be one, and is none of
// ids, is returned as it is.
func chooseResumable(ids []string, ref string) (string, error) {
	const hint = "list shows what is in the store; only runs of the native engine can be gone on with"
	if ref == backupset.Latest {
		if len(ids) == 0 {
			return "", fault.New(fault.NotFound, hint, "there is no interrupted backup to go on with")
		}
		return ids[len(ids)-1], nil
	}
	if slices.Contains(ids, ref) {
		return ref, nil
	}
	var matches []string
	for _, id := range ids {
		if ref != "" && strings.HasPrefix(id, ref) {
			matches = append(matches, id)
		}
	}
	switch len(matches) {
	case 1:
		return matches[0], nil
	case 0:
		if backupset.CheckID(ref) == nil {
			return ref, nil
		}
		return "", fault.New(fault.NotFound, hint, "there is no interrupted backup %q", ref)
	}
	return "", fault.New(fault.Usage, "give more of the id", "%q is the beginning of %s", ref, fmt.Sprint(matches))
}
