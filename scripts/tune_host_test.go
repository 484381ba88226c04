package scripts

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	tuneHost   = "./tune-host.sh"
	savedFile  = "/var/lib/dbbackup/tune-host.saved"
	sysctlFile = "/etc/sysctl.d/90-dbbackup.conf"
	limitsFile = "/etc/security/limits.d/90-dbbackup.conf"
	udevFile   = "/etc/udev/rules.d/90-dbbackup.rules"
)

// untuned is a host as distributions leave it. Kernel files have the form that
// they are written in, so that a restored tree is the same to the byte.
func untuned() map[string]string {
	return map[string]string{
		"/proc/sys/vm/overcommit_memory":      "0\n",
		"/proc/sys/vm/swappiness":             "60\n",
		"/proc/sys/vm/dirty_ratio":            "20\n",
		"/proc/sys/vm/dirty_background_ratio": "10\n",
		"/proc/self/mountinfo": "22 1 8:1 / / rw,noatime - ext4 /dev/sda1 rw\n" +
			"23 22 8:2 / /srv/my\\040data rw,relatime - ext4 /dev/sdb1 rw,data=writeback\n",
		"/sys/block/sda/queue/scheduler":      "[none] mq-deadline\n",
		"/sys/block/sda/queue/rotational":     "1\n",
		"/sys/block/sda/queue/add_random":     "1\n",
		"/sys/block/nvme0n1/queue/scheduler":  "[none] mq-deadline\n",
		"/sys/block/nvme0n1/queue/rotational": "0\n",
		"/sys/block/nvme0n1/queue/add_random": "0\n",
		"/sys/block/loop0/queue/scheduler":    "[bfq] mq-deadline\n",
		"/sys/block/loop0/queue/add_random":   "1\n",
		"/etc/security/limits.conf":           "* soft nofile 1024\npostgres hard nofile unlimited\n",
	}
}

// restored is the untuned host after a revert: a plain file does not put
// brackets around a scheduler that is written to it, as the kernel's does.
func restored(host map[string]string) map[string]string {
	after := maps.Clone(host)
	after["/sys/block/sda/queue/scheduler"] = "none\n"
	return after
}

func tune(t *testing.T, root string, args ...string) result {
	t.Helper()
	return run(t, nil, tuneHost, append([]string{"--root", root}, args...)...)
}

func wantCode(t *testing.T, what string, r result, want int) {
	t.Helper()
	if r.code != want {
		t.Fatalf("%s: got exit %d, want %d\n%s%s", what, r.code, want, r.stdout, r.stderr)
	}
}

func TestTuneHostAppliesAndReverts(t *testing.T) {
	root := t.TempDir()
	host := untuned()
	write(t, root, host)

	check := tune(t, root, "--check")
	wantCode(t, "check of an untuned host", check, 1)
	for _, row := range []string{"* vm.swappiness ", "* nofile:postgres ", "* scheduler:sda ", "* add_random:sda ", "  scheduler:nvme0n1 "} {
		if !strings.Contains(check.stdout, "\n"+row) {
			t.Errorf("check lacks the row %q:\n%s", row, check.stdout)
		}
	}
	if strings.Contains(check.stdout, "loop0") {
		t.Errorf("check names a loop device:\n%s", check.stdout)
	}
	wantSame(t, "host after check", host, snapshot(t, root))

	apply := tune(t, root, "--apply")
	wantCode(t, "apply", apply, 0)
	if !strings.Contains(apply.stderr, "recommends 2") {
		t.Errorf("apply does not warn of vm.overcommit_memory: %q", apply.stderr)
	}
	tuned := snapshot(t, root)
	checkTuned(t, tuned)
	wantMode(t, filepath.Join(root, savedFile), 0o600)
	wantCode(t, "check of a tuned host", tune(t, root, "--check"), 0)

	wantCode(t, "second apply", tune(t, root, "--apply"), 0)
	wantSame(t, "host after a second apply", tuned, snapshot(t, root))

	wantCode(t, "revert", tune(t, root, "--revert"), 0)
	wantSame(t, "host after revert", restored(host), snapshot(t, root))
	wantCode(t, "second revert", tune(t, root, "--revert"), 0)
	wantSame(t, "host after a second revert", restored(host), snapshot(t, root))
}

func checkTuned(t *testing.T, got map[string]string) {
	t.Helper()
	const header = "# Written by tune-host.sh --apply; tune-host.sh --revert removes it.\n"
	want := restored(untuned())
	maps.Copy(want, map[string]string{
		"/proc/sys/vm/overcommit_memory":      "1\n",
		"/proc/sys/vm/swappiness":             "10\n",
		"/proc/sys/vm/dirty_ratio":            "10\n",
		"/proc/sys/vm/dirty_background_ratio": "5\n",
		"/sys/block/sda/queue/scheduler":      "mq-deadline\n",
		"/sys/block/sda/queue/add_random":     "0\n",
		sysctlFile:                            header + "vm.overcommit_memory = 1\nvm.swappiness = 10\nvm.dirty_ratio = 10\nvm.dirty_background_ratio = 5\n",
		// The hard nofile is unlimited already, and is not lowered.
		limitsFile: header + "postgres soft nofile 65536\npostgres soft nproc 32768\npostgres hard nproc 32768\n",
		udevFile: header + `ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="sda", ATTR{queue/scheduler}="mq-deadline"` + "\n" +
			`ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="sda", ATTR{queue/add_random}="0"` + "\n",
		savedFile: got[savedFile], // proven by what revert restores
	})
	wantSame(t, "tuned host", want, got)
}

// A second apply after somebody changed a value must not take that value for
// the one to restore.
func TestTuneHostKeepsTheFirstSavedValues(t *testing.T) {
	root := t.TempDir()
	host := untuned()
	write(t, root, host)
	wantCode(t, "apply", tune(t, root, "--apply"), 0)
	write(t, root, map[string]string{"/proc/sys/vm/swappiness": "77\n", sysctlFile: "vm.swappiness = 77\n"})
	wantCode(t, "apply again", tune(t, root, "--apply"), 0)
	if got := snapshot(t, root)["/proc/sys/vm/swappiness"]; got != "10\n" {
		t.Errorf("swappiness after the second apply: got %q, want 10", got)
	}
	wantCode(t, "revert", tune(t, root, "--revert"), 0)
	wantSame(t, "host after revert", restored(host), snapshot(t, root))
}

func TestTuneHostRestoresFilesThatWereThere(t *testing.T) {
	root := t.TempDir()
	host := untuned()
	host[sysctlFile] = "# the administrator's\nvm.swappiness = 60\n\n"
	host[limitsFile] = "postgres - nproc 5\n"
	write(t, root, host)
	wantCode(t, "apply", tune(t, root, "--apply"), 0)
	if got := snapshot(t, root); got[sysctlFile] == host[sysctlFile] || got[limitsFile] == host[limitsFile] {
		t.Fatal("apply left a file as it was")
	}
	wantCode(t, "revert", tune(t, root, "--revert"), 0)
	wantSame(t, "host after revert", restored(host), snapshot(t, root))
}

func TestTuneHostLeavesBetterValuesAlone(t *testing.T) {
	root := t.TempDir()
	host := untuned()
	maps.Copy(host, map[string]string{
		"/proc/sys/vm/overcommit_memory":      "2\n",
		"/proc/sys/vm/swappiness":             "1\n",
		"/proc/sys/vm/dirty_ratio":            "0\n",
		"/proc/sys/vm/dirty_background_ratio": "3\n",
		"/sys/block/sda/queue/scheduler":      "none [mq-deadline]\n",
		"/sys/block/sda/queue/add_random":     "0\n",
		"/etc/security/limits.conf":           "postgres - nofile 100000\npostgres - nproc unlimited\n",
	})
	write(t, root, host)
	wantCode(t, "check", tune(t, root, "--check"), 0)
	wantCode(t, "apply", tune(t, root, "--apply"), 0)
	wantSame(t, "host after apply", host, snapshot(t, root))
}

func TestTuneHostDoesOnlyWhatIsAsked(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string // the files that differ afterwards
	}{
		{"dry run", []string{"--dry-run"}, nil},
		{"one kind", []string{"--only", "limits"}, []string{limitsFile, savedFile}},
		{"but one key", []string{"--only", "sysctl", "--skip", "vm.overcommit_memory"}, []string{
			sysctlFile, savedFile, "/proc/sys/vm/swappiness", "/proc/sys/vm/dirty_ratio", "/proc/sys/vm/dirty_background_ratio",
		}},
		{"mounts of a tree are not touched", []string{"--only", "mount", "--data-dir", "/srv/my data/pg"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			host := untuned()
			write(t, root, host)
			wantCode(t, "apply", tune(t, root, append([]string{"--apply"}, test.args...)...), 0)
			got := snapshot(t, root)
			changed := map[string]string{}
			for name, content := range got {
				if host[name] != content {
					changed[name] = ""
				}
			}
			want := map[string]string{}
			for _, name := range test.want {
				want[name] = ""
			}
			wantSame(t, "changed files", want, changed)
			if strings.Contains(got[sysctlFile], "overcommit") {
				t.Errorf("a skipped key is in %s:\n%s", sysctlFile, got[sysctlFile])
			}
		})
	}
}

func TestTuneHostLooksAtTheDataFileSystem(t *testing.T) {
	root := t.TempDir()
	write(t, root, untuned())
	r := tune(t, root, "--check", "--only", "mount", "--data-dir", "/srv/my data/pg", "--data-dir", "/srv/my data", "--data-dir", "/var")
	wantCode(t, "check", r, 1)
	if strings.Count(r.stdout, "* mount:/srv/my data ") != 1 || !strings.Contains(r.stdout, "  mount:/ ") {
		t.Errorf("want one row for each of two mounts:\n%s", r.stdout)
	}
	if !strings.Contains(r.stderr, "data=writeback") {
		t.Errorf("data=writeback is not warned of: %q", r.stderr)
	}
	r = tune(t, root, "--apply", "--dry-run", "--only", "mount", "--data-dir", "/srv/my data/pg")
	wantCode(t, "apply", r, 0)
	if !strings.Contains(r.stdout, "would remount /srv/my data with noatime") || strings.Contains(r.stdout, "writeback") {
		t.Errorf("apply: %s", r.stdout)
	}
}

func TestTuneHostRefusesWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"--check", "--apply"}, {"--chekc"}, {"--check", "--only", "sysctls"}, {"--check", "--postgres-user"},
		{"--check", "--postgres-user", "a b"}, {"--check", "--data-dir", "relative"}, {"--check", "--root", "/no/such"},
	} {
		r := run(t, nil, tuneHost, args...)
		if r.code != 2 || !strings.HasPrefix(r.stderr, "tune-host.sh: ") {
			t.Errorf("%q: got exit %d and %q, want 2 and a reason", args, r.code, r.stderr)
		}
	}
	if r := run(t, nil, tuneHost, "--help"); r.code != 0 || !strings.Contains(r.stdout, "--revert") {
		t.Errorf("help: got exit %d and %q", r.code, r.stdout)
	}
}

func TestTuneHostSaysThatItNeedsRoot(t *testing.T) {
	content, err := os.ReadFile(tuneHost)
	if err != nil {
		t.Fatal(err)
	}
	// Standard input, since another user need not be able to read this folder.
	cmd := exec.Command("bash", "-s", "--", "--apply", "--only", "limits")
	cmd.Stdin = strings.NewReader(string(content))
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	r := finish(t, cmd)
	if r.code != 14 || !strings.Contains(r.stderr, "needs root") {
		t.Errorf("got exit %d and %q, want 14 and that it needs root", r.code, r.stderr)
	}
}

// A revert that could not restore everything keeps what it needs to try again.
func TestTuneHostKeepsSavedValuesThatWereNotRestored(t *testing.T) {
	root := t.TempDir()
	host := untuned()
	write(t, root, host)
	wantCode(t, "apply", tune(t, root, "--apply"), 0)
	swappiness := filepath.Join(root, "/proc/sys/vm/swappiness")
	if err := os.Remove(swappiness); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(swappiness, 0o755); err != nil {
		t.Fatal(err)
	}
	r := tune(t, root, "--revert")
	if r.code != 1 || !strings.Contains(r.stderr, "cannot write 60 to /proc/sys/vm/swappiness") {
		t.Errorf("got exit %d and %q, want 1 and what was not restored", r.code, r.stderr)
	}
	if err := os.Remove(swappiness); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "revert again", tune(t, root, "--revert"), 0)
	wantSame(t, "host after revert", restored(host), snapshot(t, root))
}

// changesThisMachine skips a test that changes the real host, unless it was
// asked for, can, and would not get into the way of a host that is tuned.
func changesThisMachine(t *testing.T) {
	t.Helper()
	if os.Getenv("DBBACKUP_TEST_HOST_TUNING") != "1" {
		t.Skip("set DBBACKUP_TEST_HOST_TUNING=1 to change this machine's settings for a moment")
	}
	if os.Geteuid() != 0 {
		t.Skip("changing a host's settings needs root")
	}
	for _, name := range []string{savedFile, sysctlFile} {
		if _, err := os.Stat(name); err == nil {
			t.Skipf("this machine is tuned already: %s exists", name)
		}
	}
}

// wantNothingLeft is for after a revert of the real host.
func wantNothingLeft(t *testing.T) {
	t.Helper()
	for _, name := range []string{savedFile, sysctlFile} {
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s after revert: got %v, want that it is gone", name, err)
		}
	}
}

func TestTuneHostRemountsTheDataFileSystem(t *testing.T) {
	changesThisMachine(t)
	dir := filepath.Join(t.TempDir(), "my data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RELATIME, "size=1m"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	args := []string{"--only", "mount", "--data-dir", dir}
	wantCode(t, "check", run(t, nil, tuneHost, append(args, "--check")...), 1)
	wantCode(t, "apply", run(t, nil, tuneHost, append(args, "--apply")...), 0)
	wantCode(t, "check after apply", run(t, nil, tuneHost, append(args, "--check")...), 0)
	wantCode(t, "revert", run(t, nil, tuneHost, "--revert"), 0)
	r := run(t, nil, tuneHost, append(args, "--check")...)
	wantCode(t, "check after revert", r, 1)
	if !strings.Contains(r.stdout, " relatime ") {
		t.Errorf("after revert:\n%s\nwant relatime again", r.stdout)
	}
	wantNothingLeft(t)
}

// The real kernel, with the real files. It changes this machine for a moment.
func TestTuneHostSetsThisMachinesKernel(t *testing.T) {
	changesThisMachine(t)
	before := kernelSettings(t)
	if err := os.WriteFile("/proc/sys/vm/swappiness", []byte(before["swappiness"]), 0); err != nil {
		t.Skipf("kernel settings are read-only here: %v", err)
	}
	t.Cleanup(func() {
		wantCode(t, "revert", run(t, nil, tuneHost, "--revert"), 0)
		wantSame(t, "kernel settings after revert", before, kernelSettings(t))
		wantNothingLeft(t)
	})
	wantCode(t, "apply", run(t, nil, tuneHost, "--apply", "--only", "sysctl"), 0)
	wantCode(t, "check", run(t, nil, tuneHost, "--check", "--only", "sysctl"), 0)
	if got := kernelSettings(t); before["swappiness"] == "60" && got["swappiness"] != "10" {
		t.Errorf("swappiness: got %s, want 10", got["swappiness"])
	}
}

func kernelSettings(t *testing.T) map[string]string {
	t.Helper()
	settings := map[string]string{}
	for _, name := range []string{"overcommit_memory", "swappiness", "dirty_ratio", "dirty_background_ratio"} {
		content, err := os.ReadFile("/proc/sys/vm/" + name)
		if err != nil {
			t.Fatal(err)
		}
		settings[name] = strings.TrimSpace(string(content))
	}
	return settings
}
