package throwaway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtool"
)

// dirVar makes the test binary start a server there and wait to be killed.
const dirVar = "THROWAWAY_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirVar); dir != "" {
		os.Exit(victim(dir))
	}
	goleak.VerifyTestMain(m)
}

// victim starts a server, keeps one of its backends busy, and says where it is.
func victim(dir string) int {
	bin, err := pgtest.FindBinDir(0)
	if err != nil {
		return 9
	}
	major, err := majorIn(bin)
	if err != nil {
		return 9
	}
	s, err := Start(context.Background(), Options{BinDir: bin, Major: major, Dir: dir, Env: os.Environ()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	conn, err := connect(context.Background(), s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	fmt.Printf("%d %s\n", s.process.PID(), s.folder.path)
	_ = conn.Exec(context.Background(), "sleep", "SELECT pg_sleep(600)")
	time.Sleep(time.Hour)
	return 0
}

func majorIn(bin string) (int, error) {
	programs, err := pgtool.Search{}.ServerIn(context.Background(), bin)
	return programs.Version.Major, err
}

// options are those of a server below a folder of the test's own.
func options(t *testing.T) Options {
	t.Helper()
	bin := pgtest.BinDir(t, 0)
	major, err := majorIn(bin)
	if err != nil {
		t.Fatal(err)
	}
	return Options{BinDir: bin, Major: major, Dir: reachable(t), Env: os.Environ()}
}

// reachable is a t.TempDir that the server's user may enter.
func reachable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func connect(ctx context.Context, s *Server) (*pg.Conn, error) {
	e, err := pg.Resolve(ctx, pg.Options{Params: s.Params(), Env: s.Env(), Application: "throwaway test"})
	if err != nil {
		return nil, err
	}
	return e.Connect(ctx, e.Database)
}

// exec runs statements in a session of their own.
func exec(t *testing.T, s *Server, statements ...string) {
	t.Helper()
	conn, err := connect(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range statements {
		err = errors.Join(err, conn.Exec(t.Context(), "test", sql))
	}
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// left are the entries of a folder.
func left(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
