package pgtest_test

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/pgtest"

	"github.com/jackc/pgx/v5"
)

var shared pgtest.Shared

// TestMain also serves as the process that TestServerDiesWithItsProcess kills.
func TestMain(m *testing.M) {
	if os.Getenv("PGTEST_VICTIM") != "" {
		victim()
	}
	os.Exit(shared.Run(m))
}

// victim starts a cluster, tells its port and waits to be killed.
func victim() {
	c, err := pgtest.Open()
	if err != nil {
		panic(err)
	}
	println(strconv.Itoa(c.Port))
	select {}
}

func TestStart(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t(a int); INSERT INTO t VALUES (1),(2)")
	if got := c.QueryString(t, db, "SELECT sum(a) FROM t"); got != "3" {
		t.Errorf("sum: got %s, want 3", got)
	}
	if got := c.QueryString(t, db, "SELECT current_user"); got != "postgres" {
		t.Errorf("user: got %s, want postgres", got)
	}
	if c.VersionNum < 130000 {
		t.Errorf("version: got %d", c.VersionNum)
	}
}

// Clusters that share the work of initdb are as strange to each other as any.
func TestCopiesOfATemplateAreClustersOfTheirOwn(t *testing.T) {
	identifiers, passwords := map[string]bool{}, map[string]bool{}
	for _, c := range []*pgtest.Cluster{pgtest.Start(t), shared.Start(t), shared.Start(t), shared.Start(t, pgtest.WithPassword("it's mine"))} {
		identifiers[c.QueryString(t, "postgres", "SELECT system_identifier FROM pg_control_system()")] = true
		passwords[c.Password] = true
		c.Exec(t, "postgres", "CREATE TABLE t AS SELECT 42 AS answer")
		c.Kill(t)
		c.Restart(t) // reads the WAL, whose identifier must be the same
		if got := c.QueryString(t, "postgres", "SELECT answer FROM t"); got != "42" {
			t.Errorf("after a crash: got %s, want 42", got)
		}
		if out, err := exec.Command(filepath.Join(c.BinDir, "pg_controldata"), c.DataDir).CombinedOutput(); err != nil || strings.Contains(string(out), "WARNING") {
			t.Errorf("pg_controldata: %v: %s", err, out)
		}
	}
	if len(identifiers) != 4 || len(passwords) != 4 {
		t.Errorf("4 clusters have %d system identifiers and %d passwords", len(identifiers), len(passwords))
	}
}

func TestPasswordIsNeeded(t *testing.T) {
	c := shared.Cluster(t)
	for _, host := range []string{c.Host, c.Socket} {
		t.Run(host, func(t *testing.T) {
			cfg, err := pgx.ParseConfig("sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			cfg.Host, cfg.Port, cfg.User, cfg.Database = host, uint16(c.Port), c.User, "postgres"
			cfg.Password = "wrong"
			if conn, err := pgx.ConnectConfig(t.Context(), cfg); err == nil {
				_ = conn.Close(t.Context())
				t.Error("a wrong password was accepted")
			}
			cfg.Password = c.Password
			conn, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatalf("the right password was refused: %v", err)
			}
			_ = conn.Close(t.Context())
		})
	}
}

func TestURIAndEnvReachHostileNames(t *testing.T) {
	c := shared.Cluster(t)
	for _, name := range []string{"a b", "a=b", "/slash", "?x=1&y", "+%20", "postgresql://x/y", "'quote\"", "line\nfeed"} {
		t.Run(name, func(t *testing.T) {
			c.CreateDatabase(t, name)
			uri := exec.Command(filepath.Join(c.BinDir, "psql"), "-XAtc", "SELECT current_database()", c.URI(name))
			env := exec.Command(filepath.Join(c.BinDir, "psql"), "-XAtc", "SELECT current_database()")
			env.Env = append(c.Env(), "PGDATABASE="+name)
			for _, cmd := range []*exec.Cmd{uri, env} {
				out, err := cmd.CombinedOutput()
				if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != name {
					t.Errorf("%v: got %q, %v; want %q", cmd.Args, got, err, name)
				}
			}
		})
	}
}

func TestOptions(t *testing.T) {
	c := pgtest.Start(t,
		pgtest.WithSetting("max_connections", "17"),
		pgtest.WithSetting("search_path", "it's"),
		pgtest.WithInitdbArgs("--data-checksums"),
		pgtest.WithHBA("host all nobody all reject"),
		pgtest.WithTLS())
	for setting, want := range map[string]string{"max_connections": "17", "data_checksums": "on", "ssl": "on"} {
		if got := c.QueryString(t, "postgres", "SHOW "+setting); got != want {
			t.Errorf("%s: got %s, want %s", setting, got, want)
		}
	}
	if got := c.QueryString(t, "postgres", "SELECT boot_val <> reset_val FROM pg_settings WHERE name = 'max_connections'"); got != "t" {
		t.Error("max_connections is the default")
	}
	c.Exec(t, "postgres", "CREATE ROLE nobody LOGIN PASSWORD 'x'")
	if conn, err := pgx.Connect(t.Context(), strings.Replace(c.URI("postgres"), "postgres:"+c.Password, "nobody:x", 1)); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the rule of WithHBA did not decide first")
	}
}

func TestTLS(t *testing.T) {
	c := pgtest.Start(t, pgtest.WithTLS("localhost"))
	tests := []struct {
		name, host, ca string
		ok             bool
	}{
		{"own authority", "localhost", c.CAFile, true},
		{"another authority", "localhost", pgtest.StrangerCA(t), false},
		{"another host", "127.0.0.1", c.CAFile, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			uri := strings.Replace(c.URI("postgres"), "127.0.0.1", tt.host, 1) + "&sslmode=verify-full&sslrootcert=" + tt.ca
			conn, err := pgx.Connect(t.Context(), uri)
			if err == nil {
				_ = conn.Close(t.Context())
			}
			if got := err == nil; got != tt.ok {
				t.Errorf("connected: got %v, want %v: %v", got, tt.ok, err)
			}
		})
	}
}

func TestStopKillRestart(t *testing.T) {
	c := pgtest.Start(t)
	c.Exec(t, "postgres", "CREATE TABLE t(a int)")
	c.Stop(t)
	if _, err := c.Dial(t.Context(), "postgres"); err == nil {
		t.Fatal("connected to a stopped server")
	}
	c.Restart(t)
	c.Exec(t, "postgres", "INSERT INTO t VALUES (1)")
	c.Exec(t, "postgres", "CHECKPOINT")
	conn := c.Connect(t, "postgres")
	c.Kill(t)
	if err := conn.Ping(t.Context()); err == nil {
		t.Fatal("a backend survived Kill")
	}
	c.Restart(t)
	if got := c.QueryString(t, "postgres", "SELECT count(*) FROM t"); got != "1" {
		t.Errorf("rows after crash recovery: got %s, want 1", got)
	}
}

func TestStandby(t *testing.T) {
	primary := pgtest.Start(t)
	standby := primary.Standby(t)
	primary.Exec(t, "postgres", "CREATE TABLE t AS SELECT 1 AS a")
	primary.AwaitReplay(t, standby)
	if got := standby.QueryString(t, "postgres", "SELECT pg_is_in_recovery() AND (SELECT a FROM t) = 1"); got != "t" {
		t.Errorf("in recovery and replayed: got %s, want t", got)
	}
}

func TestDetached(t *testing.T) {
	parent, err := os.MkdirTemp("", "pgtest-detached-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "cluster")
	pgtest.BinDir(t, 0)
	made, err := pgtest.Open(pgtest.Detached(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Save(); err != nil {
		t.Fatal(err)
	}
	found, err := pgtest.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := found.QueryString(t, "postgres", "SELECT 1"); got != "1" {
		t.Errorf("got %s, want 1", got)
	}
	if err := found.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := made.Dial(t.Context(), "postgres"); err == nil {
		t.Error("the server runs after Close")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is there after Close: %v", err)
	}
}

func TestServerDiesWithItsProcess(t *testing.T) {
	pgtest.BinDir(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "PGTEST_VICTIM=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	port, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strings.TrimSpace(port))
	if !reachable(address) {
		t.Fatalf("no server at %s", address)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for reachable(address) {
		if ctx.Err() != nil {
			t.Fatal("the server lives on after its process was killed")
		}
	}
}

func reachable(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func TestUnavailableVersionFailsUnderCI(t *testing.T) {
	for _, tt := range []struct {
		ci      string
		skipped bool
	}{{"", true}, {"true", false}} {
		t.Run("CI="+tt.ci, func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			probe := &outcome{TB: t}
			func() {
				defer func() { _ = recover() }()
				pgtest.BinDir(probe, 9)
			}()
			if probe.skipped != tt.skipped || probe.failed == tt.skipped {
				t.Errorf("got skipped %v, failed %v; want skipped %v", probe.skipped, probe.failed, tt.skipped)
			}
		})
	}
}

// outcome records how a test would have ended.
type outcome struct {
	testing.TB
	skipped, failed bool
}

func (o *outcome) Skipf(string, ...any)  { o.skipped = true; panic("skipped") }
func (o *outcome) Fatalf(string, ...any) { o.failed = true; panic("failed") }
