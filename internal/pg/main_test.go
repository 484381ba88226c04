package pg

import (
	"os"
	"strconv"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgtest"
)

var shared pgtest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

// hermetic is an environment in which nothing of this machine's user counts.
func hermetic(t testing.TB, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, more...)
}

// paramsOf are the parameters that lead to a cluster as its superuser.
func paramsOf(c *pgtest.Cluster) Params {
	return Params{"host": c.Host, "port": strconv.Itoa(c.Port), "user": c.User, "password": c.Password}
}

// resolve finds a cluster, and fails the test when it cannot.
func resolve(t testing.TB, p Params) *Endpoint {
	t.Helper()
	e, err := Resolve(t.Context(), Options{Params: p, Env: hermetic(t), Application: "pg test"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// connect opens a session until the test is over.
func connect(t testing.TB, e *Endpoint, database string) *Conn {
	t.Helper()
	conn, err := e.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// role makes a login role with a password, and returns parameters for it.
func role(t testing.TB, c *pgtest.Cluster, name, attributes string) Params {
	t.Helper()
	c.Exec(t, "postgres", "CREATE ROLE "+pgtest.Quote(name)+" LOGIN PASSWORD 'of "+name+"' "+attributes)
	t.Cleanup(func() { c.Exec(t, "postgres", "DROP ROLE "+pgtest.Quote(name)) })
	return paramsOf(c).With(Params{"user": name, "password": "of " + name})
}

func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Fatalf("error %v (kind %d), want kind %d", err, fault.KindOf(err), kind)
	}
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
		<-tick.C
	}
}
