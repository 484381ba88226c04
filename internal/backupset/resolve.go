package backupset

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Latest is the reference to the newest complete set.
const Latest = "latest"

// Want says what a set must hold.
type Want struct {
	Kind     Kind   // empty: any
	Database string // empty: any
}

// Resolve turns what a user typed into a set's id. ref is Latest, an id, the
// beginning of exactly one id, or, in a local store, the path of a set's
// folder (anything with a slash). Latest means the newest set that has all that
// is wanted: of the kind, without a failure, and with the whole of the database
// and not only some tables of it. A set that is named must hold the database.
//
// notes are for the operator: Latest passes over newer sets that are damaged or
// lack something, and says so, and so it does of one that lies in the future. An
// id that is given is returned even if its set is damaged: Open says why. Where
// nothing is wanted in particular, and all that is there is damaged, the error is of
// kind fault.Integrity. Of a store only the folder of a set that is named by its
// whole id is listed: what else is in it, and whether that can be read, is of no
// concern to its restore.
func Resolve(ctx context.Context, st store.Store, ref string, want Want, options ...Option) (id string, notes []Note, err error) {
	if ref == Latest {
		entries, err := List(ctx, st, options...)
		if err != nil {
			return "", nil, err
		}
		return latest(entries, want, time.Now())
	}
	entry, err := find(ctx, st, ref, options)
	if err != nil {
		return "", nil, err
	}
	if entry.Status == StatusComplete && want.Database != "" && !slices.Contains(entry.Databases, want.Database) {
		return "", nil, fault.New(fault.NotFound, "it holds: "+strings.Join(entry.Databases, ", "),
			"backup set %s does not hold the database %q", entry.ID, want.Database)
	}
	return entry.ID, entry.notes(), nil
}

// Note is what an operator should know of the set that was found.
type Note struct {
	Text    string
	Damaged *Entry // the set that was passed over, where it was for damage
}

func notef(format string, args ...any) Note { return Note{Text: fmt.Sprintf(format, args...)} }

// lacks says what keeps a complete set from being the latest; nothing when it
// has all that is wanted.
func (e Entry) lacks(want Want) string {
	switch {
	case want.Kind != "" && e.Kind != want.Kind:
		return fmt.Sprintf("it is not of a %s", want.Kind)
	case want.Kind == Cluster && len(e.Failures) > 0:
		return "part of its run failed"
	case want.Database != "" && !slices.Contains(e.Databases, want.Database):
		return "it does not hold the database"
	case want.Database != "" && slices.Contains(e.Parts, want.Database):
		return "it holds some tables of the database only"
	}
	return ""
}

// notes says what a user of the set should know.
func (e Entry) notes() []Note {
	var notes []Note
	for _, database := range e.Without {
		notes = append(notes, notef("backup set %s holds the database %q without the data of some tables, which were excluded; show lists them", e.ID, database))
	}
	for _, database := range e.Lossy {
		notes = append(notes, notef("backup set %s holds the database %q without what the server could not read of its tables; show lists it", e.ID, database))
	}
	for _, f := range e.Failures {
		notes = append(notes, notef("backup set %s lacks what failed in its run: %s: %s", e.ID, cmp.Or(f.Database, "cluster"), f.Error))
	}
	return notes
}

// ClockSlack is how far the time of a set may be ahead of this host's clock.
const ClockSlack = 10 * time.Minute

// ahead says that a set hides others by its time. It is taken all the same: whose
// clock is wrong, that host's or this one's, only a person can tell.
func (e Entry) ahead(older []Entry, want Want, now time.Time) []Note {
	lead := e.Finished.Sub(now)
	if lead <= ClockSlack {
		return nil
	}
	note := notef("backup set %s lies %s in the future: the clock of the host that made it is wrong, or this one's", e.ID, lead.Round(time.Minute))
	for _, other := range slices.Backward(older) {
		if other.Status == StatusComplete && other.lacks(want) == "" && other.Finished.Sub(now) <= ClockSlack {
			note.Text += "; the newest that does not is " + other.ID + ": name it to use it"
			break
		}
	}
	return []Note{note}
}

func latest(entries []Entry, want Want, now time.Time) (string, []Note, error) {
	var notes []Note
	kind, hint := fault.NotFound, "list shows the sets of a store"
	for i, e := range slices.Backward(entries) {
		switch lack := e.lacks(want); {
		case e.Status == StatusDamaged, e.Status == StatusNewer:
			note := notef("passed over backup set %s, which is %s: %s", e.ID, e.Status, e.Reason)
			if e.Status == StatusDamaged {
				note.Damaged = &e
				hint = cmp.Or(e.hint, "list shows the sets of a store; of a damaged one `restore ... --set SET --salvage` restores what is sound")
				if want == (Want{}) { // it would have been the one
					kind = fault.Integrity
				}
			}
			notes = append(notes, note)
		case e.Status != StatusComplete:
		case lack == "":
			return e.ID, slices.Concat(notes, e.ahead(entries[:i], want, now), e.notes()), nil
		case len(e.Failures) > 0 || slices.Contains(e.Parts, want.Database):
			notes = append(notes, notef("passed over backup set %s: %s; name it with --set to use it", e.ID, lack))
		}
	}
	what := "no complete backup set"
	if want.Kind != "" {
		what += " of a " + string(want.Kind)
	}
	if want.Database != "" {
		what = fmt.Sprintf("%s holds the database %q", what, want.Database)
	}
	told := []string{what}
	for _, note := range notes[:min(len(notes), maxTold)] {
		told = append(told, note.Text)
	}
	if more := len(notes) - maxTold; more > 0 {
		told = append(told, fmt.Sprintf("and so were %d older ones", more))
	}
	return "", notes, fault.New(kind, hint, "%s", strings.Join(told, "; "))
}

// maxTold is how many sets that were passed over an error names, newest first. The
// notes name all of them.
const maxTold = 3

// find returns the entry that ref names by path, id or beginning of an id.
func find(ctx context.Context, st store.Store, ref string, options []Option) (Entry, error) {
	if strings.ContainsRune(ref, filepath.Separator) {
		id, err := idOfPath(st, ref)
		if err != nil {
			return Entry{}, err
		}
		ref = id
	}
	if entry, ok, err := named(ctx, st, ref, options); ok || err != nil {
		return entry, err
	}
	entries, err := List(ctx, st, options...)
	if err != nil {
		return Entry{}, err
	}
	var matches []Entry
	for _, e := range entries {
		if strings.HasPrefix(e.ID, ref) && e.Status != StatusUnfinished {
			matches = append(matches, e)
		}
	}
	return single(ref, matches)
}

// named looks at the one folder whose whole name is ref, if it is a set's.
func named(ctx context.Context, st store.Store, ref string, options []Option) (Entry, bool, error) {
	if CheckID(ref) != nil {
		return Entry{}, false, nil
	}
	folder, err := listFolder(ctx, st, ref)
	if err != nil {
		return Entry{}, false, fmt.Errorf("look for backup set %s: %w", ref, err)
	}
	if len(folder.bytes) == 0 || !folder.isSet() {
		return Entry{}, false, nil
	}
	survey := newSurvey(st, options)
	if err := survey.examine(ctx, folder); err != nil {
		return Entry{}, false, fmt.Errorf("look at backup set %s: %w", ref, err)
	}
	return survey.Entries[0], true, nil
}

func single(ref string, matches []Entry) (Entry, error) {
	switch {
	case ref == "" || len(matches) == 0:
		return Entry{}, fault.New(fault.NotFound, "list shows the sets of a store", "no such backup set: %q", ref)
	case len(matches) == 1:
		return matches[0], nil
	}
	var ids []string
	for _, e := range matches[:min(len(matches), 5)] {
		ids = append(ids, e.ID)
	}
	return Entry{}, fault.New(fault.Usage, "give more of the id", "%q is the beginning of %d backup sets: %s", ref, len(matches), strings.Join(ids, ", "))
}

// idOfPath returns the id of the set whose folder is at path.
func idOfPath(st store.Store, path string) (string, error) {
	local, ok := st.(store.Local)
	if !ok {
		return "", fault.New(fault.Usage, "name the set by its id", "backup set %s: %w", path, ErrNotLocal)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("backup set %s: %w", path, err)
	}
	id := filepath.Base(abs)
	if err := CheckID(id); err != nil {
		return "", fault.New(fault.NotFound, "", "backup set %s: %w", path, err)
	}
	inStore, err := local.Path(id)
	if err != nil {
		return "", fault.New(fault.NotFound, "list shows the sets of a store", "backup set %s: %w", path, err)
	}
	if !sameFolder(abs, inStore) {
		return "", fault.New(fault.NotFound, "open the store that holds the folder", "backup set %s is not in this store", path)
	}
	return id, nil
}

func sameFolder(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// Older reports whether a set's id is that of an older set than another one's.
func Older(id, other string) bool {
	_, stamp, _ := parseID(id)
	_, otherStamp, _ := parseID(other)
	return cmp.Or(stamp.compare(otherStamp), strings.Compare(id, other)) < 0
}

// sortByAge orders by the time stamp in the ids, then by id. An id without one
// is older than all others.
func sortByAge[T any](list []T, id func(T) string) {
	slices.SortStableFunc(list, func(a, b T) int {
		_, stampA, _ := parseID(id(a))
		_, stampB, _ := parseID(id(b))
		return cmp.Or(stampA.compare(stampB), strings.Compare(id(a), id(b)))
	})
}
