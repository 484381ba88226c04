package backupset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/store/dir"
)

// golden returns a copy of the golden set that a test may break.
func golden(t *testing.T) (st *dir.Dir, folder string) {
	t.Helper()
	st = newStore(t)
	folder = filepath.Join(st.String(), sampleID)
	must(t, os.CopyFS(folder, os.DirFS(filepath.Join(goldenV1, sampleID))))
	return st, folder
}

// verify is what a user's verify sees of a set.
func verify(ctx context.Context, st *dir.Dir) (*Set, error) {
	set, err := Open(ctx, st, sampleID)
	if err != nil {
		return nil, err
	}
	for _, p := range append(set.CheckQuick(ctx), set.CheckDigests(ctx, nil)...) {
		if p.Severity == Damage {
			return set, p.Err
		}
	}
	return set, nil
}

func wantIntegrity(t *testing.T, err error, name string) {
	t.Helper()
	if !fault.Is(err, fault.Integrity) || !strings.Contains(fmt.Sprint(err), name) {
		t.Errorf("got %v, want kind Integrity and %s in the text", err, name)
	}
}

// T36: one flipped bit, anywhere in any file.
func TestByteFlips(t *testing.T) {
	st, folder := golden(t)
	files := 0
	must(t, filepath.WalkDir(folder, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		name, _ := filepath.Rel(folder, path)
		whole, err := os.ReadFile(path)
		must(t, err)
		for i := range 9 {
			at := i * (len(whole) - 1) / 8
			broken := bytes.Clone(whole)
			broken[at] ^= 1 << (i % 8)
			must(t, os.WriteFile(path, broken, 0o600))
			_, err := verify(t.Context(), st)
			wantIntegrity(t, err, name)
		}
		return os.WriteFile(path, whole, 0o600)
	}))
	if files != 15 {
		t.Errorf("%d files were broken, want 15", files)
	}
	if _, err := verify(t.Context(), st); err != nil {
		t.Errorf("the set as it was: %v", err)
	}
}

// T37, T38, T41: cut, emptied, lengthened, lost, replaced by a link.
func TestFilesThatAreNotWhole(t *testing.T) {
	breaks := map[string]func(path string, whole []byte) error{
		"empty":    func(path string, whole []byte) error { return os.WriteFile(path, nil, 0o600) },
		"half":     func(path string, whole []byte) error { return os.WriteFile(path, whole[:len(whole)/2], 0o600) },
		"appended": func(path string, whole []byte) error { return os.WriteFile(path, append(whole, '\n'), 0o600) },
		"garbage": func(path string, whole []byte) error {
			return os.WriteFile(path, bytes.Repeat([]byte{0xfe}, len(whole)), 0o600)
		},
		"lost": func(path string, whole []byte) error { return os.Remove(path) },
		"linked": func(path string, whole []byte) error { // T98: the right bytes, but not in the set
			outside := filepath.Join(t.TempDir(), "outside")
			if err := os.WriteFile(outside, whole, 0o600); err != nil {
				return err
			}
			return os.Symlink(outside, path+".new")
		},
	}
	for _, name := range []string{ManifestName, SumsName, "globals.sql", "databases/db1.dump", "databases/db10.dir/toc.dat"} {
		for how, change := range breaks {
			t.Run(name+"/"+how, func(t *testing.T) {
				st, folder := golden(t)
				path := filepath.Join(folder, name)
				whole, err := os.ReadFile(path)
				must(t, err)
				must(t, change(path, whole))
				if how == "linked" {
					must(t, os.Rename(path+".new", path))
				}
				_, err = verify(t.Context(), st)
				wantIntegrity(t, err, name)
				entries, err := List(t.Context(), st)
				must(t, err)
				if len(entries) != 1 {
					t.Fatalf("%d entries, want 1", len(entries))
				}
				sizeOnly := how == "garbage" && name != ManifestName && name != SumsName
				if complete := entries[0].Status == StatusComplete; complete != sizeOnly {
					t.Errorf("listed as %s (%s)", entries[0].Status, entries[0].Reason)
				}
			})
		}
	}
}

// T38: what does not need the lost object is still readable, and whose it is
// is said.
func TestProblemsNameTheDatabase(t *testing.T) {
	st, folder := golden(t)
	must(t, os.Remove(filepath.Join(folder, "databases/db10.dir/3001.dat.gz")))
	set, err := verify(t.Context(), st)
	wantIntegrity(t, err, "databases/db10.dir/3001.dat.gz")
	problems := set.CheckQuick(t.Context())
	if len(problems) != 1 || problems[0].Database != "db10" {
		t.Errorf("problems: %+v", problems)
	}
	if p := set.CheckObjects(t.Context(), set.ObjectsOf("db1"), nil, nil); len(p) != 0 {
		t.Errorf("db1 has problems too: %+v", p)
	}
	if p := set.CheckObjects(t.Context(), set.ObjectsOf("db10"), nil, nil); len(p) != 1 {
		t.Errorf("db10 has problems %+v, want 1", p)
	}
}

// T39
func TestExtraFileIsAWarning(t *testing.T) {
	st, folder := golden(t)
	must(t, os.WriteFile(filepath.Join(folder, "databases", "extra file"), nil, 0o600))
	set, err := verify(t.Context(), st)
	must(t, err)
	problems := set.CheckQuick(t.Context())
	if len(problems) != 1 || problems[0].Severity != Warning || problems[0].Object != "databases/extra file" {
		t.Errorf("problems: %+v", problems)
	}
	entries, err := List(t.Context(), st)
	must(t, err)
	if entries[0].Status != StatusComplete || len(entries[0].Problems) != 1 {
		t.Errorf("listed as %+v", entries[0])
	}
}

// T37: the reader of an object says that it is not whole also when nobody looked at
// sizes before, and never gives out more than the object has.
func TestReadersNoticeWhatIsNotWhole(t *testing.T) {
	const name = "globals.sql"
	for how, change := range map[string]func(whole []byte) []byte{
		"cut":     func(whole []byte) []byte { return whole[:len(whole)-1] },
		"empty":   func([]byte) []byte { return nil },
		"longer":  func(whole []byte) []byte { return append(bytes.Clone(whole), 'x') },
		"another": func(whole []byte) []byte { return bytes.ToLower(whole) },
	} {
		st, folder := golden(t)
		path := filepath.Join(folder, name)
		whole, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, change(whole), 0o600))
		set, err := Open(t.Context(), st, sampleID)
		must(t, err)
		r, err := set.OpenObject(t.Context(), name)
		must(t, err)
		got, err := io.ReadAll(r)
		wantIntegrity(t, err, name)
		if len(got) > len(whole) {
			t.Errorf("%s: %d bytes were read of %d", how, len(got), len(whole))
		}
		must(t, r.Close())
	}
}

// T42: a manifest, with its sums, from another set.
func TestManifestOfAnotherSet(t *testing.T) {
	st, folder := golden(t)
	const other = "cluster-20260102T030405Z-2"
	must(t, writeSample(t.Context(), st, other))
	for _, name := range []string{ManifestName, SumsName} {
		text, err := os.ReadFile(filepath.Join(st.String(), other, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(folder, name), text, 0o600))
	}
	_, err := Open(t.Context(), st, sampleID)
	wantIntegrity(t, err, other)
}

// rewrite changes the manifest's text and makes all digests right again.
func rewrite(t *testing.T, folder string, change func(string) string) {
	t.Helper()
	path := filepath.Join(folder, ManifestName)
	whole, err := os.ReadFile(path)
	must(t, err)
	text := change(string(whole))
	if text == string(whole) {
		t.Fatal("the manifest was not changed")
	}
	must(t, os.WriteFile(path, []byte(text), 0o600))
	var m Manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Log(err) // hostile on purpose: the sums then only hold the first line
	}
	digest := sha256.Sum256([]byte(text))
	var sums bytes.Buffer
	must(t, writeSums(&sums, hex.EncodeToString(digest[:]), &m))
	must(t, os.WriteFile(filepath.Join(folder, SumsName), sums.Bytes(), 0o600))
}

// T43
func TestNewerFormat(t *testing.T) {
	st, folder := golden(t)
	rewrite(t, folder, func(s string) string {
		s = strings.Replace(s, `"format": 1`, `"format": 4`, 1)
		s = strings.Replace(s, `"needs_tool": "1.0.0"`, `"needs_tool": "7.3.0"`, 1)
		return strings.Replace(s, `"host": "db1.example"`, `"host": {"name": "now an object"}`, 1)
	})
	_, err := Open(t.Context(), st, sampleID)
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "needs dbbackup >= 7.3.0") {
		t.Errorf("got %v, want kind Precondition and the version", err)
	}
	entries, err := List(t.Context(), st)
	must(t, err)
	if entries[0].Status != StatusNewer {
		t.Errorf("listed as %s", entries[0].Status)
	}
}

// T43
func TestUnknownFieldsAreTolerated(t *testing.T) {
	st, folder := golden(t)
	rewrite(t, folder, func(s string) string {
		s = strings.Replace(s, `"host": "db1.example"`, `"future": [1, {"x": null}], "host": "db1.example"`, 1)
		return strings.Replace(s, `"superuser": true`, `"superuser": true, "future": 1`, 1)
	})
	if _, err := verify(t.Context(), st); err != nil {
		t.Error(err)
	}
}

// T98, T41: manifests whose digests are right and whose content is not.
func TestHostileManifests(t *testing.T) {
	first := `"name": "databases/Gr%C3%B6%C3%9Fe%2F.%2E.create.sql"`
	name := func(s string) func(string) string {
		return func(m string) string { return strings.Replace(m, first, `"name": "`+s+`"`, 1) }
	}
	for what, change := range map[string]func(string) string{
		"parent":        name("../../../etc/passwd"),
		"absolute":      name("/etc/passwd"),
		"NUL":           name(`a\u0000b`),
		"long":          name(strings.Repeat("x", 5000)),
		"duplicate":     name("databases/db1.dump"),
		"manifest":      name(ManifestName),
		"dot file":      name("../.lock"),
		"lost dump":     name("databases/a"),
		"field twice":   func(s string) string { return strings.Replace(s, `"host":`, `"Host": "x", "host":`, 1) },
		"second object": func(s string) string { return s + s },
		"not an object": func(string) string { return "[]" },
		"null":          func(string) string { return "null" },
		"wrong type":    func(s string) string { return strings.Replace(s, `"port": 5432`, `"port": "5432"`, 1) },
		"fields first":  func(s string) string { return strings.Replace(s, `"format": 1,`, `"x": 1, "format": 1,`, 1) },
		"format 0":      func(s string) string { return strings.Replace(s, `"format": 1,`, `"format": 0,`, 1) },
		"size overflow": func(s string) string { return strings.Replace(s, `"bytes": `, `"bytes": 99999999999999999999`, 1) },
		"deeply nested": func(s string) string {
			return strings.Replace(s, `"host":`, `"x": `+strings.Repeat("[", 100000)+`, "host":`, 1)
		},
		"other database": func(s string) string { return strings.Replace(s, `"name": "db10"`, `"name": "db1"`, 1) },
	} {
		t.Run(what, func(t *testing.T) {
			st, folder := golden(t)
			rewrite(t, folder, change)
			_, err := Open(t.Context(), st, sampleID)
			wantIntegrity(t, err, ManifestName)
		})
	}
}

// SHA256SUMS must say neither less nor more nor in another order.
func TestSumsAreExact(t *testing.T) {
	for what, change := range map[string]func(lines []string) []string{
		"one less":   func(l []string) []string { return l[:len(l)-1] },
		"one more":   func(l []string) []string { return append(l, l[1]) },
		"swapped":    func(l []string) []string { l[1], l[2] = l[2], l[1]; return l },
		"other name": func(l []string) []string { l[3] = l[3][:66] + "x\n"; return l },
	} {
		t.Run(what, func(t *testing.T) {
			st, folder := golden(t)
			path := filepath.Join(folder, SumsName)
			text, err := os.ReadFile(path)
			must(t, err)
			lines := change(strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n"))
			must(t, os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600))
			_, err = Open(t.Context(), st, sampleID)
			wantIntegrity(t, err, SumsName)
		})
	}
}

// T49: ten million entries are refused while they are read, by the limit that is
// there for them.
func TestManifestBombs(t *testing.T) {
	head := `{"format":1,"needs_tool":"1.0.0",`
	database := `{"x":[0` + strings.Repeat(`,0`, 999) + "]}"
	const much = maxValueBytes + 1<<20
	for what, bomb := range map[string]struct {
		prefix, unit string
		most         int // bytes that are read of it
	}{
		"objects":   {head + `"objects":[{}`, `,{}`, much},
		"spelling":  {head + `"DATABASES":[{}`, `,{}`, much},
		"folded":    {head + `"databa` + "\u017f" + `es":[{}`, `,{}`, much},
		"databases": {head + `"databases":[{}`, `,{}`, much},
		"values":    {head + `"databases":[` + database, "," + database, 2*maxCommas + 1<<20},
		"unknown":   {head + `"x":[0`, `,0`, much},
		"blanks":    {head, "    ", 2 * maxBlankBytes},
		"string":    {head + `"host":"`, "aaaa", much},
		"fields":    {head + `"x":0`, `,"y":0`, much},
	} {
		t.Run(what, func(t *testing.T) {
			unit := bomb.unit
			if len(unit) < 10 {
				unit = strings.Repeat(unit, 1000)
			}
			counted := &countingReader{in: io.MultiReader(strings.NewReader(bomb.prefix), &repeat{unit: unit, times: 10_000})}
			if _, err := decodeManifest(counted); err == nil {
				t.Error("the bomb was read as a manifest")
			}
			if counted.n > bomb.most {
				t.Errorf("%d bytes were read of it", counted.n)
			}
		})
	}
}

type repeat struct {
	unit  string
	times int
	rest  string
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.times == 0 {
			return 0, io.EOF
		}
		r.times--
		r.rest = r.unit
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

type countingReader struct {
	in io.Reader
	n  int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += n
	return n, err
}

// FuzzManifest: no input may panic, and what is accepted must be valid input
// for the rest of the package.
func FuzzManifest(f *testing.F) {
	text, err := os.ReadFile(filepath.Join(goldenV1, sampleID, ManifestName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":1,"needs_tool":"1","objects":[{"name":"a"}],"databases":null}`))
	f.Add([]byte(`{"format":3,"needs_tool":"9"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeManifest(bytes.NewReader(text))
		if err != nil {
			return
		}
		if m.Validate() != nil {
			return
		}
		for _, o := range m.Objects {
			if !filepath.IsLocal(o.Name) || strings.ContainsAny(o.Name, "\\\n\x00") {
				t.Errorf("the object name %q was accepted", o.Name)
			}
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(bytes.NewReader(again)); err != nil {
			t.Errorf("written again, it does not read: %v", err)
		}
	})
}
