package backupset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

const sampleID = "cluster-20260102T030405Z"

func newStore(t *testing.T) *dir.Dir {
	t.Helper()
	return openStore(t, filepath.Join(t.TempDir(), "store"))
}

func openStore(t *testing.T, path string) *dir.Dir {
	t.Helper()
	st, err := dir.Open(path, true)
	must(t, err)
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func found(t *testing.T, st store.Store) *Folders {
	t.Helper()
	folders, err := ListFolders(t.Context(), st)
	must(t, err)
	return folders
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sampleManifest is valid together with the objects of writeSample.
func sampleManifest() Manifest {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	database := func(name, file, suffix string, mode Mode) Database {
		return Database{
			Name: name, Mode: mode, Why: "sample", Dump: "databases/" + file + suffix,
			Properties: "databases/" + file + ".properties.json", Create: "databases/" + file + ".create.sql",
			Owner: "postgres", Encoding: "UTF8", LocaleProvider: "libc", Collate: "C", CType: "C", Tablespace: "pg_default",
			Roles: []string{"postgres"}, Tablespaces: []string{}, Extensions: []string{"plpgsql"},
			Snapshot:      Snapshot{XMin: 740, XMax: 743, XIP: []uint64{741}, LSN: "0/1A2B3C4", Time: start},
			DatabaseBytes: 7_500_000, Tables: 3, EstimatedRows: -1, Attempts: 1, Compression: "gzip:6", CompressionRatio: 0.2,
			DumpTool: Tool{Name: "pg_dump", Version: "15.18"}, Started: start, Finished: start.Add(time.Second),
		}
	}
	return Manifest{
		Kind: Cluster, Tool: Tool{Name: "dbbackup", Version: "1.0.0"}, Host: "db1.example",
		Started: start, Finished: start.Add(time.Minute),
		Server: Server{
			Host: "/var/run/postgresql", Port: 5432, User: "postgres", Version: "15.18", VersionNum: 150018,
			SystemIdentifier: "7300000000000000001", Timeline: 1, Superuser: true, BootstrapRole: "postgres",
		},
		Globals: &Globals{
			Object: "globals.sql", Roles: []string{"postgres"}, Tablespaces: []Tablespace{},
			ServerFiles: []string{"server/pg_hba.conf"},
		},
		Databases: []Database{
			database("db1", "db1", ".dump", Custom),
			database("db10", "db10", ".dir", Directory),
			database("Größe/..", "Gr%C3%B6%C3%9Fe%2F.%2E", ".sql.gz", Plain),
		},
		Omissions: []Omission{{Database: "db1", Object: "subscription s", Reason: "only a superuser sees it"}},
	}
}

// writeSample writes a whole set, with a database that fails and is dropped.
func writeSample(ctx context.Context, st store.Store, id string, options ...WriterOption) error {
	w, err := Create(ctx, st, id, options...)
	if err != nil {
		return err
	}
	small := map[string]string{
		"globals.sql": "CREATE ROLE app;\n", "server/pg_hba.conf": "local all all peer\n",
		"databases/db1.dump":                               "PGDMP\x01\x0e\x00 not a real archive, but five bytes and more",
		"databases/Gr%C3%B6%C3%9Fe%2F.%2E.sql.gz":          "\x1f\x8b\x08 not a real one either",
		"databases/failed.dump":                            "half of a dump",
		"databases/failed.create.sql":                      "CREATE DATABASE failed;\n",
		"databases/db1.create.sql":                         "CREATE DATABASE db1;\n",
		"databases/db10.create.sql":                        "CREATE DATABASE db10;\n",
		"databases/Gr%C3%B6%C3%9Fe%2F.%2E.create.sql":      "CREATE DATABASE \"x\";\n",
		"databases/db1.properties.json":                    "{\"name\":\"db1\"}\n",
		"databases/db10.properties.json":                   "{\"name\":\"db10\"}\n",
		"databases/Gr%C3%B6%C3%9Fe%2F.%2E.properties.json": "{\"name\":\"x\"}\n",
	}
	for name, text := range small {
		if err := w.WriteFile(ctx, name, []byte(text)); err != nil {
			return err
		}
	}
	if err := stageSample(ctx, w); err != nil {
		return err
	}
	if err := w.Drop(ctx, "databases/failed.dump", "databases/failed.create.sql", "databases/failed.dir"); err != nil {
		return err
	}
	return w.Commit(ctx, sampleManifest())
}

func stageSample(ctx context.Context, w *Writer) error {
	if w.Sealed() {
		for _, name := range []string{"toc.dat", "3001.dat.gz", "3002.dat.gz"} {
			if err := w.WriteFile(ctx, "databases/db10.dir/"+name, []byte("content of "+name)); err != nil {
				return err
			}
		}
		return nil
	}
	s, err := w.Stage(ctx, "databases/db10.dir")
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.Path(), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"toc.dat", "3001.dat.gz", "3002.dat.gz"} {
		if err := os.WriteFile(filepath.Join(s.Path(), name), []byte("content of "+name), 0o600); err != nil {
			return err
		}
	}
	if _, err := s.Commit(ctx); err != nil {
		return errors.Join(err, s.Discard())
	}
	return s.Discard()
}

// mustOpen opens a set that must be in order.
func mustOpen(t *testing.T, st store.Store, id string, options ...Option) *Set {
	t.Helper()
	set, err := Open(t.Context(), st, id, options...)
	must(t, err)
	if problems := append(set.CheckQuick(t.Context()), set.CheckDigests(t.Context(), nil)...); len(problems) != 0 {
		t.Fatalf("problems: %+v", problems)
	}
	return set
}
