package backupset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Status says what a set's folder is.
type Status string

const (
	// StatusComplete: a valid manifest, and every object is there in its size.
	StatusComplete Status = "complete"
	// StatusDamaged: listed so that somebody looks at it.
	StatusDamaged Status = "damaged"
	// StatusUnfinished: what a killed or a running run wrote so far.
	StatusUnfinished Status = "unfinished"
	// StatusNewer: it needs a newer dbbackup.
	StatusNewer Status = "newer"
)

// Entry is one set's folder, as List found it.
type Entry struct {
	ID     string
	Status Status
	Reason string // why it is not complete
	Bytes  int64  // of everything in the folder

	// From the manifest; zero when it could not be read.
	Kind      Kind
	Started   time.Time
	Finished  time.Time
	Databases []string
	Parts     []string // those of them of which only chosen tables were captured
	Without   []string // those of them without the data of excluded tables
	Omissions int
	Failures  []Failure
	Sealed    *Sealed // nil: it is not encrypted

	Problems []Problem // CheckQuick's, warnings included
}

// examined is how many manifests are read at a time: from a bucket each takes a
// round trip or two.
const examined = 16

// List returns every set's folder of the store, oldest first. Only complete
// entries are backups. Folders that hold neither a manifest nor a mark, and are
// not named like a set, belong to somebody else and are left out. Of encrypted
// sets the envelope is read. A set that nobody signed who is trusted, where somebody
// is (WithTrust), is damaged.
//
// Where each set costs a round trip, sets that did not change since somebody wrote
// a catalog are not opened, unless signatures are asked for.
func List(ctx context.Context, st store.Store, options ...Option) ([]Entry, error) {
	l := lister{st: st, trust: WithTrust(keysOf(options))}
	if _, local := st.(store.Local); !local && !keysOf(options).trusts() {
		l.known = readCatalog(ctx, st)
	}
	return l.list(ctx)
}

// Survey is List without a catalog: each set is opened.
func Survey(ctx context.Context, st store.Store, options ...Option) ([]Entry, error) {
	l := lister{st: st, trust: WithTrust(keysOf(options))}
	return l.list(ctx)
}

func (l *lister) list(ctx context.Context) ([]Entry, error) {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(examined)
	examine := func(folder setFolder) error {
		group.Go(func() error {
			entry, bases, err := examine(groupCtx, l.st, folder, l.trust)
			if err == nil {
				l.add(entry, bases)
			}
			return err
		})
		return nil
	}
	err := eachFolder(groupCtx, l.st, func(folder setFolder) error {
		if l.recall(folder) {
			return nil
		}
		return examine(folder)
	})
	if err := cmp.Or(group.Wait(), err); err != nil {
		return nil, fmt.Errorf("list backup sets: %w", err)
	}
	if err := l.again(ctx, l.settle()); err != nil {
		return nil, fmt.Errorf("list backup sets: %w", err)
	}
	sortByAge(l.entries, func(e Entry) string { return e.ID })
	return l.entries, nil
}

// again examines sets whose bases changed.
func (l *lister) again(ctx context.Context, ids []string) error {
	for _, id := range ids {
		folder := newFolder(id)
		if err := l.st.List(ctx, id+"/", func(info store.Info) error { folder.add(info); return nil }); err != nil {
			return err
		}
		entry, bases, err := examine(ctx, l.st, folder, l.trust)
		if err != nil {
			return err
		}
		l.add(entry, bases)
	}
	return nil
}

// IDs returns the ids of every set's folder, complete or not: what NewID must
// not repeat.
func IDs(ctx context.Context, st store.Store) ([]string, error) {
	var ids []string
	err := eachFolder(ctx, st, func(folder setFolder) error {
		ids = append(ids, folder.id)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list backup sets: %w", err)
	}
	return ids, nil
}

// setFolder is what a store lists of one set.
type setFolder struct {
	id    string
	bytes map[string]int64 // size by name, relative to the set
	total int64

	manifestTime time.Time // when its manifest was written
}

func newFolder(id string) setFolder { return setFolder{id: id, bytes: map[string]int64{}} }

func (f *setFolder) add(info store.Info) {
	name := strings.TrimPrefix(info.Key, f.id+"/")
	if name == ManifestName {
		f.manifestTime = info.Modified
	}
	f.bytes[name] = info.Bytes
	f.total += info.Bytes
}

func (f *setFolder) has(name string) bool {
	_, ok := f.bytes[name]
	return ok
}

// isSet tells a set's folder from somebody else's.
func (f *setFolder) isSet() bool {
	_, _, named := parseID(f.id)
	return CheckID(f.id) == nil && (named || f.has(ManifestName) || f.has(unfinishedName))
}

// eachFolder calls fn for every set's folder. The keys of a folder follow each
// other in a store's order, so one folder is held at a time.
func eachFolder(ctx context.Context, st store.Store, fn func(setFolder) error) error {
	var current setFolder
	flush := func() error {
		if len(current.bytes) == 0 || !current.isSet() {
			return nil
		}
		return fn(current)
	}
	err := st.List(ctx, "", func(info store.Info) error {
		id, _, inFolder := strings.Cut(info.Key, "/")
		if !inFolder {
			return nil
		}
		if id != current.id {
			if err := flush(); err != nil {
				return err
			}
			current = newFolder(id)
		}
		current.add(info)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// examine returns an error only when the store cannot be asked. bases are the sets
// that the set refers to.
func examine(ctx context.Context, st store.Store, folder setFolder, trust Option) (entry Entry, bases []string, err error) {
	entry = Entry{ID: folder.id, Bytes: folder.total}
	if !folder.has(ManifestName) {
		entry.Status, entry.Reason = withoutManifest(folder)
		return entry, nil, nil
	}
	if trust == nil {
		trust = WithTrust(Keys{})
	}
	set, err := Open(ctx, st, folder.id, trust)
	if err == nil {
		return entry, set.Bases(), entry.describe(ctx, set, folder)
	}
	entry.Reason = err.Error()
	var newer *newerError
	switch {
	case errors.As(err, &newer):
		entry.Status = StatusNewer
	case fault.Is(err, fault.Integrity), fault.Is(err, fault.NotFound):
		entry.Status = StatusDamaged
	default:
		return Entry{}, nil, err
	}
	return entry, nil, nil
}

// resumable tells a folder with the beginning of a set that can be gone on with.
func (f *setFolder) resumable() bool {
	return f.unfinished() && (f.has(RunName) || f.has(RunName+sealedSuffix))
}

func withoutManifest(folder setFolder) (Status, string) {
	if folder.resumable() {
		return StatusUnfinished, "its run was killed, or is still at work; `dbbackup resume " + folder.id + "` goes on with it"
	}
	if folder.has(unfinishedName) {
		return StatusUnfinished, "it has no " + ManifestName + ": its run was killed, or is still at work"
	}
	return StatusDamaged, ManifestName + " is lost"
}

func (e *Entry) describe(ctx context.Context, set *Set, folder setFolder) error {
	m := set.manifest
	e.Status = StatusComplete
	e.Kind, e.Started, e.Finished = m.Kind, m.Started, m.Finished
	e.Omissions, e.Failures, e.Sealed = len(m.Omissions), m.Failures, set.envelope.Sealed
	for i := range m.Databases {
		e.Databases = append(e.Databases, m.Databases[i].Name)
		switch selection := m.Databases[i].Selection; {
		case selection == nil:
		case selection.Chosen():
			e.Parts = append(e.Parts, m.Databases[i].Name)
		default:
			e.Without = append(e.Without, m.Databases[i].Name)
		}
	}
	references, err := set.compareReferences(ctx)
	if err != nil {
		return err
	}
	e.Problems = append(set.compare(folder), references...)
	for _, p := range e.Problems {
		if p.Severity == Damage {
			e.Status, e.Reason = StatusDamaged, p.Text
			break
		}
	}
	return nil
}
