package backupset

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dbbackup/internal/store/dir"
)

const goldenV1 = "testdata/golden-v1"

// TestGoldenSetsOpen holds for ever: what version 1 wrote is read (F1, T44).
func TestGoldenSetsOpen(t *testing.T) {
	st, err := dir.Open(goldenV1, false)
	must(t, err)
	defer st.Close()
	entries, err := List(t.Context(), st)
	must(t, err)
	if len(entries) == 0 {
		t.Fatal("there is no golden set")
	}
	for _, e := range entries {
		if e.Status != StatusComplete || len(e.Problems) != 0 {
			t.Errorf("%s is %s: %s %v", e.ID, e.Status, e.Reason, e.Problems)
		}
		mustOpen(t, st, e.ID)
	}
}

func TestGoldenContent(t *testing.T) {
	st, err := dir.Open(goldenV1, false)
	must(t, err)
	defer st.Close()
	set := mustOpen(t, st, sampleID)
	m := set.Manifest()
	if m.Format != 1 || m.Kind != Cluster || m.Server.VersionNum != 150018 || len(m.Databases) != 3 || len(m.Objects) != 13 {
		t.Errorf("the manifest reads as %+v", m)
	}
	if got := m.Databases[2].Name; got != "Größe/.." {
		t.Errorf("the third database is %q", got)
	}
	r, err := set.OpenObject(t.Context(), "globals.sql")
	must(t, err)
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "CREATE ROLE app;\n" {
		t.Errorf("globals.sql is %q, %v", got, err)
	}
}

// B2: the set can be checked with coreutils alone.
func TestSha256sumReadsOurSums(t *testing.T) {
	st := newStore(t)
	must(t, writeSample(t.Context(), st, sampleID))
	folder := filepath.Join(st.Root(), sampleID)
	check := func() error {
		cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", SumsName)
		cmd.Dir = folder
		return cmd.Run()
	}
	must(t, check())
	must(t, os.WriteFile(filepath.Join(folder, "globals.sql"), []byte("other"), 0o600))
	if check() == nil {
		t.Error("sha256sum accepts a changed file")
	}
}
