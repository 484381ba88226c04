package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/backupset"
)

// edit changes the manifest of a store's only set, and makes every digest fit
// again: what only the digests would find is not what such a test is about.
func edit(t testing.TB, store string, change func(folder string, m *backupset.Manifest)) {
	t.Helper()
	folder := filepath.Join(store, onlySet(t, store))
	var m backupset.Manifest
	if err := json.Unmarshal(readFile(t, filepath.Join(folder, backupset.ManifestName)), &m); err != nil {
		t.Fatal(err)
	}
	change(folder, &m)
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%s  %s\n", hexDigest(text), backupset.ManifestName)
	for _, o := range m.Objects {
		sums += fmt.Sprintf("%s  %s\n", o.SHA256, o.Name)
	}
	writeFile(t, filepath.Join(folder, backupset.ManifestName), text, 0o600)
	writeFile(t, filepath.Join(folder, backupset.SumsName), []byte(sums), 0o600)
}

func hexDigest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// editScript changes the SQL of a store's only set, digests included.
func editScript(t testing.TB, store string, change func(sql string) string) {
	t.Helper()
	edit(t, store, func(folder string, m *backupset.Manifest) {
		d := &m.Databases[0]
		path := filepath.Join(folder, d.Dump)
		before := gunzip(t, readFile(t, path))
		sql := change(before)
		if sql == before {
			t.Fatal("the edit changed nothing")
		}
		zipped := gzipped(t, sql)
		writeFile(t, path, zipped, 0o600)
		i := slices.IndexFunc(m.Objects, func(o backupset.Object) bool { return o.Name == d.Dump })
		m.Objects[i].Bytes, m.Objects[i].SHA256 = int64(len(zipped)), hexDigest(zipped)
		d.DumpBytes, d.StoredBytes = int64(len(sql)), int64(len(zipped))
	})
}

func gunzip(t testing.TB, zipped []byte) string {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// T77: psql takes the end of a truncated script for the end of the data and
// commits. Such a script never reaches it, also when every digest fits.
func TestT77TruncatedOrEditedScriptIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	tests := []struct {
		name   string
		change func(sql string) string
	}{
		{"cut within the rows", func(sql string) string { return sql[:strings.Index(sql, "\n150\t")+1] }},
		{"cut before the end", func(sql string) string {
			return sql[:strings.LastIndex(sql, "-- PostgreSQL database dump complete")]
		}},
		{"continued after the end", func(sql string) string { return sql + "DROP TABLE accounts;\n" }},
		{"empty", func(string) string { return "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store, to := captured(t, c, db, "--mode", "plain"), c.FreeName(t)
			editScript(t, store, func(sql string) string { return sql + "\n" })
			editScript(t, store, func(sql string) string { return strings.TrimSuffix(sql, "\n") })
			inProcess(t, nil, "verify", "--store", store).must(t, exitOK) // the editing itself does no harm
			editScript(t, store, tt.change)
			dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).want(t, exitIntegrity, ".sql.gz", "nothing was written")
			if hasDatabase(t, c, to) || unfinished(t, c, to) != "" {
				t.Errorf("databases after the refusal: %q", databasesOf(t, c))
			}
		})
	}
}
