package backupset

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"dbbackup/internal/seal"
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
	folder := filepath.Join(st.String(), sampleID)
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

// TestGoldenV2 holds for ever, too: a chunked database, and an incremental set
// that refers to it.
func TestGoldenV2(t *testing.T) {
	st, err := dir.Open("testdata/golden-v2", false)
	must(t, err)
	defer st.Close()
	entries, err := List(t.Context(), st)
	must(t, err)
	if len(entries) != 2 {
		t.Fatalf("%d golden sets", len(entries))
	}
	for i, e := range entries {
		if e.Status != StatusComplete || len(e.Problems) != 0 {
			t.Errorf("%s is %s: %s %v", e.ID, e.Status, e.Reason, e.Problems)
		}
		set := mustOpen(t, st, e.ID)
		if problems := set.CheckDigests(t.Context(), nil); len(problems) != 0 {
			t.Errorf("%s: %v", e.ID, problems)
		}
		m := set.Manifest()
		if got, want := len(m.References), []int{0, 2}[i]; m.Format != 2 || got != want {
			t.Errorf("%s: format %d with %d references, want 2 with %d", e.ID, m.Format, got, want)
		}
		c, err := set.Contents(t.Context(), &m.Databases[0])
		must(t, err)
		if got, want := c.Tables[0].Rows, int64(50+i); c.Tables[0].Name != "notes" || got != want {
			t.Errorf("%s: table %s has %d rows, want %d", e.ID, c.Tables[0].Name, got, want)
		}
		if s := c.Sequences[0]; s.Last != 9007199254740993 || !s.Called {
			t.Errorf("%s: sequence %+v", e.ID, s)
		}
	}
}

// TestGoldenV3 holds for ever, too: an encrypted chunked database, and an
// incremental set that refers to it. The key is for this test alone.
func TestGoldenV3(t *testing.T) {
	st, err := dir.Open("testdata/golden-v3", false)
	must(t, err)
	defer st.Close()
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata/golden-v3-keys", name))
		must(t, err)
		return text
	}
	keys := Keys{Ring: &seal.Keyring{}}
	must(t, keys.Ring.AddIdentities("identity.txt", read("identity.txt")))
	keys.Trusted, err = seal.ParseTrusted("trusted.pem", read("trusted.pem"))
	must(t, err)
	entries, err := List(t.Context(), st, WithTrust(keys))
	must(t, err)
	if len(entries) != 2 {
		t.Fatalf("%d golden sets", len(entries))
	}
	for i, e := range entries {
		if e.Status != StatusComplete || len(e.Problems) != 0 || e.Sealed == nil {
			t.Errorf("%s is %s: %s %v", e.ID, e.Status, e.Reason, e.Problems)
		}
		set := mustOpen(t, st, e.ID, WithKeys(keys))
		m := set.Manifest()
		if got, want := len(m.References), []int{0, 2}[i]; m.Format != 3 || got != want || m.Host != "db1.example" {
			t.Errorf("%s: format %d with %d references from %s, want 3 with %d", e.ID, m.Format, got, m.Host, want)
		}
		c, err := set.Contents(t.Context(), &m.Databases[0])
		must(t, err)
		at := slices.IndexFunc(c.Tables, func(t ChunkedTable) bool { return t.Name == "notes" })
		if at < 0 || c.Tables[at].Rows != int64(50+i) {
			t.Errorf("%s: tables %+v", e.ID, c.Tables)
		}
		if s := c.Sequences[0]; s.Last != 9007199254740993 || !s.Called {
			t.Errorf("%s: sequence %+v", e.ID, s)
		}
		c.Pieces(func(_ *ChunkedTable, p *Piece) {
			if p.Object == "" {
				return
			}
			r, err := set.OpenPiece(t.Context(), p)
			must(t, err)
			defer r.Close()
			if n, err := io.Copy(io.Discard, r); err != nil || n != p.Bytes {
				t.Errorf("%s: piece %s at %d: %d bytes, %v", e.ID, p.Object, p.Offset, n, err)
			}
		})
	}
}
