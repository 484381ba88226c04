package pgtool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"dbbackup/internal/child"
	"dbbackup/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// install makes dir hold programs that answer --version with that version.
func install(t *testing.T, dir, version string, tools ...string) string {
	t.Helper()
	if tools == nil {
		tools = names()
	}
	for _, tool := range tools {
		script(t, filepath.Join(dir, tool), fmt.Sprintf("echo '%s (PostgreSQL) %s (Debian %[2]s-1)'", tool, version))
	}
	return dir
}

func script(t *testing.T, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// host is a machine with 13, 15, 17 below Roots and nothing in PATH.
func host(t *testing.T) (s Search, root string) {
	t.Helper()
	root = t.TempDir()
	for _, v := range []string{"13.4", "15.18", "17.2"} {
		install(t, filepath.Join(root, v[:2], "bin"), v)
	}
	return Search{Path: filepath.Join(root, "empty"), Roots: []string{filepath.Join(root, "*", "bin")}}, root
}

func TestForServerTakesTheServersMajorElseTheNextNewer(t *testing.T) {
	s, root := host(t)
	tests := []struct {
		server int
		want   string
	}{{150001, "15"}, {140000, "15"}, {160003, "17"}, {130022, "13"}, {90624, "13"}}
	for _, tt := range tests {
		got, err := s.ForServer(t.Context(), tt.server)
		if err != nil || got.Dir != filepath.Join(root, tt.want, "bin") {
			t.Errorf("server %d: got %s, %v, want that of %s", tt.server, got.Dir, err, tt.want)
		}
	}
	_, err := s.ForServer(t.Context(), 180000)
	refused(t, err, []string{"18.0"}, "postgresql-client-18")
}

// refused checks for a Precondition whose text and hint name all of that.
func refused(t *testing.T, err error, inText []string, inHint string) {
	t.Helper()
	if !fault.Is(err, fault.Precondition) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, want := range inText {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if hints := strings.Join(fault.Hints(err), "\n"); !strings.Contains(hints, inHint) {
		t.Errorf("hint %q does not name %q", hints, inHint)
	}
}

// T05
func TestAnOlderProgramThatWasChosenIsRefused(t *testing.T) {
	s, root := host(t)
	thirteen, fifteen := filepath.Join(root, "13", "bin"), filepath.Join(root, "15", "bin")
	inPath := s
	inPath.Path = thirteen + ":" + fifteen
	chosen := s
	chosen.BinDir = thirteen
	for name, s := range map[string]Search{"PATH": inPath, "BinDir": chosen} {
		t.Run(name, func(t *testing.T) {
			_, err := s.ForServer(t.Context(), 150018)
			refused(t, err, []string{"13.4", "15.18", filepath.Join(thirteen, PgDump)}, "--pg-bin "+fifteen)
		})
	}
}

// T06
func TestAProgramThatIsNoneIsRefused(t *testing.T) {
	tests := []struct {
		name, want string
		make       func(t *testing.T, path string)
	}{
		{"missing", "no such program", func(*testing.T, string) {}},
		{"not executable", "not executable", func(t *testing.T, path string) {
			script(t, path, "echo pg_dump")
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"another program", "not that of a PostgreSQL program", func(t *testing.T, path string) { symlink(t, "/bin/true", path) }},
		{"another tool", "not that of a PostgreSQL program", func(t *testing.T, path string) {
			script(t, path, "echo 'psql (PostgreSQL) 15.18'")
		}},
		{"says nothing", "not that of a PostgreSQL program", func(t *testing.T, path string) { script(t, path, "exit 0") }},
		{"never ends to talk", "not that of a PostgreSQL program", func(t *testing.T, path string) {
			script(t, path, "while :; do echo y; done")
		}},
		{"fails", "status 3: broken", func(t *testing.T, path string) { script(t, path, "echo broken >&2; exit 3") }},
		{"pg_wrapper", "pg_wrapper", func(t *testing.T, path string) {
			wrapper := filepath.Join(t.TempDir(), "pg_wrapper")
			script(t, wrapper, "echo 'pg_dump (PostgreSQL) 15.18'")
			symlink(t, wrapper, path)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, root := host(t)
			path := filepath.Join(t.TempDir(), PgDump)
			tt.make(t, path)
			s.BinDir = filepath.Dir(path)
			_, err := s.ForServer(t.Context(), 150018)
			refused(t, err, []string{path, tt.want}, filepath.Join(root, "15", "bin"))

			s.BinDir, s.Path = "", filepath.Dir(path)
			got, err := s.ForServer(t.Context(), 150018)
			if passed := tt.name == "missing" || tt.name == "pg_wrapper"; passed {
				if err != nil || got.Dir != filepath.Join(root, "15", "bin") {
					t.Errorf("in PATH: got %s, %v, want the installed one", got.Dir, err)
				}
				return
			}
			refused(t, err, []string{path, tt.want}, filepath.Join(root, "15", "bin"))

			s.Roots = []string{}
			_, err = s.ForServer(t.Context(), 150018)
			refused(t, err, []string{path}, "apt-get install postgresql-client-15")
		})
	}
}

func TestAShimInPathIsUsedWithTheRestOfARealInstallation(t *testing.T) {
	s, root := host(t)
	shim := install(t, t.TempDir(), "15.18", PgDump)
	s.Path = "relative:" + filepath.Join(root, "none") + ":" + shim
	got, err := s.ForServer(t.Context(), 150018)
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(root, "15", "bin")
	want := Tools{
		Dir: shim, Version: Version{15, 18}, Dump: filepath.Join(shim, PgDump),
		DumpAll: filepath.Join(real, PgDumpAll), Restore: filepath.Join(real, PgRestore), Psql: filepath.Join(real, Psql),
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s.Roots = []string{}
	_, err = s.ForServer(t.Context(), 150018)
	refused(t, err, []string{PgDumpAll, shim}, "postgresql-client-15")
}

func TestForArchive(t *testing.T) {
	tests := []struct {
		name           string
		path           string // which of the host's is in PATH
		server, minMaj int
		want           string // "" when refused
	}{
		{"the server's own", "", 150018, 13, "15"},
		{"at least the archive's", "", 130004, 15, "15"},
		{"the next newer than the server", "", 140000, 13, "15"},
		{"older than the server when nothing else is there", "", 180000, 15, "15"},
		{"PATH of the server's version", "15", 150018, 13, "15"},
		{"PATH newer than the server, which has its own", "17", 150018, 15, "15"},
		{"PATH newer than the server, which has none", "17", 140000, 13, "17"},
		{"PATH older than the archive", "13", 150018, 15, ""},
		{"none new enough", "", 150018, 18, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, root := host(t)
			if tt.path != "" {
				s.Path = filepath.Join(root, tt.path, "bin")
			}
			got, err := s.ForArchive(t.Context(), tt.server, tt.minMaj)
			if tt.want == "" {
				refused(t, err, []string{fmt.Sprintf("pg_dump %d", tt.minMaj)}, "")
				return
			}
			if err != nil || got.Dir != filepath.Join(root, tt.want, "bin") {
				t.Errorf("got %s, %v, want that of %s", got.Dir, err, tt.want)
			}
		})
	}
}

func TestAllListsEachInstallationOnce(t *testing.T) {
	s, root := host(t)
	s.Path = filepath.Join(root, "17", "bin")
	symlink(t, "/bin/true", filepath.Join(root, "broken", "bin", PgDump))
	var got []string
	for _, tools := range s.All(t.Context()) {
		got = append(got, tools.Version.String())
	}
	if want := "17.2 13.4 15.18"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestACancelledSearchIsNoVerdict(t *testing.T) {
	s, root := host(t)
	s.BinDir = filepath.Join(root, "15", "bin")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ForServer(ctx, 150018); !errors.Is(err, context.Canceled) || fault.Is(err, fault.Precondition) {
		t.Errorf("got %v", err)
	}
}

// The programs of this machine, as an operator would use them.
func TestTheRealPrograms(t *testing.T) {
	all := Search{}.All(t.Context())
	if len(all) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("no PostgreSQL programs here")
		}
		t.Skip("no PostgreSQL programs here")
	}
	s := Search{Path: os.Getenv("PATH")}
	for _, installed := range all {
		tools, err := s.ForServer(t.Context(), installed.Version.Major*10000)
		if err != nil || tools.Version.Major != installed.Version.Major {
			t.Fatalf("got %+v, %v, want %s", tools, err, installed.Version)
		}
		for _, name := range names() {
			var out bytes.Buffer
			c := tools.Command(name, []string{"--version"}, Environ(nil, nil))
			c.Stdout = &out
			if _, err := child.Run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if v, ok := parseVersion(name, out.String()); !ok || v != installed.Version {
				t.Errorf("%s says %q", name, out.String())
			}
		}
	}
	if _, err := child.Run(t.Context(), all[0].Command("initdb", nil, nil)); err == nil {
		t.Error("a program that is none of the four was run")
	}
}

func TestParseVersion(t *testing.T) {
	tests := []struct {
		output string
		want   Version
		ok     bool
	}{
		{"pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Version{15, 18}, true},
		{"pg_dump (PostgreSQL) 9.6.24\n", Version{9, 6}, true},
		{"pg_dump (PostgreSQL) 18beta1\n", Version{18, 0}, true},
		{"pg_dump (PostgreSQL) 19devel\n", Version{19, 0}, true},
		{"pg_dump (EnterpriseDB) 14.1.0\n", Version{14, 1}, true},
		{"true (GNU coreutils) 9.1\n", Version{}, false},
		{"psql (PostgreSQL) 15.18\n", Version{}, false},
		{"warning\npg_dump (PostgreSQL) 15.18\n", Version{}, false},
		{"pg_dump (PostgreSQL) 99999999999999999999\n", Version{}, false},
		{"", Version{}, false},
	}
	for _, tt := range tests {
		if got, ok := parseVersion(PgDump, tt.output); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %v, %t, want %v, %t", tt.output, got, ok, tt.want, tt.ok)
		}
	}
	if old, server := (Version{9, 4}), VersionOf(90624); !old.olderThan(server) || server.String() != "9.6" {
		t.Errorf("9.4 is older than %s", server)
	}
}

func TestEnviron(t *testing.T) {
	base := []string{
		"PATH=/bin", "DBBACKUP_KEY=secret", "PGDATABASE=other", "LC_ALL=de_DE", "LANGUAGE=de",
		"PGSERVICE=s", "PGHOST=a", "broken", "EMPTY=",
	}
	got := Environ(base, map[string]string{"PGPASSWORD": "p=w\n'", "PGHOST": "b", "PGSERVICE": "", "PGAPPNAME": "dbbackup"})
	want := []string{"EMPTY=", "LANG=C", "LC_ALL=C", "PATH=/bin", "PGAPPNAME=dbbackup", "PGHOST=b", "PGPASSWORD=p=w\n'"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if named := Environ(nil, map[string]string{"PGDATABASE": "a=b"}); !strings.Contains(strings.Join(named, "|"), "PGDATABASE=a=b") {
		t.Errorf("a database that the caller names is lost: %q", named)
	}
}
