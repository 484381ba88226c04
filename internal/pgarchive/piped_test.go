package pgarchive

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"dbbackup/internal/fault"
)

// pipedDump is what pg_dump writes when it cannot seek.
func pipedDump(t *testing.T, args ...string) []byte {
	t.Helper()
	c, db := zoo(t)
	return []byte(pgTool(t, c, "pg_dump", append(args, "-d", db)...))
}

func TestPipedArchivesAreWhole(t *testing.T) {
	for _, args := range [][]string{{"-Fc"}, {"-Fc", "-Z0"}, {"-Fc", "-s"}, {"-Fc", "-a"}, {"-Fc", "--no-blobs"}} {
		if err := CheckPiped(bytes.NewReader(pipedDump(t, args...)), WithoutSQL()); err != nil {
			t.Errorf("pg_dump %s: %v", strings.Join(args, " "), err)
		}
	}
	c, db := zoo(t)
	written := dump(t, c, db, "-Fc") // with places in its table of contents
	data, err := os.ReadFile(written)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckPiped(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
}

// A piped archive that lost anything from its end, wherever, is not whole, and
// neither is one with anything behind its end or with a block twice.
func TestPipedArchivesThatAreCutOrGrew(t *testing.T) {
	whole := pipedDump(t, "-Fc")
	step := max(1, len(whole)/400)
	for n := 0; n < len(whole); n += step {
		wantNotWhole(t, whole[:n])
	}
	for n := len(whole) - 20; n < len(whole); n++ {
		wantNotWhole(t, whole[:n])
	}
	wantNotWhole(t, append(bytes.Clone(whole), 0))
	toc, err := Read(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	wantNotWhole(t, append(bytes.Clone(whole), whole[toc.size:]...))
}

func wantNotWhole(t *testing.T, archive []byte) {
	t.Helper()
	if err := CheckPiped(bytes.NewReader(archive)); !fault.Is(err, fault.Integrity) {
		t.Errorf("of %d bytes: got %v, want an integrity error", len(archive), err)
	}
}
