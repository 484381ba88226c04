package dir

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dbbackup/internal/fault"
)

// mounted returns a store on a tmpfs of its own.
func mounted(t *testing.T, options string) *Dir {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	return openAt(t, path)
}

func wantHint(t *testing.T, err error, words ...string) {
	t.Helper()
	hints := strings.Join(fault.Hints(err), "; ")
	for _, word := range words {
		if !strings.Contains(hints, word) {
			t.Errorf("hints of %v are %q, want %q in them", err, hints, word)
		}
	}
}

// T13
func TestNoSpace(t *testing.T) {
	d := mounted(t, "size=1m,mode=0700")
	must(t, put(t, d, "small", "x"))
	err := put(t, d, "set/big", strings.Repeat("x", 2<<20))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want ENOSPC", err)
	}
	wantHint(t, err, "bytes are free", "free space")
	wantTree(t, d, "small")
	must(t, put(t, d, "set/again", strings.Repeat("x", 500<<10)))
	if bytes, _, err := d.Free(); err != nil || bytes == 0 || bytes > 1<<20 {
		t.Errorf("free: %d bytes, %v", bytes, err)
	}
	fill(t, d)
	if err := d.CheckWritable(t.Context()); !fault.Is(err, fault.Precondition) {
		t.Errorf("probe of a full file system: %v", err)
	}
}

func fill(t *testing.T, d *Dir) {
	t.Helper()
	for size := 64 << 10; size > 0; size /= 2 {
		for i := 0; put(t, d, fmt.Sprintf("fill/%d-%d", size, i), strings.Repeat("x", size)) == nil; i++ {
		}
	}
}

// T18
func TestNoInodes(t *testing.T) {
	d := mounted(t, "size=1m,nr_inodes=4,mode=0700")
	must(t, put(t, d, "one", "x"))
	err := put(t, d, "set/sub/two", "x")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want ENOSPC", err)
	}
	wantTree(t, d, "one")
	must(t, put(t, d, "two", "x"))
	must(t, put(t, d, "three", "x"))
	err = put(t, d, "four", "x")
	wantHint(t, err, "no inodes left")
	if _, inodes, err := d.Free(); err != nil || inodes != 0 {
		t.Errorf("free: %d inodes, %v", inodes, err)
	}
}

// T19
func TestFileTooLarge(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("prlimit is not installed")
	}
	d := openNew(t)
	out, ok := runChild(t, []string{"prlimit", "--fsize=65536"}, "put", d.path)
	if ok || !strings.Contains(out, "file too large") {
		t.Errorf("ok %t, output %q", ok, out)
	}
	wantTree(t, d)
	wantHint(t, explain(d.path, fault.Failed, syscall.EFBIG), "ulimit -f")
	wantHint(t, explain(d.path, fault.Failed, syscall.EDQUOT), "quota")
}

// T20
func TestReadOnly(t *testing.T) {
	d := mounted(t, "size=1m,mode=0700")
	must(t, d.CheckWritable(t.Context()))
	must(t, put(t, d, "set/object", "x"))
	must(t, syscall.Mount("", d.path, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	err := d.CheckWritable(t.Context())
	if !fault.Is(err, fault.Precondition) {
		t.Errorf("probe: got %v, want kind Precondition", err)
	}
	wantHint(t, err, "read-only")
	wantHint(t, put(t, d, "set/other", "x"), "read-only")
	if _, err := Open(filepath.Join(d.path, "new"), true); !fault.Is(err, fault.Precondition) {
		t.Errorf("create: got %v, want kind Precondition", err)
	}
	if r, err := d.Open(t.Context(), "set/object"); err != nil {
		t.Errorf("a read-only store cannot be read: %v", err)
	} else {
		must(t, r.Close())
	}
}

// T20
func TestImmutable(t *testing.T) {
	d := openNew(t)
	if out, err := exec.Command("chattr", "+i", d.path).CombinedOutput(); err != nil {
		t.Skipf("chattr +i: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("chattr", "-i", d.path).CombinedOutput(); err != nil {
			t.Errorf("chattr -i: %v: %s", err, out)
		}
	}()
	err := d.CheckWritable(t.Context())
	if !fault.Is(err, fault.Precondition) {
		t.Errorf("probe: got %v, want kind Precondition", err)
	}
	wantHint(t, err, "lsattr")
}
