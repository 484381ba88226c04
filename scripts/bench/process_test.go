package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPipeline(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	got, err := pipeline([]*exec.Cmd{exec.Command("printf", "b\na\n"), exec.Command("sort")}, out)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != "a\nb\n" || got.wall <= 0 {
		t.Errorf("got %q in %v", text, got.wall)
	}
}

func TestPipelineReportsEveryCommand(t *testing.T) {
	for _, tt := range []struct {
		name     string
		commands []*exec.Cmd
		want     string
	}{
		{"first fails", []*exec.Cmd{exec.Command("ls", "/does not exist"), exec.Command("cat")}, "does not exist"},
		{"last fails", []*exec.Cmd{exec.Command("yes"), exec.Command("false")}, "exit status 1"},
		{"last is missing", []*exec.Cmd{exec.Command("yes"), exec.Command("/no/such/program")}, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pipeline(tt.commands, filepath.Join(t.TempDir(), "out"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// The peak is the process's own, also when a child of it is larger, and not
// that of the process which started it.
func TestWaitWatchingSeesTheProcessOnly(t *testing.T) {
	const mb = 1 << 20
	for _, tt := range []struct {
		name, script string
		least, most  int64
	}{
		// dd keeps one block in memory; the shell waits for it, then for a read.
		{"small, with a large child", "dd if=/dev/zero of=/dev/null bs=64M count=20 2>/dev/null; true", 1, 32 * mb},
		{"large", "exec dd if=/dev/zero of=/dev/null bs=64M count=20 2>/dev/null", 60 * mb, 96 * mb},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", tt.script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			peak, err := waitWatching(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if peak < tt.least || peak > tt.most {
				t.Errorf("got %d bytes, want %d to %d", peak, tt.least, tt.most)
			}
		})
	}
}
