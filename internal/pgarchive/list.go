package pgarchive

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteList writes the entries with the dump IDs as a list file for
// pg_restore -L, in the order of the archive, one line each as pg_restore -l
// prints them. Dump IDs that the archive does not hold are an error.
func (t *TOC) WriteList(w io.Writer, ids []int) error {
	entries, err := t.pick(ids)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	for _, e := range entries {
		fmt.Fprintf(out, "%d; %d %d %s %s %s %s\n", e.ID, e.TableOID, e.OID,
			oneLine(e.Desc, ""), oneLine(e.Schema, "-"), oneLine(e.Tag, ""), oneLine(e.Owner, ""))
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write list of entries: %w", err)
	}
	return nil
}

// oneLine keeps a name from becoming a line of its own, which pg_restore would
// read as another entry.
func oneLine(name, empty string) string {
	if name == "" {
		return empty
	}
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(name)
}

// pick returns the entries with the dump IDs in the order of the archive.
func (t *TOC) pick(ids []int) ([]*Entry, error) {
	want := make(map[int]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	entries := make([]*Entry, 0, len(want))
	for i := range t.Entries {
		if want[t.Entries[i].ID] {
			entries = append(entries, &t.Entries[i])
			delete(want, t.Entries[i].ID)
		}
	}
	for id := range want {
		return nil, fmt.Errorf("dump ID %d is not in the archive", id)
	}
	return entries, nil
}

// Run is a row of entries that one call of pg_restore can create in the same
// default tablespace.
type Run struct {
	Tablespace string // empty for the database's default one, or where it does not matter
	IDs        []int
}

// RunsByTablespace cuts the entries into runs, in the order of the archive,
// so that each can be restored by pg_restore -L --no-tablespaces in a session
// with default_tablespace set to the run's. mapping renames tablespaces, to ""
// for the database's default one; those that it does not name stay. Entries
// that live in no tablespace join the run that they stand in. IDs that the
// archive does not hold are passed over.
func (t *TOC) RunsByTablespace(ids []int, mapping map[string]string) []Run {
	want := make(map[int]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	var runs []Run
	decided := false // an entry of the current run has a tablespace
	for i := range t.Entries {
		e := &t.Entries[i]
		if !want[e.ID] {
			continue
		}
		space, renamed := mapping[e.Tablespace]
		if !renamed {
			space = e.Tablespace
		}
		if len(runs) == 0 || e.placed && decided && runs[len(runs)-1].Tablespace != space {
			runs, decided = append(runs, Run{}), false
		}
		run := &runs[len(runs)-1]
		if e.placed && !decided {
			run.Tablespace, decided = space, true
		}
		run.IDs = append(run.IDs, e.ID)
	}
	return runs
}

// Roles returns the owners of the entries, sorted. Roles that are only named
// in privileges are not among them.
func (t *TOC) Roles() []string {
	return t.distinct(func(e *Entry) string { return e.Owner })
}

// Tablespaces returns the tablespaces that entries ask for, sorted, without
// the database's default one.
func (t *TOC) Tablespaces() []string {
	return t.distinct(func(e *Entry) string { return e.Tablespace })
}

// Extensions returns the extensions that the archive creates, sorted.
func (t *TOC) Extensions() []string { return t.tagged("EXTENSION") }

// Schemas returns the schemas that the archive creates, sorted. Schema public
// is only among them where it is not as initdb made it.
func (t *TOC) Schemas() []string { return t.tagged("SCHEMA") }

func (t *TOC) tagged(desc string) []string {
	return t.distinct(func(e *Entry) string {
		if e.Desc == desc {
			return e.Tag
		}
		return ""
	})
}

func (t *TOC) distinct(of func(*Entry) string) []string {
	seen := map[string]bool{"": true}
	var names []string
	for i := range t.Entries {
		if name := of(&t.Entries[i]); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Tables returns the entries of tables, partitioned and foreign ones included,
// in the order of the archive.
func (t *TOC) Tables() []Entry {
	var tables []Entry
	for i := range t.Entries {
		if d := t.Entries[i].Desc; d == "TABLE" || d == "FOREIGN TABLE" {
			tables = append(tables, t.Entries[i])
		}
	}
	return tables
}
