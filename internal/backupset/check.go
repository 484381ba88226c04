package backupset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/store"
)

// Severity says what a Problem means for the set.
type Severity int

const (
	// Warning does not keep a set from being restored.
	Warning Severity = iota
	// Damage means that something of the set is lost, or could not be checked.
	Damage
)

// Problem is something that is not as the manifest says.
type Problem struct {
	Severity Severity
	Object   string // relative to the set; empty: the set as a whole
	Database string // the database that needs the object, when one does
	Text     string // names the object
	Err      error  // nil for warnings; its kind is fault.Integrity for damaged data
}

// AnyDamage reports whether one of the problems is more than a warning.
func AnyDamage(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Damage })
}

// CheckQuick compares the names and sizes in the store with the manifest. It
// reads no object. A check that could not be finished is Damage too.
func (s *Set) CheckQuick(ctx context.Context) []Problem {
	folder, err := listFolder(ctx, s.st, s.ID())
	if err != nil {
		return []Problem{{Severity: Damage, Text: fmt.Sprintf("the check did not finish: %v", err), Err: err}}
	}
	problems, err := s.compareReferences(ctx, func(ctx context.Context, id string) (map[string]int64, error) { return listSizes(ctx, s.st, id) })
	if err != nil {
		problems = append(problems, Problem{Severity: Damage, Text: fmt.Sprintf("the check did not finish: %v", err), Err: err})
	}
	return append(s.compare(folder), problems...)
}

// sizesOf says what a set's folder holds: sizes by name, relative to the set.
type sizesOf func(ctx context.Context, id string) (map[string]int64, error)

func listSizes(ctx context.Context, st store.Store, id string) (map[string]int64, error) {
	folder, err := listFolder(ctx, st, id)
	return folder.bytes, err
}

// compareReferences looks for the objects of older sets, in their sizes.
func (s *Set) compareReferences(ctx context.Context, sizes sizesOf) ([]Problem, error) {
	var problems []Problem
	var bytes map[string]int64
	of := ""
	for _, r := range s.envelope.References {
		if r.Set != of { // they are sorted by set
			var err error
			if bytes, err = sizes(ctx, r.Set); err != nil {
				return problems, err
			}
			of = r.Set
		}
		size, ok := bytes[r.Name]
		switch {
		case !ok:
			problems = append(problems, s.referenceProblem(r, missingReference(r, "is missing")))
		case size != r.Bytes:
			problems = append(problems, s.referenceProblem(r, missingReference(r, "has %d bytes, and the manifest says %d", size, r.Bytes)))
		}
	}
	return problems, nil
}

// referenceProblem is that of an object of an older set, as it is stored.
func (s *Set) referenceProblem(r Reference, err error) Problem {
	return Problem{Severity: Damage, Object: s.named(r.path()), Database: r.Database, Text: err.Error(), Err: err}
}

// compare checks the folder's names and sizes, in the manifest's order.
func (s *Set) compare(folder setFolder) []Problem {
	var problems []Problem
	for _, o := range s.envelope.Objects {
		bytes, ok := folder.bytes[o.Name]
		switch {
		case !ok:
			problems = append(problems, s.problem(o.Name, damaged(nil, "object %s of backup set %s is missing", o.Name, s.ID())))
		case bytes != o.Bytes:
			problems = append(problems, s.problem(o.Name, damaged(nil, "object %s of backup set %s has %d bytes, and the manifest says %d", o.Name, s.ID(), bytes, o.Bytes)))
		}
	}
	return append(problems, s.extras(folder)...)
}

func (s *Set) extras(folder setFolder) []Problem {
	var problems []Problem
	stored := objectIndex(s.envelope.Objects)
	for name := range folder.bytes {
		if name != ManifestName && name != SumsName && !stored.has(name) && !(s.Sealed() && beside(name)) {
			problems = append(problems, Problem{Object: name, Text: fmt.Sprintf("file %q in backup set %s is not part of it", name, s.ID())})
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Object, b.Object) })
	return problems
}

// problem is that of an object, by its name in the store.
func (s *Set) problem(object string, err error) Problem {
	object = s.named(object)
	return Problem{Severity: Damage, Object: object, Database: s.databaseOf(object), Text: err.Error(), Err: err}
}

// databaseOf returns the database that needs an object, or nothing.
func (s *Set) databaseOf(object string) string {
	for i := range s.manifest.Databases {
		db := &s.manifest.Databases[i]
		if object == db.Dump || object == db.Properties || object == db.Create || strings.HasPrefix(object, db.Dump+"/") {
			return db.Name
		}
	}
	return ""
}

// ObjectsOf returns every object that restoring a database needs, in order.
// nil when the set does not hold the database.
func (s *Set) ObjectsOf(database string) []Object {
	i := slices.IndexFunc(s.manifest.Databases, func(db Database) bool { return db.Name == database })
	if i < 0 {
		return nil
	}
	db := &s.manifest.Databases[i]
	objects := slices.Clone(s.Below(db.Dump))
	for _, name := range []string{db.Dump, db.Properties, db.Create} {
		if o, ok := s.Object(name); ok {
			objects = append(objects, o)
		}
	}
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	return objects
}

// ReferencesOf returns the objects of older sets that a database needs.
func (s *Set) ReferencesOf(database string) []Reference {
	var references []Reference
	for _, r := range s.manifest.References {
		if r.Database == database {
			references = append(references, r)
		}
	}
	return references
}

// CheckDigests reads every object, and those of older sets that are referred
// to, and compares size and SHA-256, several at a
// time. progress may be nil; it is called from several goroutines with the
// bytes read since its last call. Extra files are CheckQuick's. An object that
// could not be read, also because ctx ended, is Damage.
func (s *Set) CheckDigests(ctx context.Context, progress func(bytes int64)) []Problem {
	return s.checkStored(ctx, s.envelope.Objects, s.envelope.References, progress)
}

// CheckObjects is CheckDigests for some of the manifest's objects and references.
func (s *Set) CheckObjects(ctx context.Context, objects []Object, references []Reference, progress func(bytes int64)) []Problem {
	objects, references, err := s.storedOf(objects, references)
	if err != nil {
		return []Problem{{Severity: Damage, Text: err.Error(), Err: err}}
	}
	return s.checkStored(ctx, objects, references, progress)
}

// checkStored reads objects and references as they are stored.
func (s *Set) checkStored(ctx context.Context, objects []Object, references []Reference, progress func(bytes int64)) []Problem {
	var (
		mu       sync.Mutex
		problems []Problem
		group    errgroup.Group
	)
	group.SetLimit(runtime.GOMAXPROCS(0))
	check := func(id string, o Object, problem func(error) Problem) {
		group.Go(func() error {
			if err := s.checkObject(ctx, id, o, progress); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, problem(err))
			}
			return nil
		})
	}
	for _, o := range objects {
		check(s.ID(), o, func(err error) Problem { return s.problem(o.Name, err) })
	}
	for _, r := range references {
		check(r.Set, r.Object, func(err error) Problem {
			if errors.Is(err, store.ErrNotExist) {
				err = missingReference(r, "is missing")
			}
			return s.referenceProblem(r, err)
		})
	}
	_ = group.Wait() // the functions return no error: each problem is collected
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Object, b.Object) })
	return problems
}

func (s *Set) checkObject(ctx context.Context, id string, o Object, progress func(int64)) error {
	return s.Reread(func() error {
		told := progress
		progress = nil // a second time counts for nothing
		return s.checkObjectOnce(ctx, id, o, told)
	})
}

func (s *Set) checkObjectOnce(ctx context.Context, id string, o Object, progress func(int64)) error {
	in, err := s.open(ctx, id, o)
	if err != nil {
		return err
	}
	defer in.Close()
	counted := readFunc(func(p []byte) (int, error) {
		n, err := in.Read(p)
		if progress != nil && n > 0 {
			progress(int64(n))
		}
		return n, err
	})
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, untilDone(ctx, counted), make([]byte, 256<<10))
	if err != nil {
		return fmt.Errorf("check object %s: %w", o.Name, err)
	}
	return nil
}
