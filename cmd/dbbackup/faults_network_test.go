package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/pgtest"
)

// wire is a stretch of network in front of a cluster that can swallow
// everything: no byte, no end and no reset comes through. Unlike toxiproxy it
// can do that to a connection in the middle of its answer, and spare new ones.
type wire struct {
	listener net.Listener
	upstream string
	budget   int64 // bytes of an answer after which its connection goes dark; 0: none

	dark    atomic.Bool // nothing passes any more, on new connections neither
	swallow atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// newWire makes a wire that the test's end takes down.
func newWire(t testing.TB, c *pgtest.Cluster, budget int64) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, upstream: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), budget: budget}
	w.wg.Go(w.accept)
	t.Cleanup(w.cut)
	return w
}

// env is the environment that leads through the wire.
func (w *wire) env(c *pgtest.Cluster) []string {
	_, port, _ := net.SplitHostPort(w.listener.Addr().String())
	return append(c.Env(), "PGHOST=127.0.0.1", "PGPORT="+port)
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.upstream)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, client, server)
		w.mu.Unlock()
		var lost atomic.Bool // of this connection
		w.wg.Go(func() { w.carry(server, client, &lost, 0) })
		w.wg.Go(func() { w.carry(client, server, &lost, w.budget) })
	}
}

// carry copies one direction until it ends, or until the connection goes dark:
// then it is held open, and nothing passes.
func (w *wire) carry(to, from net.Conn, lost *atomic.Bool, budget int64) {
	buffer, passed := make([]byte, 16<<10), int64(0)
	for {
		n, err := from.Read(buffer)
		if passed += int64(n); budget > 0 && passed > budget && !lost.Swap(true) {
			w.swallow.Add(1)
		}
		if lost.Load() || w.dark.Load() {
			if n == 0 && err != nil {
				return // an end does not pass either
			}
			continue
		}
		if _, werr := to.Write(buffer[:n]); werr != nil || err != nil {
			if errors.Is(err, io.EOF) {
				_ = to.Close()
			}
			return
		}
	}
}

// cut ends all connections, as a machine does that comes back and knows
// nothing of them.
func (w *wire) cut() {
	_ = w.listener.Close()
	w.mu.Lock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// T85: the network swallows a dump in the middle. The run ends within the
// stall limit and what it takes to clean up, and no backend of its is left.
func TestT85BlackHoleUnderOneConnection(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		w := newWire(t, c, 3<<20)
		store, mark, began := newStore(t), marker(t), time.Now()
		got := dbbackup(t, append(w.env(c), mark), "backup", "single", db, "--store", store, "--mode", mode, "--jobs", "2", "--stall-timeout", "4s")
		got.want(t, exitFailed, db, "no progress for 4s")
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("the run took %s", took)
		}
		if w.swallow.Load() == 0 {
			t.Fatal("nothing was swallowed: the database is too small for this test")
		}
		wantNoSet(t, store, mode)
		wantNoTrace(t, c, db, mark) // new connections pass: our own backends were ended through one
	})
}

// T85: nothing passes any more, new connections included.
func TestT85BlackHoleUnderEverything(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachOf(t, []string{"plain", "chunked"}, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		w := newWire(t, c, 3<<20)
		store, mark := newStore(t), marker(t)
		r := start(t, append(w.env(c), mark), "backup", "single", db, "--store", store, "--mode", mode, "--jobs", "1", "--stall-timeout", "4s")
		eventually(t, "the dump is swallowed", func() bool { return w.swallow.Load() > 0 })
		w.dark.Store(true)
		began := time.Now()
		r.wait(t).want(t, exitFailed, db, "no progress for 4s")
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("the run took %s to give up", took)
		}
		wantNoSet(t, store, mode)
		w.cut()
		wantNoTrace(t, c, db, mark)
	})
}

// T85: what reads the globals is swallowed, beside a database that is not.
func TestT85SilenceUnderGlobals(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, mark := smallDatabase(t, c), newStore(t), marker(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "pg_dumpall"), []byte("#!/bin/sh\n[ \"$1\" = --version ] && exec "+c.BinDir+"/pg_dumpall --version\nexec sleep 600\n"), 0o700)
	for _, tool := range []string{"pg_dump", "pg_restore", "psql"} {
		if err := os.Symlink(filepath.Join(c.BinDir, tool), filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	env := append(c.Env(), mark, "PATH="+dir+":"+os.Getenv("PATH"))
	dbbackup(t, env, "backup", "single", db, "--store", store, "--mode", "custom", "--stall-timeout", "2s").
		want(t, exitFailed, "capture globals", "no progress for 2s")
	if left := marked(t, mark); len(left) != 0 {
		t.Errorf("processes of the run are left: %q", left)
	}
}

// T85: the machine on the other side is gone before the first word.
func TestT85BlackHoleFromTheBeginning(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	w := newWire(t, c, 0)
	w.dark.Store(true)
	began := time.Now()
	dbbackup(t, append(w.env(c), "PGCONNECT_TIMEOUT=1"), "backup", "cluster", "--store", newStore(t)).want(t, exitFailed, "trying again")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the run took %s", took)
	}
}

// T86: the connection that holds the snapshot is lost while pg_dump, which has
// its own, goes on. Workers that come later could not import the snapshot.
func TestT86LostSnapshotIsNoticedDuringTheRun(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := smallDatabase(t, c)
	folder, store := t.TempDir(), newStore(t)
	env := shim(t, c, fmt.Sprintf(`
if [ ! -e %[1]s/begun ]; then touch %[1]s/begun; exec sleep 600; fi
exec "$real" "$@"`, folder))
	r := start(t, env, "backup", "single", db, "--store", store)
	eventually(t, "pg_dump was started", func() bool { _, err := os.Stat(filepath.Join(folder, "begun")); return err == nil })
	ended := c.QueryString(t, "postgres", "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = '"+db+"' AND state = 'idle in transaction'")
	if ended != "1" {
		t.Fatalf("%s sessions held a snapshot, want 1", ended)
	}
	began := time.Now()
	r.wait(t).want(t, exitOK, "the session that holds the snapshot is lost", "the capture is tried again")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s to notice", took)
	}
	wantSound(t, store, 1)
}

// pgbouncer runs a pooler in front of a cluster until the test is over, and
// returns the environment that leads through it.
func pgbouncer(t *testing.T, c *pgtest.Cluster, mode string) []string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			cannot(t, err.Error())
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	dir := t.TempDir()
	config := filepath.Join(dir, "pgbouncer.ini")
	writeFile(t, config, fmt.Appendf(nil, `[databases]
* = host=%s port=%d user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 20
`, c.Host, c.Port, c.User, c.Password, port, mode), 0o600)
	cmd := exec.Command(program, "-q", config)
	if os.Geteuid() == 0 { // it does not run as root
		cmd.SysProcAttr = asPostgres(t, config)
	}
	var log strings.Builder
	cmd.Stderr = &log
	started, ended := make(chan error), make(chan struct{})
	go func() { // as root it dies with the thread that starts it, which may not be one that another server's end ends
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := errors.Join(l.Close(), cmd.Start())
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	})
	eventually(t, "the pooler listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return append(c.Env(), "PGPORT="+port)
}

// asPostgres makes a program run as postgres, who may read the file.
func asPostgres(t *testing.T, file string) *syscall.SysProcAttr {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	err = errors.Join(uidErr, gidErr, os.Chown(file, uid, gid))
	for dir := filepath.Dir(file); dir != os.TempDir() && err == nil; dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755) //nolint:gosec // the way to the file
	}
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL} //nolint:gosec // ids fit
}

// T80: no snapshot survives a pooler that hands each transaction to another
// backend.
func TestT80PoolerInTransactionModeIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	for _, mode := range []string{"transaction", "statement"} {
		store := newStore(t)
		got := dbbackup(t, pgbouncer(t, c, mode), "backup", "single", db, "--store", store)
		got.want(t, exitPrecondition, "pooler in transaction mode", "hint: connect to the PostgreSQL server itself")
		wantEmpty(t, store)
	}
}

func TestT80PoolerInSessionModeWorks(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	env := pgbouncer(t, c, "session")
	for _, mode := range modes {
		db, store := smallDatabase(t, c), newStore(t)
		dbbackup(t, env, "backup", "single", db, "--store", store, "--mode", mode, "--jobs", "2").want(t, exitOK)
		wantSound(t, store, 1)
		dbbackup(t, env, "restore", "single", db, "--store", store, "--clean", "--confirm").want(t, exitOK)
	}
}

// Of several hosts one is taken, for this process and for all its children.
func TestSeveralHostsOneIsTaken(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, dead, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	ports := dead + "," + strconv.Itoa(c.Port)
	db := smallDatabase(t, c)
	for name, test := range map[string]struct{ env, args []string }{
		"environment": {env: []string{"PGHOST=127.0.0.1,localhost", "PGPORT=" + ports}},
		"URI": {args: []string{"-d", fmt.Sprintf("postgresql://127.0.0.1:%s,127.0.0.1:%d/postgres?target_session_attrs=read-write", dead, c.Port)},
			env: []string{"PGHOST=", "PGPORT="}},
		"keywords": {args: []string{"--dbname", "host=127.0.0.1,localhost port=" + ports}, env: []string{"PGHOST=", "PGPORT="}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			env := append(c.Env(), test.env...)
			dbbackup(t, env, append([]string{"backup", "single", db, "--store", store, "--mode", "directory"}, test.args...)...).want(t, exitOK)
			if m := manifestOf(t, store); m.Server.Port != c.Port || strings.Contains(m.Server.Host, ",") {
				t.Errorf("the manifest names %s:%d", m.Server.Host, m.Server.Port)
			}
		})
	}
}

// PGSERVICE holds for dbbackup and for its children.
func TestServiceFile(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := smallDatabase(t, c), newStore(t)
	file := filepath.Join(t.TempDir(), "services")
	writeFile(t, file, fmt.Appendf(nil, "[other]\nhost=nowhere.invalid\n\n[prod]\nhost=%s\nport=%d\nuser=%s\npassword=%s\n", c.Host, c.Port, c.User, c.Password), 0o600)
	env := []string{"PGSERVICE=prod", "PGSERVICEFILE=" + file}
	dbbackup(t, env, "backup", "single", db, "--store", store).want(t, exitOK)
	dbbackup(t, env, "restore", "single", db, "--store", store, "--clean", "--confirm").want(t, exitOK)
	dbbackup(t, []string{"PGSERVICEFILE=" + file}, "backup", "single", db, "-d", "service=prod", "--store", newStore(t)).want(t, exitOK)
	if n := c.QueryString(t, db, "SELECT count(*) FROM accounts"); n != "300" {
		t.Errorf("%s rows came back", n)
	}
}
