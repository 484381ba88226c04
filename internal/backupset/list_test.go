package backupset

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// writeSmall writes a set that holds one database and nothing else.
func writeSmall(t *testing.T, st store.Store, id, database string) {
	t.Helper()
	writeChanged(t, st, id, database, func(*Manifest) {})
}

func writeChanged(t *testing.T, st store.Store, id, database string, change func(*Manifest)) {
	t.Helper()
	w, err := Create(t.Context(), st, id)
	must(t, err)
	m := sampleManifest()
	m.Kind, m.Globals, m.Databases = Single, nil, m.Databases[:1]
	m.Databases[0].Name = database
	for _, name := range []string{m.Databases[0].Dump, m.Databases[0].Properties, m.Databases[0].Create} {
		must(t, w.WriteFile(t.Context(), name, []byte(id)))
	}
	change(&m)
	must(t, w.Commit(t.Context(), m))
}

func TestListTellsWhatIsWhat(t *testing.T) {
	st := newStore(t)
	ctx := t.Context()
	writeSmall(t, st, "single-db1-20260101T000000Z", "db1")
	writeSmall(t, st, "cluster-20250101T000000Z", "db1")
	writeSmall(t, st, "single-db1-20260103T000000Z", "db1")
	must(t, st.Delete(ctx, "single-db1-20260103T000000Z/databases/db1.dump"))
	writeSmall(t, st, "single-db1-20260104T000000Z", "db1")
	must(t, st.Delete(ctx, "single-db1-20260104T000000Z/"+ManifestName))
	w, err := Create(ctx, st, "single-db1-20260105T000000Z")
	must(t, err)
	must(t, w.WriteFile(ctx, "databases/x.dump", nil))
	must(t, os.MkdirAll(filepath.Join(st.String(), "notes"), 0o700))
	must(t, os.WriteFile(filepath.Join(st.String(), "notes", "todo"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(st.String(), "README"), nil, 0o600))

	entries, err := List(ctx, st)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.ID+" "+string(e.Status))
		if (e.Status == StatusComplete) != (e.Reason == "") {
			t.Errorf("%s is %s for the reason %q", e.ID, e.Status, e.Reason)
		}
	}
	want := []string{
		"cluster-20250101T000000Z complete", "single-db1-20260101T000000Z complete", "single-db1-20260103T000000Z damaged",
		"single-db1-20260104T000000Z damaged", "single-db1-20260105T000000Z unfinished",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for id, kind := range map[string]fault.Kind{
		"single-db1-20260104T000000Z": fault.Integrity, "single-db1-20260105T000000Z": fault.NotFound,
		"single-db1-20260106T000000Z": fault.NotFound, "../x": fault.Usage,
	} {
		if _, err := Open(ctx, st, id); !fault.Is(err, kind) {
			t.Errorf("open %s: %v has kind %d, want %d", id, err, fault.KindOf(err), kind)
		}
	}

	// Cleaning takes the unfinished one, and nothing that was a set.
	ids := found(t, st).Unfinished
	if !slices.Equal(ids, []string{"single-db1-20260105T000000Z"}) {
		t.Errorf("unfinished: %q", ids)
	}
	for _, id := range []string{"single-db1-20260104T000000Z", "single-db1-20260101T000000Z", "notes", "single-db1-2026010"} {
		if RemoveUnfinished(ctx, st, id) == nil {
			t.Errorf("%s was removed as unfinished", id)
		}
	}
	must(t, RemoveUnfinished(ctx, st, ids[0]))
	must(t, Remove(ctx, st, "single-db1-20260103T000000Z"))
	if all := found(t, st).IDs; len(all) != 3 {
		t.Errorf("ids after cleaning: %q", all)
	}
}

// T104: one id, database or prefix is the beginning of another.
func TestPrefixesAreNotConfused(t *testing.T) {
	st := newStore(t)
	ctx := t.Context()
	ids := []string{"db1-20260101T000000Z", "db1-20260101T000000Z-2", "db10-20260101T000000Z"}
	for _, id := range ids {
		writeSmall(t, st, id, id[:strings.IndexByte(id, '-')])
	}
	must(t, Remove(ctx, st, ids[0]))
	mustOpen(t, st, ids[1])
	mustOpen(t, st, ids[2])
	if _, err := Open(ctx, st, "db1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("open by a prefix: %v", err)
	}
	writeSmall(t, st, ids[0], "db1")
	for _, want := range ids {
		if id, _, err := Resolve(ctx, st, want, Want{}); err != nil || id != want {
			t.Errorf("%s is taken for %q, %v", want, id, err)
		}
	}
	if id, _, err := Resolve(ctx, st, Latest, Want{Database: "db1"}); err != nil || id != ids[1] {
		t.Errorf("latest of db1 is %s, %v", id, err)
	}
	if id, _, err := Resolve(ctx, st, Latest, Want{Database: "db"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("latest of db is %s, %v", id, err)
	}
}

// A mark beside a manifest means nothing: what is a set, damaged or not, is not
// removed as unfinished, and is not gone on with.
func TestMarkBesideAManifest(t *testing.T) {
	st, ctx := newStore(t), t.Context()
	const whole, damaged = "single-db1-20260101T000000Z", "single-db1-20260102T000000Z"
	for _, id := range []string{whole, damaged} {
		writeSmall(t, st, id, "db1")
		must(t, put(ctx, st, id+"/"+unfinishedName, nil))
		must(t, put(ctx, st, id+"/"+RunName, nil))
	}
	must(t, os.Truncate(filepath.Join(st.String(), damaged, ManifestName), 9))
	folders := found(t, st)
	if len(folders.Unfinished)+len(folders.Resumable) > 0 {
		t.Errorf("unfinished: %q, resumable: %q", folders.Unfinished, folders.Resumable)
	}
	for _, id := range []string{whole, damaged} {
		if err := RemoveUnfinished(ctx, st, id); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s was removed as unfinished: %v", id, err)
		}
		if _, err := Reopen(ctx, st, id); err == nil {
			t.Errorf("%s was gone on with", id)
		}
	}
	if ids, err := folders.Tidy(ctx); err != nil || !slices.Equal(ids, []string{whole}) {
		t.Errorf("tidied: %q, %v", ids, err)
	}
	mustOpen(t, st, whole)
}

func TestResolve(t *testing.T) {
	st := newStore(t)
	ctx := t.Context()
	const a, b, c, broken = "single-a-20260101T000000Z", "single-a-20260102T000000Z", "cluster-20260103T000000Z", "cluster-20260104T000000Z"
	writeSmall(t, st, a, "a")
	writeSmall(t, st, b, "a")
	writeSmall(t, st, c, "c")
	writeSmall(t, st, broken, "c")
	must(t, st.Delete(ctx, broken+"/databases/db1.dump"))
	_, err := Create(ctx, st, "cluster-20260105T000000Z")
	must(t, err)
	elsewhere := filepath.Join(t.TempDir(), a)
	must(t, os.Mkdir(elsewhere, 0o700))

	for _, tt := range []struct {
		ref, database, want string
		notes               int
		kind                fault.Kind // when want is empty
	}{
		{Latest, "", c, 1, 0},
		{Latest, "a", b, 1, 0},
		{Latest, "none", "", 1, fault.NotFound},
		{a, "", a, 0, 0},
		{a, "a", a, 0, 0},
		{a, "c", "", 0, fault.NotFound},
		{broken, "", broken, 0, 0},
		{"single-a-20260102", "", b, 0, 0},
		{"single-a", "", "", 0, fault.Usage},
		{"cluster-20260105", "", "", 0, fault.NotFound},
		{"nothing", "", "", 0, fault.NotFound},
		{"", "", "", 0, fault.NotFound},
		{filepath.Join(st.String(), a), "", a, 0, 0},
		{filepath.Join(st.String(), a) + "/", "", a, 0, 0},
		{elsewhere, "", "", 0, fault.NotFound},
		{"../" + a, "", "", 0, fault.NotFound},
	} {
		t.Run(tt.ref+" "+tt.database, func(t *testing.T) {
			id, notes, err := Resolve(ctx, st, tt.ref, Want{Database: tt.database})
			if id != tt.want || len(notes) != tt.notes || (err == nil) != (tt.want != "") {
				t.Fatalf("got %q, %+v, %v", id, notes, err)
			}
			if err != nil && !fault.Is(err, tt.kind) {
				t.Errorf("%v has kind %d, want %d", err, fault.KindOf(err), tt.kind)
			}
			if tt.notes > 0 && !strings.Contains(notes[0].Text, broken) {
				t.Errorf("the note is %q", notes[0].Text)
			}
		})
	}
}

// Latest is never a set that lacks what is wanted, and says what it passed over.
func TestLatestHasAllThatIsWanted(t *testing.T) {
	st := newStore(t)
	ctx := t.Context()
	const whole, single, failed, part = "cluster-20260101T000000Z", "single-a-20260102T000000Z", "cluster-20260103T000000Z", "single-a-20260104T000000Z"
	cluster := func(m *Manifest) { m.Kind = Cluster }
	writeChanged(t, st, whole, "a", cluster)
	writeSmall(t, st, single, "a")
	writeChanged(t, st, failed, "b", func(m *Manifest) { cluster(m); m.Failures = []Failure{{Database: "a", Error: "killed"}} })
	writeChanged(t, st, part, "a", func(m *Manifest) { m.Databases[0].Selection = &Selection{Tables: []string{"t"}} })
	for _, tt := range []struct {
		want   Want
		id     string
		passed string // named in a note
	}{
		{Want{Kind: Cluster}, whole, failed},
		{Want{Database: "a"}, single, part},
		{Want{Kind: Cluster, Database: "a"}, whole, failed},
		{Want{Database: "b"}, failed, failed}, // what failed there is another database, and is said
	} {
		id, notes, err := Resolve(ctx, st, Latest, tt.want)
		if err != nil || id != tt.id || !slices.ContainsFunc(notes, func(n Note) bool { return strings.Contains(n.Text, tt.passed) }) {
			t.Errorf("latest of %+v: got %s, %+v, %v; want %s and a note on %s", tt.want, id, notes, err, tt.id, tt.passed)
		}
	}
}
