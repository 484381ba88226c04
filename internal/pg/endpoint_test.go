package pg

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgtest"
)

// deadPort is a port of 127.0.0.1 on which nobody listens.
func deadPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody connected
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// psqlPort asks a child of ours which port it ended up at.
func psqlPort(t *testing.T, c *pgtest.Cluster, e *Endpoint) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.BinDir, "psql"), "-XAtw", "-d", e.ChildConninfo("postgres", "child"), "-c", `SELECT inet_server_port()`)
	cmd.Env = e.ChildEnv()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestSeveralHostsArePinnedToOne(t *testing.T) {
	c := shared.Cluster(t)
	dead, port := deadPort(t), strconv.Itoa(c.Port)
	credentials := Params{"user": c.User, "password": c.Password}
	service := filepath.Join(t.TempDir(), "services")
	text := "[prod]\nhost=127.0.0.1,localhost\nport=" + dead + "," + port + "\nuser=" + c.User + "\npassword=" + c.Password + "\n"
	if err := os.WriteFile(service, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		params Params
		env    []string
	}{
		"in the options":          {params: credentials.With(Params{"host": "127.0.0.1,localhost", "port": dead + "," + port})},
		"with addresses":          {params: credentials.With(Params{"host": "a.invalid,b.invalid", "hostaddr": "127.0.0.1,127.0.0.1", "port": dead + "," + port})},
		"addresses only":          {params: credentials.With(Params{"hostaddr": "127.0.0.1,127.0.0.1", "port": dead + "," + port})},
		"a standby is preferred":  {params: credentials.With(Params{"host": "127.0.0.1,localhost", "port": dead + "," + port, "target_session_attrs": "prefer-standby"})},
		"in the service file":     {params: Params{"service": "prod", "servicefile": service}},
		"in the service variable": {env: []string{"PGSERVICE=prod", "PGSERVICEFILE=" + service}},
	} {
		t.Run(name, func(t *testing.T) {
			env := hermetic(t, test.env...)
			for _, kv := range test.env { // pgx reads the process's own
				key, value, _ := strings.Cut(kv, "=")
				t.Setenv(key, value)
			}
			e, err := Resolve(t.Context(), Options{Params: test.params, Env: env})
			if err != nil {
				t.Fatal(err)
			}
			if e.Port != c.Port || strings.Contains(e.Host, ",") {
				t.Errorf("pinned to %s, want port %d", e, c.Port)
			}
			connect(t, e, "postgres")
			if got := psqlPort(t, c, e); got != port {
				t.Errorf("a child reached port %s, want %s", got, port)
			}
		})
	}
}

func TestHostsInTheEnvironmentArePinned(t *testing.T) {
	c := shared.Cluster(t)
	dead, port := deadPort(t), strconv.Itoa(c.Port)
	env := []string{"PGHOST=127.0.0.1,127.0.0.1", "PGPORT=" + dead + "," + port, "PGUSER=" + c.User, "PGPASSWORD=" + c.Password}
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		t.Setenv(key, value)
	}
	e, err := Resolve(t.Context(), Options{Env: hermetic(t, env...)})
	if err != nil {
		t.Fatal(err)
	}
	if got := psqlPort(t, c, e); e.Port != c.Port || got != port {
		t.Errorf("pinned to %s, a child reached port %s; want %s", e, got, port)
	}
}

func TestSocket(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, paramsOf(c).With(Params{"host": c.Socket}))
	if !e.Local() || e.Host != c.Socket {
		t.Errorf("endpoint %s is not the local socket", e)
	}
	if got := psqlPort(t, c, e); got != "" {
		t.Errorf("a child reached TCP port %q, want the socket", got)
	}
}

func TestRetriesWhatMayPassAndNothingElse(t *testing.T) {
	c := shared.Cluster(t)
	for _, test := range []struct {
		name    string
		change  Params
		kind    fault.Kind
		retries int
	}{
		{"nobody listens", Params{"port": deadPort(t)}, fault.Unavailable, 2},
		{"wrong password", Params{"password": "wrong"}, fault.Precondition, 0},
		{"no such role", Params{"user": "nobody"}, fault.Precondition, 0},
		{"no TLS on the server", Params{"sslmode": "require"}, fault.Precondition, 0},
		{"no standby", Params{"target_session_attrs": "standby"}, fault.Precondition, 0},
		{"host that does not exist", Params{"host": "nowhere.invalid"}, fault.Unavailable, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			retries := 0
			_, err := Resolve(t.Context(), Options{Params: paramsOf(c).With(test.change), Env: hermetic(t), Retry: Retry{
				Attempts: 2, First: time.Millisecond, Notify: func(error, time.Duration) { retries++ },
			}})
			wantKind(t, err, test.kind)
			if retries != test.retries {
				t.Errorf("tried again %d times, want %d", retries, test.retries)
			}
			if len(fault.Hints(err)) == 0 {
				t.Errorf("no hint with %v", err)
			}
			if strings.Contains(err.Error(), c.Password) {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

// A step that is interrupted says that its connection was lost: nothing is tried
// again, or told of, for that.
func TestNothingIsTriedAgainOnceItIsCalledOff(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("called off")
	e := &Endpoint{retry: Retry{Attempts: 2, First: time.Millisecond, Notify: func(err error, _ time.Duration) { t.Errorf("told of %v", err) }}}
	attempts := 0
	_, err := e.retrying(ctx, func() (*Conn, error) {
		attempts++
		cancel(why)
		return nil, fault.New(fault.Unavailable, "", "the connection to the server was lost")
	})
	if !errors.Is(err, why) || attempts != 1 {
		t.Errorf("%d attempts, %v", attempts, err)
	}
}

func TestNoSuchDatabase(t *testing.T) {
	e := resolve(t, paramsOf(shared.Cluster(t)))
	_, err := e.Connect(t.Context(), "not there")
	wantKind(t, err, fault.NotFound)
	if e.Database != "postgres" {
		t.Errorf("the maintenance database is %q", e.Database)
	}
}

// A listener that never says a word must not hold a connection for ever.
func TestSilentServerTimesOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	began := time.Now()
	_, err = Resolve(t.Context(), Options{Env: hermetic(t), Params: Params{
		"host": "127.0.0.1", "port": strconv.Itoa(l.Addr().(*net.TCPAddr).Port), "user": "u", "connect_timeout": "1",
	}})
	wantKind(t, err, fault.Unavailable)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestT96OpenPasswordFileIsRefused(t *testing.T) {
	c := shared.Cluster(t)
	file := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(file, []byte("*:*:*:*:"+c.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Params{"host": c.Host, "port": strconv.Itoa(c.Port), "user": c.User, "passfile": file}
	if e := resolve(t, p); psqlPort(t, c, e) == "" {
		t.Error("no child could connect")
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o660} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Resolve(t.Context(), Options{Params: p, Env: hermetic(t)})
		wantKind(t, err, fault.Precondition)
		if hints := strings.Join(fault.Hints(err), ""); !strings.Contains(hints, "chmod 600 "+file) {
			t.Errorf("mode %o: hint %q", mode, hints)
		}
	}
}

func TestChildrensOptions(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, paramsOf(c).With(Params{"options": `-c geqo=off -c work_mem=5MB`}))
	cmd := exec.Command(filepath.Join(c.BinDir, "psql"), "-XAtw", "-d", e.ChildConninfo("postgres", "child"),
		"-c", `SELECT current_setting('geqo'), current_setting('work_mem'), current_setting('statement_timeout'), current_setting('idle_session_timeout')`)
	cmd.Env = e.ChildEnv()
	out, err := cmd.CombinedOutput()
	if want := "off|5MB|0|0\n"; err != nil || string(out) != want {
		t.Errorf("%v, %q, want %q", err, out, want)
	}
}

// counting forwards connections to a server and counts them.
func counting(t *testing.T, to string) (port string, count func() int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var n atomic.Int64
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			forward := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			go forward(in, out)
			go forward(out, in)
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), n.Load
}

// A server without TLS is asked for it once, and not by each connection, which would
// make two of it; one with TLS is always asked.
func TestTLSIsAskedForOnce(t *testing.T) {
	plain := shared.Cluster(t)
	secure := shared.Start(t, pgtest.WithTLS("127.0.0.1"))
	for name, tt := range map[string]struct {
		c       *pgtest.Cluster
		sslmode string
	}{
		"none there":    {plain, ""},
		"none wanted":   {plain, "disable"},
		"there":         {secure, ""},
		"there, wanted": {secure, "require"},
	} {
		t.Run(name, func(t *testing.T) {
			port, count := counting(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(tt.c.Port)))
			params := Params{"host": "127.0.0.1", "port": port, "user": tt.c.User, "password": tt.c.Password}
			if tt.sslmode != "" {
				params["sslmode"] = tt.sslmode
			}
			e, err := Resolve(t.Context(), Options{Params: params})
			if err != nil {
				t.Fatal(err)
			}
			resolved := count()
			for range 3 {
				conn, err := e.Connect(t.Context(), "postgres")
				if err != nil {
					t.Fatal(err)
				}
				secured, err := value[bool](t.Context(), conn, "ask", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
				if err != nil {
					t.Fatal(err)
				}
				if secured != (tt.c == secure) {
					t.Errorf("TLS: %t, want %t", secured, tt.c == secure)
				}
				_ = conn.Close(t.Context())
			}
			if got := count() - resolved; got != 3 {
				t.Errorf("3 sessions took %d connections", got)
			}
		})
	}
}
