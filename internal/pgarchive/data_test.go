package pgarchive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/fault"
)

func checkData(t *testing.T, toc *TOC, path string) []string {
	t.Helper()
	damaged, err := toc.CheckData(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range damaged {
		if !fault.Is(d, fault.Integrity) {
			t.Errorf("%v: got kind %v, want integrity", d, fault.KindOf(d))
		}
		names = append(names, d.Entry.Name())
	}
	return names
}

func TestGoodArchivesAreCompleteAndSound(t *testing.T) {
	c, db := zoo(t)
	for _, args := range [][]string{{"-Fc"}, {"-Fc", "-Z0"}, {"-Fc", "-Z9"}, {"-Fd"}, {"-Fd", "-Z0"}, {"-Fd", "-j2"}, {"-Fc", "--inserts"}, {"-Fc", "-s"}, {"-Fd", "-s"}, {"-Fc", "-a"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			path := dump(t, c, db, args...)
			for _, opts := range [][]Option{nil, {WithoutSQL()}} {
				toc := open(t, path, opts...)
				if err := toc.Complete(size(t, path)); err != nil {
					t.Error(err)
				}
				if damaged := checkData(t, toc, path); len(damaged) > 0 {
					t.Errorf("got damage in %q", damaged)
				}
			}
		})
	}
}

// Every byte of a gzip archive's data area that is flipped must be found, in
// the table whose block it is in, unless pg_restore reads the same data: the
// bits between a compressed stream's end and its checksum mean nothing.
func TestCheckDataNamesTheTableOfAFlippedByte(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fc")
	toc := open(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := filepath.Join(t.TempDir(), "flipped")
	blocks := toc.byOffset()
	script := pgTool(t, c, "pg_restore", "-f", "-", path)
	tried := 0
	for i, e := range blocks {
		end := int64(len(whole))
		if i+1 < len(blocks) {
			end = blocks[i+1].Offset
		}
		step := max(1, (end-e.Offset)/10)
		for at := e.Offset; at < end; at += step {
			tried++
			broken := slices.Clone(whole)
			broken[at] ^= 0x10
			if err := os.WriteFile(flipped, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			got := checkData(t, toc, flipped)
			if len(got) == 0 && sameScript(t, script, pgTool(t, c, "pg_restore", "-f", "-", flipped)) {
				continue
			}
			if !slices.Equal(got, []string{e.Name()}) {
				t.Errorf("byte %d of %s: got damage in %q", at-e.Offset, e, got)
			}
		}
	}
	if tried < 100 {
		t.Errorf("only %d bytes were tried", tried)
	}
}

// sameScript compares two scripts but for the random key of \restrict.
func sameScript(t *testing.T, a, b string) bool {
	t.Helper()
	key := regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)
	return key.ReplaceAllString(a, "") == key.ReplaceAllString(b, "")
}

func TestCheckDataNamesTheTableOfAFlippedByteInAFolder(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fd")
	toc := open(t, path)
	orders := find(t, toc, "TABLE DATA", "public", "orders")
	file := filepath.Join(path, orders.File+".gz")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 2, 15, len(content) / 2, len(content) - 6, len(content) - 1} {
		broken := slices.Clone(content)
		broken[at] ^= 1
		if err := os.WriteFile(file, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := checkData(t, toc, path); !slices.Equal(got, []string{"public.orders"}) {
			t.Errorf("byte %d: got damage in %q", at, got)
		}
	}
}

// An archive that was cut anywhere, or extended, must not pass.
func TestCutArchivesAreNotComplete(t *testing.T) {
	c, db := zoo(t)
	for _, args := range [][]string{{"-Fc"}, {"-Fc", "-Z0"}, {"-Fc", "-s"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			path := dump(t, c, db, args...)
			n := size(t, path)
			toc := open(t, path)
			for _, cut := range []int64{1, 2, 6, 1000, (n - toc.size) / 2, n - toc.size - 1} {
				if cut > n-toc.size || cut < 1 {
					continue
				}
				short := filepath.Join(t.TempDir(), "short")
				if err := os.WriteFile(short, read(t, path)[:n-cut], 0o600); err != nil {
					t.Fatal(err)
				}
				toc := open(t, short)
				if err := toc.Complete(n - cut); err != nil {
					continue
				}
				if got := checkData(t, toc, short); len(got) == 0 {
					t.Errorf("%d bytes less, and nothing is found", cut)
				}
			}
			longer := append(read(t, path), make([]byte, 10)...)
			if err := os.WriteFile(path, longer, 0o600); err != nil {
				t.Fatal(err)
			}
			if toc.Complete(n+10) == nil && len(checkData(t, toc, path)) == 0 {
				t.Error("10 bytes more, and nothing is found")
			}
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// pg_dump writes its table of contents first, without places, and again at the
// end: what is there in between is what a killed pg_dump leaves. A pipe cannot
// be written again, so it shows the same.
func TestInterruptedDumpIsNotComplete(t *testing.T) {
	c, db := zoo(t)
	path := filepath.Join(t.TempDir(), "piped")
	content := pgTool(t, c, "pg_dump", "-Fc", "-d", db)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	toc := open(t, path)
	err := toc.Complete(int64(len(content)))
	mustContain(t, err, "is not set", "TABLE DATA")
	if !fault.Is(err, fault.Integrity) || len(fault.Hints(err)) == 0 {
		t.Errorf("got kind %v, hints %q", fault.KindOf(err), fault.Hints(err))
	}
	if got := checkData(t, toc, path); len(got) != toc.data {
		t.Errorf("got %d damaged entries, want all %d", len(got), toc.data)
	}
}

func TestFolderFaults(t *testing.T) {
	c, db := zoo(t)
	for name, test := range map[string]struct {
		file  func(toc *TOC) string
		spoil func(path string) error
		text  string
	}{
		"no file":         {ordersFile, os.Remove, "there is no file"},
		"empty file":      {ordersFile, func(p string) error { return os.Truncate(p, 0) }, "is empty"},
		"a link":          {ordersFile, func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/hostname", p)) }, "no regular file"},
		"no object list":  {func(*TOC) string { return "blobs.toc" }, os.Remove, "blobs.toc"},
		"empty list":      {func(*TOC) string { return "blobs.toc" }, func(p string) error { return os.Truncate(p, 0) }, "blobs.toc"},
		"cut list":        {func(*TOC) string { return "blobs.toc" }, func(p string) error { return os.Truncate(p, 7) }, "has no end"},
		"list leads away": {func(*TOC) string { return "blobs.toc" }, func(p string) error { return os.WriteFile(p, []byte("1 ../../x\n"), 0o600) }, "is not that of large object 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := dump(t, c, db, "-Fd")
			toc := open(t, path)
			if err := test.spoil(filepath.Join(path, test.file(toc))); err != nil {
				t.Fatal(err)
			}
			err := toc.Complete(0)
			mustContain(t, err, test.text)
			if !fault.Is(err, fault.Integrity) {
				t.Errorf("got kind %v", fault.KindOf(err))
			}
			if got := checkData(t, toc, path); len(got) != 1 {
				t.Errorf("got damage in %q, want one entry", got)
			}
		})
	}
}

func ordersFile(toc *TOC) string {
	i := slices.IndexFunc(toc.Entries, func(e Entry) bool { return e.Desc == "TABLE DATA" && e.Tag == "orders" })
	return toc.Entries[i].File + ".gz"
}

// Uncompressed data has no checksum, but its end is known.
func TestCutUncompressedFileIsFound(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fd", "-Z0")
	toc := open(t, path, WithoutSQL())
	file := filepath.Join(path, find(t, toc, "TABLE DATA", "public", "orders").File)
	if err := os.Truncate(file, size(t, file)/2); err != nil {
		t.Fatal(err)
	}
	if err := toc.Complete(0); err != nil {
		t.Fatal(err)
	}
	if got := checkData(t, toc, path); !slices.Equal(got, []string{"public.orders"}) {
		t.Errorf("got damage in %q", got)
	}
}

func TestCheckDataEndsWithItsContext(t *testing.T) {
	c, db := zoo(t)
	for _, format := range []string{"-Fc", "-Fd"} {
		path := dump(t, c, db, format)
		ctx, cancel := context.WithCancelCause(context.Background())
		stop := errors.New("stopped by the test")
		cancel(stop)
		if _, err := open(t, path).CheckData(ctx, path); !errors.Is(err, stop) {
			t.Errorf("%s: got error %v, want %v", format, err, stop)
		}
	}
}

// Archive versions that no pg_dump of this machine writes: 1.15 and 1.16 from
// WriteHead and WriteToc of PostgreSQL 16 and 17, and with a sign bit in a
// large object's OID.
func TestReadsEachArchiveVersion(t *testing.T) {
	for _, minor := range []int{14, 15, 16} {
		for code, compression := range []string{"none", "gzip", "lz4", "zstd"} {
			if minor == 14 && code > 1 {
				continue
			}
			t.Run(fmt.Sprintf("1.%d %s", minor, compression), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "archive")
				if err := os.WriteFile(path, synthetic(minor, code), 0o600); err != nil {
					t.Fatal(err)
				}
				toc := open(t, path)
				if toc.ArchiveVersion != fmt.Sprintf("1.%d", minor) || toc.Compression != compression {
					t.Errorf("got version %s, compression %s", toc.ArchiveVersion, toc.Compression)
				}
				e := toc.Entries[1]
				if e.Owner != "me" || e.Schema != "public" || e.Tag != "t" || !slices.Equal(e.Dependencies, []int{1}) || e.TableAM != "heap" {
					t.Errorf("got entry %+v", e)
				}
				if err := toc.Complete(size(t, path)); err != nil {
					t.Error(err)
				}
				damaged, err := toc.CheckData(context.Background(), path)
				if len(damaged) > 0 {
					t.Errorf("got damage %v", damaged)
				}
				if got, want := errors.Is(err, ErrNotChecked), code > 1; got != want {
					t.Errorf("got error %v, want ErrNotChecked: %v", err, want)
				}
			})
		}
	}
}

// Hostile numbers in a table of contents must be errors that say what is
// wrong, and cost no memory.
func TestReadRefusesHostileNumbers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(a *archiveWriter)
		text   string
	}{
		"long name":      {func(a *archiveWriter) { a.tagLength = 1 << 30 }, "tag: a string of 1073741824 bytes"},
		"dump ID 0":      {func(a *archiveWriter) { a.id = 0 }, "dump ID 0"},
		"negative ID":    {func(a *archiveWriter) { a.id = -4 }, "dump ID -4"},
		"twice":          {func(a *archiveWriter) { a.id = 1 }, "stands there twice"},
		"section":        {func(a *archiveWriter) { a.section = 9 }, "section 9"},
		"many entries":   {func(a *archiveWriter) { a.count = 1<<31 - 1 }, "entry 4 of 2147483647"},
		"less than none": {func(a *archiveWriter) { a.count = -1 }, "number of entries -1"},
		"data state":     {func(a *archiveWriter) { a.state = 7 }, "data state 7"},
		"dependency":     {func(a *archiveWriter) { a.dependency = "x" }, `dependency "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchiveWriter(16, 0)
			test.change(a)
			_, err := Read(bytes.NewReader(a.bytes()))
			mustContain(t, err, test.text)
			if !fault.Is(err, fault.Integrity) {
				t.Errorf("got kind %v", fault.KindOf(err))
			}
		})
	}
	a := newArchiveWriter(16, 0)
	a.format, a.file = 3, "../../etc/passwd"
	_, err := Read(bytes.NewReader(a.bytes()))
	mustContain(t, err, "leaves the archive's folder")
}

func FuzzRead(f *testing.F) {
	for minor := 14; minor <= 16; minor++ {
		f.Add(synthetic(minor, 1))
	}
	a := newArchiveWriter(15, 1)
	a.format, a.file = 3, "2.dat"
	f.Add(a.bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		toc, err := Read(bytes.NewReader(archive), WithMemoryLimit(1<<20))
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(path, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		toc.path = path
		complete := toc.Complete(int64(len(archive)))
		damaged, _ := toc.CheckData(context.Background(), path)
		if toc.Format == Custom && complete != nil && toc.data > 0 && len(damaged) == 0 && !strings.Contains(complete.Error(), "table of contents") {
			t.Errorf("not complete (%v), but sound", complete)
		}
		s := toc.Select(func(string, string) bool { return true })
		var list bytes.Buffer
		if err := toc.WriteList(&list, s.Entries); err != nil {
			t.Error(err)
		}
		if lines := strings.Count(list.String(), "\n"); lines != len(s.Entries) {
			t.Errorf("got %d lines for %d entries", lines, len(s.Entries))
		}
	})
}
