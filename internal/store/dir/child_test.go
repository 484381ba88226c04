package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"dbbackup/internal/store"
)

// TestMain lets the test binary be the process that a fault happens to.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "child" {
		runtime.LockOSThread() // strace counts calls per thread
		if err := child(context.Background(), os.Args[2], os.Args[3]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const childKey = "set/sub/object"

var childData = strings.Repeat("0123456789abcdef", 1<<14) // 256 KiB in one write

func child(ctx context.Context, what, path string) error {
	d, err := Open(path, false)
	if err != nil {
		return err
	}
	switch what {
	case "put":
		return childPut(ctx, d)
	case "publish":
		return childPublish(ctx, d)
	case "lock":
		return childLock(ctx, d)
	}
	return fmt.Errorf("no such child: %s", what)
}

// childPut insists on a failed object (T15): once failed, failed for good.
func childPut(ctx context.Context, d *Dir) error {
	w, err := d.Create(ctx, childKey, 0)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, childData)
	if err == nil {
		err = w.Commit()
	}
	if err == nil {
		return nil
	}
	if w.Commit() == nil {
		return errors.New("ACCEPTED AFTER A FAILURE")
	}
	return errors.Join(err, w.Abort())
}

func childPublish(ctx context.Context, d *Dir) error {
	path, err := d.Stage(ctx, childKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(childData), 0o600); err != nil {
		return errors.Join(err, d.Discard(path))
	}
	if err := d.Publish(ctx, path, childKey); err != nil {
		return errors.Join(err, d.Discard(path))
	}
	return nil
}

func childLock(ctx context.Context, d *Dir) error {
	if _, _, err := d.Lock(ctx, store.Holder{Host: "here", PID: os.Getpid(), Purpose: "test"}); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err := io.Copy(io.Discard, os.Stdin) // until the test closes it
	return err
}

// runChild returns what the child printed, and whether it said ok.
func runChild(t *testing.T, wrapper []string, what, path string) (out string, ok bool) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	argv := append(append([]string{}, wrapper...), self, "child", what, path)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // a second per child otherwise
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), err == nil
}

func wantWhole(t *testing.T, d *Dir) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(d.path, childKey))
	if err != nil || string(got) != childData {
		t.Errorf("the object has %d bytes (%v), want %d", len(got), err, len(childData))
	}
}
