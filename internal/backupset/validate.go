package backupset

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a manifest may hold at most. Far above what PostgreSQL clusters have,
// and low enough that a forged manifest cannot exhaust the memory.
const (
	maxObjects   = 1_000_000
	maxDatabases = 20_000
)

// Validate checks every invariant of a manifest by itself, and names the first
// few that do not hold. It does not look at the objects.
func (m *Manifest) Validate() error {
	index, err := m.checkObjects()
	return errors.Join(m.checkHead(), m.checkTimes(), err, m.checkSealed(index), m.checkGlobals(index), m.checkDatabases(index), m.checkReferences(), m.Resources.check("manifest"))
}

func (m *Manifest) checkHead() error {
	var errs []error
	if m.Format < 1 || m.Format > Version {
		errs = append(errs, fmt.Errorf("format is %d, not 1 to %d", m.Format, Version))
	}
	if m.NeedsTool == "" {
		errs = append(errs, errors.New("needs_tool is empty"))
	}
	if m.Tool.Name == "" || m.Tool.Version == "" {
		errs = append(errs, errors.New("tool is not named"))
	}
	switch m.Kind {
	case Cluster:
		if len(m.Databases) == 0 && m.Globals == nil && m.Sealed == nil {
			errs = append(errs, errors.New("the set holds nothing: no database and no globals"))
		}
	case Single:
		if len(m.Databases) != 1 {
			errs = append(errs, fmt.Errorf("a set of kind single holds %d databases", len(m.Databases)))
		}
	default:
		errs = append(errs, fmt.Errorf("kind %q is unknown", m.Kind))
	}
	return errors.Join(append(errs, CheckID(m.ID))...)
}

func (m *Manifest) checkTimes() error {
	if m.Started.IsZero() || m.Finished.IsZero() {
		return errors.New("started or finished is missing")
	}
	if m.Finished.Before(m.Started) {
		return fmt.Errorf("finished %s is before started %s", m.Finished, m.Started)
	}
	return nil
}

// objectIndex answers which objects a manifest names.
type objectIndex []Object

func byName(o Object, name string) int { return cmp.Compare(o.Name, name) }

func (x objectIndex) find(name string) (Object, bool) {
	i, ok := slices.BinarySearchFunc(x, name, byName)
	if !ok {
		return Object{}, false
	}
	return x[i], true
}

func (x objectIndex) has(name string) bool {
	_, ok := x.find(name)
	return ok
}

// from returns the position of the first object not before name.
func (x objectIndex) from(name string) int {
	i, _ := slices.BinarySearchFunc(x, name, byName)
	return i
}

// hasBelow reports whether an object lies in the folder.
func (x objectIndex) hasBelow(folder string) bool {
	i := x.from(folder + "/")
	return i < len(x) && strings.HasPrefix(x[i].Name, folder+"/")
}

// checkObjects returns an index only if the objects are sorted.
func (m *Manifest) checkObjects() (objectIndex, error) {
	if len(m.Objects) > maxObjects {
		return nil, fmt.Errorf("objects has %d entries, more than %d", len(m.Objects), maxObjects)
	}
	index := objectIndex(m.Objects)
	for i, o := range m.Objects {
		if err := o.check(); err != nil {
			return nil, err
		}
		if i > 0 && o.Name <= m.Objects[i-1].Name {
			return nil, fmt.Errorf("object %s is listed twice or out of order", o.Name)
		}
	}
	for _, o := range m.Objects {
		if index.hasBelow(o.Name) {
			return nil, fmt.Errorf("object %s is also a folder of objects", o.Name)
		}
	}
	return index, nil
}

func (o Object) check() error {
	if err := CheckName(o.Name); err != nil {
		return err
	}
	if o.Bytes < 0 {
		return fmt.Errorf("object %s has the size %d", o.Name, o.Bytes)
	}
	if err := checkDigest(o.SHA256); err != nil {
		return fmt.Errorf("object %s: %w", o.Name, err)
	}
	return nil
}

func checkDigest(digest string) error {
	if len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		return fmt.Errorf("sha256 %.70q is not 64 lower-case hex digits", digest)
	}
	return nil
}

func (m *Manifest) checkGlobals(index objectIndex) error {
	if m.Globals == nil {
		return nil
	}
	var errs []error
	for _, name := range append([]string{m.Globals.Object}, m.Globals.ServerFiles...) {
		if !index.has(name) {
			errs = append(errs, fmt.Errorf("globals name the object %.80q, which is not in objects", name))
		}
	}
	return errors.Join(errs...)
}

func (m *Manifest) checkDatabases(index objectIndex) error {
	if len(m.Databases) > maxDatabases {
		return fmt.Errorf("databases has %d entries, more than %d", len(m.Databases), maxDatabases)
	}
	names := map[string]bool{}
	for i := range m.Databases {
		db := &m.Databases[i]
		if names[db.Name] {
			return fmt.Errorf("database %q is listed twice", db.Name)
		}
		names[db.Name] = true
		if err := db.check(index, m.Sealed != nil); err != nil {
			return fmt.Errorf("database %q: %w", db.Name, err)
		}
	}
	return nil
}

func (db *Database) check(index objectIndex, sealed bool) error {
	if db.Name == "" || len(db.Name) > 63 || strings.ContainsRune(db.Name, 0) {
		return errors.New("the name is empty, longer than 63 bytes or holds a NUL")
	}
	if sealed { // where what lies is for the inner manifest to say
		return db.checkNumbers()
	}
	if err := db.checkDump(index); err != nil {
		return err
	}
	for _, name := range []string{db.Properties, db.Create} {
		if !index.has(name) {
			return fmt.Errorf("the object %.80q is not in objects", name)
		}
	}
	if db.Finished.Before(db.Started) {
		return fmt.Errorf("finished %s is before started %s", db.Finished, db.Started)
	}
	return errors.Join(db.checkNumbers(), db.Resources.check("resources"))
}

func (db *Database) checkDump(index objectIndex) error {
	switch db.Mode {
	case Custom, Plain:
		if !index.has(db.Dump) {
			return fmt.Errorf("the dump %.80q is not in objects", db.Dump)
		}
	case Directory:
		if !index.has(db.Dump + "/toc.dat") {
			return fmt.Errorf("the dump folder %.80q has no toc.dat in objects", db.Dump)
		}
	case Chunked:
		for _, name := range []string{ContentsName, SchemaName} {
			if !index.has(db.Dump + "/" + name) {
				return fmt.Errorf("the folder %.80q has no %s in objects", db.Dump, name)
			}
		}
		if db.Chunks == nil || min(db.Chunks.Rows, db.Chunks.Count, db.Chunks.Reused, db.Chunks.ReusedBytes) < 0 {
			return errors.New("the counts of its chunks are missing or negative")
		}
	default:
		return fmt.Errorf("mode %q is unknown", db.Mode)
	}
	return nil
}

func (db *Database) checkNumbers() error {
	numbers := []int64{db.DatabaseBytes, db.Tables, db.LargeObjects, db.LargeObjectBytes, db.EstimatedRows + 1, db.DumpBytes, db.StoredBytes, db.UnreadableTables, int64(db.Attempts)}
	if slices.Min(numbers) < 0 || db.CompressionRatio < 0 {
		return errors.New("a size or a count is negative")
	}
	return nil
}

func (r Resources) check(of string) error {
	if min(r.PeakRSSBytes, r.ChildPeakRSSBytes, r.DiskReadBytes, r.DiskWriteBytes) < 0 ||
		min(r.Seconds, r.CPUSeconds, r.ChildCPUSeconds, r.StoredBytesPerSec) < 0 {
		return fmt.Errorf("%s: a measured resource is negative", of)
	}
	return nil
}
