package dir

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inject runs a child under strace and reports whether the fault happened.
func inject(t *testing.T, what, path, fault string) (out string, ok, fired bool) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	call, _, _ := strings.Cut(fault, ":")
	out, ok = runChild(t, []string{"strace", "-f", "-qq", "-o", log, "-e", "trace=" + call, "-e", "inject=" + fault}, what, path)
	text, err := os.ReadFile(log)
	must(t, err)
	return out, ok, strings.Contains(string(text), "(INJECTED)") || strings.Contains(string(text), "killed by SIGKILL")
}

func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
}

// T15, T16: each call fails once, wherever it is made.
func TestEveryCallFailsOnce(t *testing.T) {
	needStrace(t)
	for _, tt := range []struct {
		what, call, errno string
		first             int // below it, the call belongs to the runtime's start
	}{
		{"put", "fsync", "EIO", 1},
		{"put", "renameat2", "EIO", 1},
		{"put", "mkdirat", "ENOSPC", 1},
		{"put", "fchmod", "EPERM", 1},
		{"put", "close", "EIO", 1},
		{"put", "write", "EIO", 1},
		{"publish", "fsync", "EIO", 1},
		{"publish", "renameat2", "EIO", 1},
	} {
		t.Run(tt.what+"/"+tt.call, func(t *testing.T) {
			t.Parallel()
			failed := 0
			for n := tt.first; n < 60; n++ {
				d := openNew(t)
				out, ok, fired := inject(t, tt.what, d.path, fmt.Sprintf("%s:error=%s:when=%d", tt.call, tt.errno, n))
				if ok {
					wantWhole(t, d)
				} else {
					failed++
					wantTree(t, d)
				}
				if strings.Contains(out, "ACCEPTED") {
					t.Errorf("%s %d: %s", tt.call, n, out)
				}
				if !fired {
					break
				}
			}
			if failed == 0 {
				t.Errorf("no failing %s made the object fail", tt.call)
			}
		})
	}
}

// T15: the failing sync is named, and the hint comes with it.
func TestSyncFailureIsNamed(t *testing.T) {
	needStrace(t)
	d := openNew(t)
	out, ok, fired := inject(t, "put", d.path, "fsync:error=EIO:when=1")
	if ok || !fired || !strings.Contains(out, "sync object "+childKey) {
		t.Errorf("fired %t, ok %t, output %q", fired, ok, out)
	}
}

// File systems without RENAME_NOREPLACE.
func TestOldRename(t *testing.T) {
	needStrace(t)
	for _, what := range []string{"put", "publish"} {
		d := openNew(t)
		out, ok, fired := inject(t, what, d.path, "renameat2:error=EINVAL")
		if !ok || !fired {
			t.Fatalf("%s: fired %t, output %q", what, fired, out)
		}
		wantWhole(t, d)
		wantTree(t, d, "set", "set/sub", childKey)
		if _, ok, _ := inject(t, what, d.path, "renameat2:error=EINVAL"); ok {
			t.Errorf("%s: replaced an object", what)
		}
		wantWhole(t, d)
	}
}

// B5: killed at each call, then cleaned.
func TestKilledAnywhere(t *testing.T) {
	needStrace(t)
	const calls = "fsync,renameat2,mkdirat,unlinkat,fchmod"
	for _, what := range []string{"put", "publish"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				d := openNew(t)
				_, ok, fired := inject(t, what, d.path, fmt.Sprintf("%s:signal=KILL:when=%d", calls, n))
				names, err := d.Leftovers(t.Context())
				must(t, err)
				for _, name := range names {
					must(t, d.RemoveLeftover(t.Context(), name))
				}
				if _, err := os.Stat(filepath.Join(d.path, childKey)); err == nil {
					wantWhole(t, d)
					wantTree(t, d, "set", "set/sub", childKey)
				} else {
					wantTree(t, d)
					must(t, put(t, d, childKey, "again"))
				}
				if ok {
					if fired || n < 5 {
						t.Errorf("the child ended well at step %d, fired %t", n, fired)
					}
					return
				}
			}
		})
	}
}
