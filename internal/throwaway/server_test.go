package throwaway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
)

func TestAServerTakesARestoreAndLeavesNothing(t *testing.T) {
	o := options(t)
	o.Superuser = `The boss, Öl`
	o.Settings = map[string]string{"Work_Mem": "8MB", "cluster_name": `a\b'c`}
	o.Env = append(o.Env, "PGHOSTADDR=192.0.2.1", "PGPORT=1", "PGOPTIONS=-c nonsense=1")
	s := start(t, o)
	if s.VersionNum/10000 != o.Major || s.BinDir != o.BinDir {
		t.Errorf("got version %d in %s, want %d in %s", s.VersionNum, s.BinDir, o.Major, o.BinDir)
	}
	space, err := s.MakeDir("space one")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, s,
		fmt.Sprintf("CREATE TABLESPACE one LOCATION '%s'", space),
		"CREATE TABLE public.t TABLESPACE one AS SELECT generate_series(1, 1000) AS i",
		`DO $$ BEGIN
			ASSERT (SELECT count(*) FROM public.t) = 1000, 'rows';
			ASSERT current_setting('work_mem') = '8MB', 'work_mem';
			ASSERT current_setting('cluster_name') = E'a\\b''c', current_setting('cluster_name');
			ASSERT current_setting('listen_addresses') = '', 'listen_addresses';
			ASSERT current_setting('server_version_num')::int = `+fmt.Sprint(s.VersionNum)+`, 'version';
			ASSERT (SELECT rolname FROM pg_authid WHERE oid = 10) = 'The boss, Öl', 'superuser';
		END $$`,
		// As a restore of the roles does it.
		`ALTER ROLE "The boss, Öl" PASSWORD 'that of the source'`,
	)
	exec(t, s, "SELECT 1")
	log, err := os.ReadFile(s.LogFile)
	if err != nil || !strings.Contains(string(log), "ready to accept connections") {
		t.Errorf("log: %q, %v", log, err)
	}
	for range 2 {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if names := left(t, o.Dir); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

func TestTheLogHoldsNoRowsAndNoStatements(t *testing.T) {
	s := start(t, options(t))
	conn, err := connect(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	err = errors.Join(
		conn.Exec(t.Context(), "make", "CREATE TABLE public.t AS SELECT 'sesame' AS secret"),
		conn.Exec(t.Context(), "index", "CREATE UNIQUE INDEX ON public.t (secret)"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(t.Context(), "fail", "INSERT INTO public.t VALUES ('sesame')"); err == nil {
		t.Fatal("a duplicate was accepted")
	}
	log, err := os.ReadFile(s.LogFile)
	if err != nil || len(log) == 0 || strings.Contains(string(log), "sesame") {
		t.Errorf("log: %q, %v", log, err)
	}
}

func TestALongPathHasItsSocketElsewhere(t *testing.T) {
	o := options(t)
	o.Dir = filepath.Join(o.Dir, strings.Repeat("long, and more ", 8))
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := start(t, o)
	exec(t, s, "CREATE TABLE public.t (i int)")
	sockets := s.Params()["host"]
	if strings.HasPrefix(sockets, o.Dir) {
		t.Fatalf("the socket is in %s", sockets)
	}
	if info, err := os.Stat(sockets); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("socket folder: %v, %v", info.Mode(), err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder is left: %v", err)
	}
}

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	o := options(t)
	o.Settings = map[string]string{"shared_preload_libraries": "no_such_library"}
	_, err := Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), `could not access file "no_such_library"`) {
		t.Errorf("got %v", err)
	}
	o.Settings, o.Superuser = nil, "pg_forbidden"
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "pg_forbidden") {
		t.Errorf("got %v", err)
	}
	if names := left(t, o.Dir); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

func TestAStartThatIsCancelledLeavesNothing(t *testing.T) {
	o := options(t)
	reason := errors.New("the operator's")
	ctx, cancel := context.WithCancelCause(t.Context())
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			if entries, err := os.ReadDir(o.Dir); err != nil || len(entries) > 0 {
				cancel(reason)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	defer watcher.Wait()
	if _, err := Start(ctx, o); !errors.Is(err, reason) {
		t.Errorf("got %v, want %v", err, reason)
	}
	if names := left(t, o.Dir); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

func TestAMissingVersionIsAPrecondition(t *testing.T) {
	o := options(t)
	o.BinDir, o.Search, o.Major = "", pgtool.Search{BinDir: o.BinDir}, 99
	_, err := Start(t.Context(), o)
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "PostgreSQL 99") {
		t.Errorf("searched: got %v", err)
	}
	o.BinDir = o.Search.BinDir
	_, err = Start(t.Context(), o)
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "PostgreSQL 99") {
		t.Errorf("named: got %v", err)
	}
	if names := left(t, o.Dir); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

func TestAFolderOutOfReachIsAPrecondition(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the server runs as this process's own user")
	}
	o := options(t)
	if err := os.Chmod(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), o)
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "user postgres") || len(fault.Hints(err)) != 1 {
		t.Errorf("got %v, hints %q", err, fault.Hints(err))
	}
	if names := left(t, o.Dir); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

func TestACrashIsToldByClose(t *testing.T) {
	o := options(t)
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connect(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := syscall.Kill(s.process.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.process.Exited()
	if err := s.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("got %v", err)
	}
	if names := left(t, o.Dir); names != nil {
		t.Errorf("left behind: %q", names)
	}
}

func TestAKilledProcessLeavesNoServerAndItsFolderToTheNext(t *testing.T) {
	o := options(t)
	living := start(t, o)
	pid, dir := killedVictim(t, o.Dir)
	awaitEnd(t, pid)
	abandoned := &folder{path: dir, lock: openNull(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := abandoned.takeBack(ctx); err != nil {
		t.Fatalf("a process of the killed one's server lives on: %v", err)
	}
	if err := abandoned.lock.Close(); err != nil {
		t.Fatal(err)
	}

	next := start(t, o)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the killed one's folder is left: %v", err)
	}
	exec(t, living, "CREATE TABLE public.t (i int)")
	exec(t, next, "CREATE TABLE public.t (i int)")
}

// killedVictim runs a process that starts a server, and kills it.
func killedVictim(t *testing.T, dir string) (pid int, path string) {
	t.Helper()
	cmd := osexec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), dirVar+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	if readErr != nil {
		t.Fatal(readErr)
	}
	if _, err := fmt.Sscan(line, &pid, &path); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return pid, path
}

// awaitEnd waits until a process is gone or a zombie.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("postmaster %d lives on", pid)
		}
	}
}

func openNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRemoveAbandonedTakesOnlyItsOwn(t *testing.T) {
	parent := t.TempDir()
	held, err := makeFolder(parent, owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer held.remove()
	elsewhere := t.TempDir()
	mk := func(name string) string {
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dead, other, trap := mk(folderPrefix+"1"), mk(folderPrefix+"1.old"), mk(folderPrefix+"2")
	link := filepath.Join(parent, folderPrefix+"3")
	err = errors.Join(
		os.Symlink(elsewhere, link),
		os.Symlink(filepath.Join(elsewhere, "made"), filepath.Join(trap, lockName)))
	if err != nil {
		t.Fatal(err)
	}
	removeAbandoned(parent, owner{})
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead process's folder is still there: %v", err)
	}
	for _, path := range []string{held.path, other, trap, link} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("removed too much: %v", err)
		}
	}
	if names := left(t, elsewhere); names != nil {
		t.Errorf("followed a link: %q", names)
	}
}

func TestOwnerFor(t *testing.T) {
	if o, err := ownerFor(1000, "no-such-user"); err != nil || o.credential != nil {
		t.Errorf("not root: got %v, %v", o, err)
	}
	for _, name := range []string{"no-such-user", "root"} {
		if _, err := ownerFor(0, name); !fault.Is(err, fault.Precondition) || len(fault.Hints(err)) != 1 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	tests := map[string]Options{
		"no version":  {},
		"old version": {Major: 9},
		"ours":        {Major: 15, Settings: map[string]string{"Port": "1"}},
		"two lines":   {Major: 15, Settings: map[string]string{"work_mem": "1\nport = 1"}},
		"not a name":  {Major: 15, Settings: map[string]string{"work mem": "1"}},
	}
	for name, o := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Start(t.Context(), o); !fault.Is(err, fault.Usage) {
				t.Errorf("got %v, want a fault.Usage", err)
			}
		})
	}
}

func TestMakeDirTakesOnlyNames(t *testing.T) {
	s := start(t, options(t))
	for _, name := range []string{"", ".", "..", "a/b", "../a", "/a"} {
		if dir, err := s.MakeDir(name); err == nil {
			t.Errorf("%q: made %s", name, dir)
		}
	}
}

func TestParamsAreComplete(t *testing.T) {
	t.Setenv("PGTARGETSESSIONATTRS", "standby")
	t.Setenv("PGSSLMODE", "verify-full")
	t.Setenv("PGHOSTADDR", "192.0.2.1")
	s := start(t, options(t))
	e, err := pg.Resolve(t.Context(), pg.Options{Params: s.Params(), Env: s.Env()})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := pgtool.Search{BinDir: s.BinDir}.ForServer(t.Context(), s.VersionNum)
	if err != nil {
		t.Skipf("no clients beside the server: %v", err)
	}
	cmd := osexec.Command(tools.Psql, "-w", "-X", "-c", "SELECT 1", "-d", e.ChildConninfo(e.Database, "test"))
	cmd.Env = e.ChildEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("psql: %v: %s", err, out)
	}
}
