package scripts

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program writes a program that prints completions, as dbbackup does where
// text is not empty.
func program(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dbbackup")
	script := "#!/bin/sh\nif [ \"$1\" = completion ] && [ -n '" + text + "' ]; then echo '" + text + "' \"$2\"; exit 0; fi\nexit 2\n"
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func install(t *testing.T, dest string, args ...string) result {
	t.Helper()
	return run(t, []string{"DESTDIR=" + dest, "PREFIX=/opt/pg"}, "./install.sh", args...)
}

func TestInstallAndUninstall(t *testing.T) {
	dest := t.TempDir()
	wantCode(t, "install", install(t, dest, "--binary", program(t, "complete")), 0)
	modes := map[string]os.FileMode{
		"/opt/pg/bin/dbbackup":                               0o755,
		"/opt/pg/libexec/dbbackup/restore-chunked.sh":        0o755,
		"/opt/pg/libexec/dbbackup/decrypt-set.sh":            0o755,
		"/opt/pg/libexec/dbbackup/tune-host.sh":              0o755,
		"/opt/pg/lib/systemd/system/dbbackup.service":        0o644,
		"/opt/pg/lib/systemd/system/dbbackup.timer":          0o644,
		"/opt/pg/share/bash-completion/completions/dbbackup": 0o644,
		"/opt/pg/share/zsh/site-functions/_dbbackup":         0o644,
		"/opt/pg/share/doc/dbbackup/dbbackup.cron":           0o644,
		"/opt/pg/share/doc/dbbackup/config.example.yaml":     0o644,
		"/etc/dbbackup/config.yaml":                          0o640,
	}
	installed := snapshot(t, dest)
	for name, mode := range modes {
		wantMode(t, filepath.Join(dest, name), mode)
	}
	if len(installed) != len(modes) {
		t.Errorf("got %d files, want %d", len(installed), len(modes))
	}
	for name, content := range installed {
		if name != "/opt/pg/libexec/dbbackup/tune-host.sh" && !strings.HasSuffix(name, ".yaml") && strings.Contains(content, "/usr/local") {
			t.Errorf("%s speaks of /usr/local:\n%s", name, content)
		}
	}
	if got := installed["/opt/pg/share/zsh/site-functions/_dbbackup"]; got != "complete zsh\n" {
		t.Errorf("zsh completion: got %q", got)
	}
	wantMode(t, filepath.Join(dest, "/var/backups/dbbackup"), 0o700)

	write(t, dest, map[string]string{"/etc/dbbackup/config.yaml": "store: /elsewhere\n"})
	wantCode(t, "install again", install(t, dest, "--binary", program(t, "complete")), 0)
	wantCode(t, "uninstall", install(t, dest, "--uninstall"), 0)
	wantSame(t, "files after uninstall", map[string]string{"/etc/dbbackup/config.yaml": "store: /elsewhere\n"}, snapshot(t, dest))
	wantCode(t, "uninstall again", install(t, dest, "--uninstall"), 0)
}

func TestInstallSkipsCompletionsThatTheProgramDoesNotPrint(t *testing.T) {
	dest := t.TempDir()
	wantCode(t, "install", install(t, dest, "--binary", program(t, "")), 0)
	for name := range snapshot(t, dest) {
		if strings.Contains(name, "completion") || strings.Contains(name, "zsh") {
			t.Errorf("installed %s", name)
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	dest := t.TempDir()
	tests := []struct {
		name string
		env  []string
		args []string
		code int
	}{
		{"no program", nil, []string{"--binary", "/no/such"}, 14},
		{"unknown argument", nil, []string{"--unistall"}, 2},
		{"relative prefix", []string{"PREFIX=usr"}, nil, 2},
		{"prefix that a unit would split", []string{"PREFIX=/opt/my db"}, nil, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := run(t, append([]string{"DESTDIR=" + dest}, test.env...), "./install.sh", test.args...)
			if r.code != test.code || !strings.HasPrefix(r.stderr, "install.sh: ") {
				t.Errorf("got exit %d and %q, want %d and a reason", r.code, r.stderr, test.code)
			}
		})
	}
	wantSame(t, "files after refusals", map[string]string{}, snapshot(t, dest))
}

// The units are verified as installed: with a program where they say it is.
func TestSystemdUnits(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	prefix := t.TempDir()
	env := []string{"DESTDIR=", "PREFIX=" + prefix}
	// DESTDIR stays set while installing, so that /etc of this machine is left alone.
	dest := t.TempDir()
	wantCode(t, "install", run(t, []string{"DESTDIR=" + dest, "PREFIX=" + prefix}, "./install.sh", "--binary", program(t, "")), 0)
	if err := os.CopyFS(prefix, os.DirFS(filepath.Join(dest, prefix))); err != nil {
		t.Fatal(err)
	}
	units := filepath.Join(prefix, "lib/systemd/system")
	for _, unit := range []string{"dbbackup.service", "dbbackup.timer"} {
		r := run(t, env, tool, "verify", "--man=no", filepath.Join(units, unit))
		if r.code != 0 || strings.Contains(r.stderr, "dbbackup.") {
			t.Errorf("verify %s: exit %d\n%s", unit, r.code, r.stderr)
		}
	}
	// A unit with a fault must not pass, or the verification says nothing.
	broken := filepath.Join(t.TempDir(), "dbbackup.service")
	if err := os.WriteFile(broken, []byte("[Service]\nType=oneshot\nExecStart=/no/such\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run(t, env, tool, "verify", "--man=no", broken); r.code == 0 {
		t.Error("verify accepts a unit whose program does not exist")
	}
}

func TestCronTableHasOneJob(t *testing.T) {
	content, err := os.ReadFile("cron/dbbackup.cron")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(content, []byte("\n")) {
		t.Error("the last line has no end: cron ignores the file")
	}
	var jobs []string
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "#") || strings.Contains(strings.Fields(line)[0], "=") {
			continue
		}
		jobs = append(jobs, line)
	}
	if len(jobs) != 1 {
		t.Fatalf("got jobs %q, want one", jobs)
	}
	fields := strings.Fields(jobs[0])
	if fields[5] != "postgres" || strings.Contains(jobs[0], "%") || !strings.Contains(jobs[0], "dbbackup backup cluster") {
		t.Errorf("job %q: want user postgres, no %% (cron's newline), and the backup command", jobs[0])
	}
}
