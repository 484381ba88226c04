package stores

import (
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/fault"
)

func TestOpensFolders(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "store")
	for i, ref := range []string{folder, "file://" + folder} {
		place, err := Open(t.Context(), ref, Options{Create: i == 0})
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if place.String() != folder {
			t.Errorf("%s: opened %s", ref, place)
		}
		if err := place.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(t.Context(), folder+"x", Options{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing folder: %v", err)
	}
}

func TestRefusesWhatNamesNoStore(t *testing.T) {
	for _, ref := range []string{"", "ftp://host/x", "file://host/x", "file://", "s3//bucket://", "s4://bucket", "sftp://me:secret@host/x", "s3://a:secret@b/\x7f"} {
		place, err := Open(t.Context(), ref, Options{})
		if !fault.Is(err, fault.Usage) {
			t.Errorf("%q: opened %v (%v)", ref, place, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error holds the password: %v", ref, err)
		}
	}
}
