package pgcopy

import (
	"testing"

	"dbbackup/internal/backupset"
)

// What is asked of the server for the labels of large objects, by provider.
func TestLabelsOfLargeObjects(t *testing.T) {
	p := &replay{load: Load{Contents: &backupset.Contents{Encoding: "UTF8"}}}
	var batch []blobOwner
	for _, line := range []string{
		`1` + "\to\t\t\t" + `[{"provider":"a","label":"it's"},{"provider":"B c","label":"x"}]`,
		"2\to\t\t\t", "3\to\t\tof an older set",
		`4` + "\to\t\t\t" + `[{"provider":"a","label":"y"}]`,
	} {
		b, err := parseBlobOwner(line)
		must(t, err)
		batch = append(batch, b)
	}
	want := []providerLabels{
		{"a", "SECURITY LABEL FOR \"a\" ON LARGE OBJECT 1 IS 'it''s';\nSECURITY LABEL FOR \"a\" ON LARGE OBJECT 4 IS 'y';\n", 1},
		{"B c", "SECURITY LABEL FOR \"B c\" ON LARGE OBJECT 1 IS 'x';\n", 1},
	}
	got := p.labelsOf(batch)
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
