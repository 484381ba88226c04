package sftp

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/storeserver"
)

// T22: whatever waits at a name that the store is going to use.
func TestSymlinks(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	must(t, os.WriteFile(victim, []byte("mine"), 0o640))
	d := openNew(t, storeserver.StartSSHD(t, ""))
	must(t, write(t, d, "real/object", "object"))
	must(t, os.Symlink(victim, filepath.Join(d.path, "real", "link")))
	must(t, os.Symlink(outside, filepath.Join(d.path, "out")))
	must(t, os.Symlink("real", filepath.Join(d.path, "in")))
	must(t, os.Symlink(outside, filepath.Join(d.path, ".lock")))
	must(t, syscall.Mkfifo(filepath.Join(d.path, "fifo"), 0o600))
	ctx := t.Context()
	for _, key := range []string{"real/link", "out/victim", "in/object", "out/new", "in/new", "fifo"} {
		if err := write(t, d, key, "evil"); err == nil {
			t.Errorf("wrote %s", key)
		}
		if r, err := d.Open(ctx, key); err == nil {
			t.Errorf("opened %s: %v", key, r.Close())
		}
	}
	for _, key := range []string{"out/victim", "in/object"} {
		if err := d.Delete(ctx, key); err == nil {
			t.Errorf("deleted %s", key)
		}
		if err := d.RemoveLeftover(ctx, key); err == nil {
			t.Errorf("removed %s as a leftover", key)
		}
	}
	if _, _, err := d.Lock(ctx, store.Holder{Host: "evil"}); err == nil {
		t.Error("locked through a symbolic link")
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "mine" {
		t.Errorf("the victim became %q, %v", got, err)
	}
	wantKeys(t, d, "real/object")
	wantTree(t, outside, "victim")
}

func TestLockOfALocalStore(t *testing.T) {
	d := openNew(t, storeserver.StartSSHD(t, ""))
	must(t, os.WriteFile(filepath.Join(d.path, ".lock"), []byte("{}"), 0o600))
	_, _, err := d.Lock(t.Context(), store.Holder{})
	if !fault.Is(err, fault.Precondition) {
		t.Errorf("got %v, want kind Precondition", err)
	}
	wantHint(t, err, "not both")
}

func TestLeftovers(t *testing.T) {
	d := openNew(t, storeserver.StartSSHD(t, ""))
	ctx := t.Context()
	must(t, write(t, d, "set/kept", "x"))
	w, err := d.Create(ctx, "set/half", 0)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(d.path, "dead", "empty"), 0o700))
	must(t, os.MkdirAll(filepath.Join(d.path, "lost+found"), 0o700))
	must(t, os.WriteFile(filepath.Join(d.path, ".partial-notes"), nil, 0o600))
	_, release, err := d.Lock(ctx, store.Holder{})
	must(t, err)
	defer release()
	ofLock := ".lock/.00000001.partial-0123456789abcdef"
	must(t, os.WriteFile(filepath.Join(d.path, ofLock), nil, 0o600))

	names, err := d.Leftovers(ctx)
	must(t, err)
	if len(names) != 3 || names[0] != ofLock || names[1] != "dead/empty" || !strings.HasPrefix(names[2], "set/.half.partial-") {
		t.Fatalf("leftovers: %q", names)
	}
	for _, name := range []string{"set/kept", "set", ".", "", "..", "../x", "/etc", "set/../set/kept", ".partial-notes", ".lock", ".lock/00000001"} {
		if err := d.RemoveLeftover(ctx, name); err == nil {
			t.Errorf("removed %q, which is no leftover", name)
		}
	}
	for range 2 {
		for _, name := range names {
			must(t, d.RemoveLeftover(ctx, name))
		}
	}
	wantTree(t, d.path, ".partial-notes", "lost+found", "set", "set/kept")
	if err := w.Commit(); err == nil {
		t.Error("an object whose temporary file was removed was committed")
	}
	wantTree(t, d.path, ".partial-notes", "lost+found", "set", "set/kept")
}

// T25
func TestUmaskAndWarnings(t *testing.T) {
	for _, umask := range []string{"000", "777"} {
		parent := t.TempDir()
		must(t, os.Chmod(parent, 0o700))
		d := openAt(t, storeserver.StartSSHD(t, "internal-sftp -u "+umask), filepath.Join(parent, "store"))
		must(t, write(t, d, "a/b/c", "x"))
		for name, want := range map[string]os.FileMode{".": 0o700, "a": 0o700, "a/b": 0o700, "a/b/c": 0o600} {
			info, err := os.Stat(filepath.Join(d.path, name))
			must(t, err)
			if info.Mode().Perm() != want {
				t.Errorf("umask %s: %s has mode %04o, want %04o", umask, name, info.Mode().Perm(), want)
			}
		}
		if w := d.Warnings(); len(w) != 0 {
			t.Errorf("warnings about a private store: %q", w)
		}
		must(t, os.Chmod(d.path, 0o777))
		if w := d.Warnings(); len(w) != 1 || !strings.Contains(w[0], "0777") {
			t.Errorf("warnings about mode 0777: %q", w)
		}
	}
}

func TestWarnsWithoutSync(t *testing.T) {
	s := open(t, storeserver.StartSSHD(t, "internal-sftp -P fsync"), t.TempDir())
	if w := strings.Join(s.Warnings(), "\n"); !strings.Contains(w, "fsync@openssh.com") {
		t.Errorf("warnings: %q", w)
	}
}

func TestCheckWritable(t *testing.T) {
	d := openNew(t, storeserver.StartSSHD(t, ""))
	must(t, d.CheckWritable(t.Context()))
	wantTree(t, d.path)
}

// An object's content is on the server's disk before it has its name, and the folders
// that lead to the name are after it.
func TestServerSyncsBeforeAndAfterTheName(t *testing.T) {
	const tool = "/usr/lib/openssh/sftp-server"
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skipf("sftp-server: %v", err)
	}
	script, folder := filepath.Join(t.TempDir(), "server"), filepath.Join(t.TempDir(), "store")
	log := filepath.Join(filepath.Dir(script), "log")
	must(t, os.WriteFile(script, []byte("#!/bin/sh\nexec strace -y -o \"${0%/*}/log\" -e trace=fsync,link,linkat \"$@\"\n"), 0o700))
	server := storeserver.StartSSHD(t, script+" "+tool)
	must(t, os.Mkdir(folder, 0o700))
	u := server.URL(folder)
	u.RawQuery = "timeout=10s&connections=1"
	p, err := Open(t.Context(), u, options(server))
	must(t, err)
	must(t, write(t, p, "set/sub/object", "content"))
	must(t, p.Close())
	text, err := os.ReadFile(log) // what was answered is in it
	must(t, err)
	content, after, named := strings.Cut(string(text), "link")
	if !named || !strings.Contains(content, "/set/sub/.object.partial-") {
		t.Errorf("the content was not synced before it had its name:\n%s", text)
	}
	for _, synced := range []string{"", "/set", "/set/sub"} {
		if !strings.Contains(after, "<"+folder+synced+">) = 0") {
			t.Errorf("folder %s%s was not synced after the name was there:\n%s", folder, synced, text)
		}
	}
}

// T29: each answer of the server is lost once, after what it answers was done; by
// default every third.
func TestEveryAnswerIsLostOnce(t *testing.T) {
	const tool = "/usr/lib/openssh/sftp-server"
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skipf("sftp-server: %v", err)
	}
	step := 3
	if os.Getenv("DBBACKUP_TEST_FULL_SWEEP") != "" {
		step = 1
	}
	for name, arguments := range map[string]string{"with all": "", "without hard links": " -P hardlink"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script := filepath.Join(t.TempDir(), "server")
			must(t, os.WriteFile(script, []byte(loseOne), 0o700))
			server := storeserver.StartSSHD(t, script+" "+tool+arguments)
			failed, done := 0, 0
			for n := 1; ; n += step {
				folder := t.TempDir()
				err, lost := putWithLoss(t, server, filepath.Dir(script), folder, n)
				if err == nil {
					done++
					wantTree(t, folder, "set", "set/sub", "set/sub/object")
				} else {
					failed++
					wantTree(t, folder)
				}
				if !lost {
					break
				}
			}
			if failed == 0 || done < 10/step {
				t.Errorf("%d runs failed and %d did not", failed, done)
			}
		})
	}
}

// loseOne is the server of SFTP: the first after each file "next" appears is
// killed in the write that this file numbers.
const loseOne = `#!/bin/sh
folder=${0%/*}
if mv "$folder/next" "$folder/this" 2>/dev/null; then
    exec strace -o "$folder/log" -e trace=write -e "inject=write:signal=KILL:when=$(cat "$folder/this")" "$@"
fi
exec "$@"
`

// putWithLoss stores an object while the nth answer is lost, if there is one.
func putWithLoss(t *testing.T, server *storeserver.SSHD, beside, folder string, n int) (err error, lost bool) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(beside, "next"), []byte(strconv.Itoa(n)), 0o600))
	u := server.URL(folder)
	u.RawQuery = "timeout=10s&connections=1"
	p, err := Open(t.Context(), u, options(server))
	if err == nil {
		err = write(t, p, "set/sub/object", "content")
		must(t, p.Close())
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		log, look := os.ReadFile(filepath.Join(beside, "log"))
		must(t, look)
		if text := string(log); strings.Contains(text, "+++ killed by SIGKILL") {
			return err, true
		} else if strings.Contains(text, "+++ exited with") {
			return err, false
		}
	}
	t.Fatal("the server does not end")
	return nil, false
}
