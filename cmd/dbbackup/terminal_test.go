package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// barLine is a bar: name, bar, percent, bytes, rate and time left.
var barLine = regexp.MustCompile(`(?m)^.{18} \[[=> ]{10,}\] `)

func TestBackupOnATerminal(t *testing.T) {
	t.Parallel()
	server := shared.Start(t)
	long := "a_name_that_is_longer_than_any_column_of_the_table"
	for _, db := range []string{"first", "second", long} {
		server.CreateDatabase(t, db)
		server.Exec(t, db, "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g")
	}
	holder := server.Connect(t, "first")
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE t"); err != nil {
		t.Fatal(err)
	}
	store := newStore(t)
	s := startOnScreen(t, server.Env(), "backup", "cluster", "--store", store, "--parallel-databases", "2")
	eventually(t, "only the database that waits has a bar, and the total", func() bool {
		bars := barLine.FindAllString(s.text(), -1)
		return len(bars) == 2 && strings.HasPrefix(bars[0], "first ") && strings.HasPrefix(bars[1], "total ") &&
			strings.Count(s.text(), "info  done  ") == 4
	})
	if screen := s.text(); strings.LastIndex(screen, "info  ") > barLine.FindStringIndex(screen)[0] {
		t.Errorf("a log line stands below a bar:\n%s", screen)
	}
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	code, screen := s.wait(t)
	if code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if bars := barLine.FindAllString(screen, -1); len(bars) > 0 {
		t.Errorf("bars are left: %q", bars)
	}
	wantTable(t, screen, "DATABASE", "a_name_that_is_lo…", "first", "second")
	if shown := dbbackup(t, nil, "show", "latest", "--json", "--store", store).must(t, 0).stdout; !strings.Contains(shown, `"`+long+`"`) {
		t.Errorf("the JSON does not have the whole name %s", long)
	}
}

// wantTable checks that lines of a table are there, each on a line of its own:
// a terminal would have broken what is too long.
func wantTable(t *testing.T, screen string, firstWords ...string) {
	t.Helper()
	for _, word := range firstWords {
		line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(word) + ` .*(RESULT|ok)$`)
		if !line.MatchString(screen) {
			t.Errorf("screen: want a line of the table that begins with %q:\n%s", word, screen)
		}
	}
}

func TestRestoreOnATerminalAsks(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	server.Exec(t, db, "CREATE TABLE t AS SELECT 'of the set' a")
	dbbackup(t, server.Env(), "backup", "single", db, "--store", store).must(t, 0)
	server.Exec(t, db, "UPDATE t SET a = 'newer'")
	for _, tt := range []struct {
		answer string
		code   int
		want   string
	}{{"no\n", exitUsage, "newer"}, {"y\n", exitUsage, "newer"}, {"\x04", exitUsage, "newer"}, {"\x03", exitInterrupted, "newer"}, {"yes\n", exitOK, "of the set"}} {
		s := startOnScreen(t, server.Env(), "restore", "single", db, "--store", store, "--clean")
		eventually(t, "the question is asked", s.shows("Type yes to go on:"))
		if !s.shows("\n  "+db+"\n", "will be replaced", "system identifier")() {
			t.Errorf("the question does not say what it is about:\n%s", s.text())
		}
		s.enter(t, tt.answer)
		if code, _ := s.wait(t); code != tt.code {
			t.Errorf("answer %q: got exit code %d, want %d", tt.answer, code, tt.code)
		}
		if got := server.QueryString(t, db, "SELECT a FROM t"); got != tt.want {
			t.Errorf("answer %q: the database holds what is %s, want %s", tt.answer, got, tt.want)
		}
	}
}

// withoutPassword is an environment in which only a person can give it.
func withoutPassword(server *pgtest.Cluster) []string {
	return slices.DeleteFunc(server.Env(), func(kv string) bool { return strings.HasPrefix(kv, "PGPASSWORD=") })
}

func TestPasswordIsAskedForOnce(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	store := newStore(t)
	s := startOnScreen(t, withoutPassword(server), "backup", "single", server.Database(t), "--store", store)
	eventually(t, "the password is asked for", s.shows("Password:"))
	if s.echoes(t) {
		t.Error("the question stands before the terminal is silent")
	}
	s.enter(t, server.Password+"\n")
	code, screen := s.wait(t)
	if code != 0 || strings.Count(screen, "Password:") != 1 || strings.Contains(screen, server.Password) {
		t.Errorf("exit code %d, want 0, one question and no password on the screen", code)
	}
}

func TestPasswordSwitches(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	t.Run("-w never asks", func(t *testing.T) {
		code, screen := startOnScreen(t, withoutPassword(server), "probe", "-w").wait(t)
		if code != exitPrecondition || strings.Contains(screen, "Password:") || !strings.Contains(screen, "none was given") {
			t.Errorf("exit code %d, want %d and no question", code, exitPrecondition)
		}
	})
	t.Run("-W asks first", func(t *testing.T) {
		s := startOnScreen(t, server.Env(), "probe", "-W")
		eventually(t, "the password is asked for", s.shows("Password:"))
		s.enter(t, "wrong\n")
		if code, screen := s.wait(t); code != exitPrecondition || strings.Count(screen, "Password:") != 1 {
			t.Errorf("exit code %d, want %d after one question", code, exitPrecondition)
		}
	})
	t.Run("Ctrl-C at the question", func(t *testing.T) {
		s := startOnScreen(t, server.Env(), "probe", "-W")
		eventually(t, "the terminal is silent", func() bool { return !s.echoes(t) })
		s.enter(t, "\x03")
		eventually(t, "the terminal shows what is typed", func() bool { return s.echoes(t) })
		if code, _ := s.wait(t); code != exitInterrupted {
			t.Errorf("got exit code %d, want %d", code, exitInterrupted)
		}
	})
	t.Run("not on a terminal", func(t *testing.T) {
		dbbackup(t, withoutPassword(server), "probe").want(t, exitPrecondition, "none was given", "~/.pgpass")
		dbbackup(t, server.Env(), "probe", "-W").want(t, exitUsage, "only be asked for on a terminal")
	})
}

// TestCronGetsPlainLines: off a terminal there are lines with a date, no
// escape codes and no questions.
func TestCronGetsPlainLines(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	got := dbbackup(t, server.Env(), "backup", "single", db, "--store", store, "--compression", "9")
	got.must(t, 0)
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (info |warn ) \S.*$`)
	for _, text := range strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n") {
		if !line.MatchString(text) || strings.ContainsAny(text, "\x1b\r") {
			t.Errorf("standard error: got line %q", text)
		}
	}
	got.want(t, 0, "info  capture begins  database="+db+"  mode=custom  why=")
	wantTable(t, got.stdout, "DATABASE", db)

	quiet := dbbackup(t, server.Env(), "backup", "single", db, "--store", store, "--compression", "9", "--quiet")
	quiet.want(t, 0, "warn  compression levels above 6")
	if strings.Count(quiet.stderr, "\n") != 1 {
		t.Errorf("standard error with --quiet: got %q, want the warning only", quiet.stderr)
	}
	wantTable(t, quiet.stdout, "DATABASE", db)
}
