package backupset

import (
	"context"
	"errors"
	"strings"
	"time"

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
	Lossy     []string // those of them that lack what the server could not read
	Omissions int
	Failures  []Failure
	Sealed    *Sealed // nil: it is not encrypted

	Problems []Problem // CheckQuick's, warnings included

	hint string // of what Reason says
}

// List returns every set's folder of the store, oldest first. Only complete
// entries are backups. Folders that hold neither a manifest nor a mark, and are
// not named like a set, belong to somebody else and are left out. Of encrypted
// sets the envelope is read. A set that nobody signed who is trusted, where somebody
// is (WithTrust), is damaged.
//
// Where each set costs a round trip, sets that did not change since somebody wrote
// a catalog are not opened, unless signatures are asked for.
func List(ctx context.Context, st store.Store, options ...Option) ([]Entry, error) {
	survey, err := Look(ctx, st, options...)
	if err != nil {
		return nil, err
	}
	return survey.Entries, nil
}

// examine looks at one folder. It returns an error only when the store cannot be
// asked.
func (s *Survey) examine(ctx context.Context, folder setFolder) error {
	entry := Entry{ID: folder.id, Bytes: folder.total}
	if !folder.has(ManifestName) {
		entry.Status, entry.Reason = withoutManifest(folder)
		s.add(entry, nil)
		return nil
	}
	set, err := Open(ctx, s.st, folder.id, s.trust)
	if err == nil {
		if err = entry.describe(ctx, set, folder, s.bases.list); err == nil {
			s.add(entry, set.Bases())
		}
		return err
	}
	entry.Reason, entry.hint = err.Error(), strings.Join(fault.Hints(err), "; ")
	var newer *newerError
	switch {
	case errors.As(err, &newer):
		entry.Status = StatusNewer
	case fault.Is(err, fault.Integrity), fault.Is(err, fault.NotFound):
		entry.Status = StatusDamaged
	default:
		return err
	}
	s.add(entry, nil)
	return nil
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

func (e *Entry) describe(ctx context.Context, set *Set, folder setFolder, sizes sizesOf) error {
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
		if m.Databases[i].UnreadableTables > 0 {
			e.Lossy = append(e.Lossy, m.Databases[i].Name)
		}
	}
	references, err := set.compareReferences(ctx, sizes)
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
