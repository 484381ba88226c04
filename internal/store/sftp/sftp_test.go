package sftp

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dbbackup/internal/store"
	"dbbackup/internal/store/lease"
	"dbbackup/internal/store/storetest"
	"dbbackup/internal/storeserver"
)

func TestStore(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	storetest.Run(t, func(t *testing.T) store.Store { return openNew(t, server).Store })
}

// TestStoreWithoutExtensions is against a server that offers neither hard links
// nor syncs: names are given by rename.
func TestStoreWithoutExtensions(t *testing.T) {
	server := storeserver.StartSSHD(t, "internal-sftp -P hardlink,fsync,statvfs")
	storetest.Run(t, func(t *testing.T) store.Store {
		p := open(t, server, filepath.Join(t.TempDir(), "store"))
		s, ok := p.(*Store)
		if !ok || s.hardlinks || s.syncsFiles || s.syncsFolders {
			t.Fatalf("a server without extensions is taken for one with them: %T", p)
		}
		return s
	})
}

func options(server *storeserver.SSHD) Options {
	return Options{
		Create: true, IdentityFiles: []string{server.Identity}, KnownHosts: []string{server.KnownHosts},
		lease: lease.Options{Beat: 200 * time.Millisecond},
	}
}

func open(t *testing.T, server *storeserver.SSHD, folder string) store.Place {
	t.Helper()
	u := server.URL(folder)
	u.RawQuery = "timeout=20s"
	p, err := Open(t.Context(), u, options(server))
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// opened is a store with the folder that it is in.
type opened struct {
	*Store
	path string
}

func openNew(t *testing.T, server *storeserver.SSHD) opened {
	t.Helper()
	return openAt(t, server, filepath.Join(t.TempDir(), "parent", "store"))
}

func openAt(t *testing.T, server *storeserver.SSHD, folder string) opened {
	t.Helper()
	r, ok := open(t, server, folder).(roomy)
	if !ok {
		t.Fatal("OpenSSH is taken for a server that does not tell its free space")
	}
	return opened{r.Store, folder}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, s store.Store, key, data string) error {
	t.Helper()
	w, err := s.Create(t.Context(), key, 0)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(data)); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}

// tree returns every name below a folder, the lock left out.
func tree(t *testing.T, folder string) []string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(folder, func(path string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(folder, path); rel == lease.Folder {
			return filepath.SkipDir
		} else if rel != "." {
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func wantTree(t *testing.T, folder string, want ...string) {
	t.Helper()
	if got := tree(t, folder); !slices.Equal(got, want) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}
