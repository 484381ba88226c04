package dir

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// T23, T24: a lock lives and dies with its process.
func TestLockBetweenProcesses(t *testing.T) {
	d := openNew(t)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "child", "lock", d.path)
	_, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}

	// However old the lock looks, it is alive.
	old := time.Now().AddDate(-10, 0, 0)
	must(t, os.Chtimes(filepath.Join(d.path, lockName), old, old))
	_, _, err = d.Lock(t.Context(), store.Holder{})
	var locked *store.LockedError
	if !errors.As(err, &locked) || locked.Holder.PID != cmd.Process.Pid || !fault.Is(err, fault.Locked) {
		t.Errorf("lock held by pid %d: got %v", cmd.Process.Pid, err)
	}

	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Error("the killed child ended well")
	}
	_, release, err := d.Lock(t.Context(), store.Holder{PID: 1})
	must(t, err)
	must(t, release())
}

// T24: what the file says does not matter, not even a living process's id.
func TestStaleLock(t *testing.T) {
	for name, content := range map[string]string{
		"dead":    `{"host":"gone","pid":999999999,"since":"2001-01-01T00:00:00Z"}`,
		"reused":  `{"host":"here","pid":1,"since":"2999-01-01T00:00:00Z"}`,
		"garbage": "\x00\xff{",
	} {
		d := openNew(t)
		must(t, os.WriteFile(filepath.Join(d.path, lockName), []byte(content), 0o666))
		_, release, err := d.Lock(t.Context(), store.Holder{PID: 5, Host: "me"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, _, err = d.Lock(t.Context(), store.Holder{})
		var locked *store.LockedError
		if !errors.As(err, &locked) || locked.Holder.Host != "me" {
			t.Errorf("%s: the holder is %v", name, err)
		}
		must(t, release())
	}
}
