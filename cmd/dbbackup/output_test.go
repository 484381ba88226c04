package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// pages returns the path of every help page.
func pages() [][]string {
	all := [][]string{{}, {"backup"}, {"restore"}}
	for _, c := range newApplication(process{}).cli.Commands {
		for _, l := range leaves(c) {
			all = append(all, strings.Fields(l.path))
		}
	}
	return all
}

func TestHelpPages(t *testing.T) {
	t.Parallel()
	if n := len(pages()); n < 14 {
		t.Fatalf("got %d pages, want all", n)
	}
	for _, path := range pages() {
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			// --help wins over everything else on the line.
			got := usedInProcess(append(slices.Clone(path), "--help", "x", "y")...)
			got.want(t, exitOK)
			if got.stderr != "" || !strings.Contains(got.stdout, "Usage: dbbackup "+strings.Join(path, " ")) {
				t.Errorf("got %q on standard error and\n%s", got.stderr, got.stdout)
			}
			if isLeaf := len(path) > 0 && !slices.Contains([]string{"backup", "restore"}, strings.Join(path, " ")); isLeaf &&
				!strings.Contains(got.stdout, "Examples:\n  ") {
				t.Errorf("the page has no example:\n%s", got.stdout)
			}
			wantNarrow(t, got.stdout)
		})
	}
	alone := usedInProcess()
	if want := usedInProcess("--help"); alone != want {
		t.Errorf("dbbackup alone: got %+v, want its help", alone)
	}
}

// TestExamplesAreValid parses every example of the help pages.
func TestExamplesAreValid(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, c := range newApplication(process{}).cli.Commands {
		for _, l := range leaves(c) {
			for _, example := range strings.Split(l.command.Description, "\n") {
				rest, ok := strings.CutPrefix(example, "dbbackup ")
				if !ok {
					continue // a line of the shell's
				}
				seen++
				rest, _, _ = strings.Cut(strings.ReplaceAll(rest, "'", ""), " > ")
				got := usedInProcess(append(strings.Fields(rest), "--help")...)
				got.want(t, exitOK)
				app := newApplication(process{}).cli
				line := reorder(app, strings.Fields("dbbackup "+rest))
				if path := strings.Join(line.path[1:], " "); path != l.path {
					t.Errorf("example %q is of %q, want %q", example, path, l.path)
				}
				known := flagNames(l.command, app)
				for _, word := range line.flags {
					if name, _, _ := strings.Cut(word, "="); strings.HasPrefix(name, "--") && !slices.Contains(known, name) {
						t.Errorf("example %q: the command has no flag %s", example, name)
					}
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("got %d examples, want one or two for each command", seen)
	}
}

// wantNarrow checks that a text fits a terminal of 80 columns.
func wantNarrow(t *testing.T, text string) {
	t.Helper()
	for _, line := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(line) >= screenColumns {
			t.Errorf("line of %d columns: %q", utf8.RuneCountInString(line), line)
		}
	}
}

// TestJSONOutput runs every command with --json: standard output holds one
// JSON object per line and nothing else, also when a command fails. With
// --log-format json the same holds for standard error.
func TestJSONOutput(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	server.Exec(t, db, "CREATE TABLE t AS SELECT 1 a")
	hook, _ := hookProgram(t, "echo out; echo err >&2")
	for _, tt := range []struct {
		name  string
		code  int
		lines int // at least
		args  []string
	}{
		{"backup", 0, 1, []string{"backup", "single", db, "--compression", "9", "--before-hook", hook}},
		{"failed backup", 10, 1, []string{"backup", "single", "nosuchdb"}},
		{"list", 0, 1, []string{"list"}},
		{"show", 0, 1, []string{"show", "latest"}},
		{"verify", 0, 1, []string{"verify"}},
		{"dry run", 0, 1, []string{"restore", "single", db, "--target-db", db + "_dry", "--dry-run"}},
		{"restore", 0, 1, []string{"restore", "single", db, "--target-db", db + "_new"}},
		{"refused restore", 14, 0, []string{"restore", "single", db}},
		{"probe", 0, 1, []string{"probe", "--exclude-db"}},
		{"doctor", 0, 5, []string{"doctor"}},
		{"version", 0, 1, []string{"version"}},
		{"no such store", 10, 0, []string{"list", "--store", "/nonexistent"}},
		{"usage", 2, 0, []string{"show", "one", "two"}},
		{"usage of the parser", 2, 0, []string{"show", "--bogus"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append(slices.DeleteFunc(tt.args, func(a string) bool { return a == "--exclude-db" }), "--json", "--log-format", "json")
			if !slices.Contains(args, "--store") {
				args = append(args, "--store", store)
			}
			got := dbbackup(t, server.Env(), args...)
			got.want(t, tt.code)
			if n := wantJSONLines(t, got.stdout); n < tt.lines {
				t.Errorf("standard output: got %d lines, want %d", n, tt.lines)
			}
			n := wantJSONLines(t, got.stderr, "time", "level", "msg")
			if tt.code != 0 && (n == 0 || !strings.Contains(got.stderr, `"level":"error"`)) {
				t.Errorf("standard error: got %s, want the error in it", got.stderr)
			}
		})
	}
	if dry := server.QueryString(t, "postgres", "SELECT count(*) FROM pg_database WHERE datname = '"+db+"_dry'"); dry != "0" {
		t.Error("the dry run made the database")
	}
	server.DropDatabase(t, db+"_new")
}

func wantJSONLines(t *testing.T, text string, keys ...string) int {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		return 0
	}
	for _, line := range lines {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Errorf("line %q: %v", line, err)
		}
		for _, key := range keys {
			if _, ok := object[key]; !ok {
				t.Errorf("line %q: no %s", line, key)
			}
		}
	}
	return len(lines)
}

// TestDoctor names everything that is wrong at once, on lines that fit.
func TestDoctor(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	locked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(locked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		want []string
	}{
		{"sound", nil, nil, 0, []string{"ok       server: PostgreSQL ", "ok       tools: pg_dump ", "the first backup makes it"}},
		{"wrong password", []string{"PGPASSWORD=wrong"}, nil, exitPrecondition, []string{"problem  server: ", "password authentication failed", "~/.pgpass"}},
		{"server down", []string{"PGPORT=1"}, []string{"-d", "connect_timeout=1"}, exitPrecondition, []string{"problem  server: ", "connection refused"}},
		{"no tools", nil, []string{"--pg-bin", "/nonexistent"}, exitPrecondition, []string{"ok       server: ", "problem  tools: "}},
		{"store is a file", nil, []string{"--store", locked}, exitPrecondition, []string{"problem  store: "}},
		{"several things", nil, []string{"--pg-bin", "/nonexistent", "--store", locked}, exitPrecondition, []string{"problem  tools: ", "problem  store: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := dbbackup(t, append(server.Env(), tt.env...), append([]string{"doctor"}, tt.args...)...)
			got.want(t, tt.code)
			flat := strings.Join(strings.Fields(got.stdout), " ")
			for _, want := range tt.want {
				if !strings.Contains(flat, strings.Join(strings.Fields(want), " ")) {
					t.Errorf("standard output: got\n%s\nwant %q in it", got.stdout, want)
				}
			}
			wantNarrow(t, withoutLongWords(got.stdout))
			if last := strings.LastIndex(got.stdout, "\nok  "); tt.code != 0 && last > strings.Index(got.stdout, "\nproblem  ") {
				t.Errorf("a problem stands above what is fine:\n%s", got.stdout)
			}
		})
	}
}

// withoutLongWords leaves out lines that are one path or address.
func withoutLongWords(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return slices.ContainsFunc(strings.Fields(line), func(word string) bool { return len(word) > 50 })
	}), "\n")
}

func TestProbeFitsTheScreen(t *testing.T) {
	t.Parallel()
	server := shared.Start(t)
	long := strings.Repeat("long_name_", 6)
	server.CreateDatabase(t, long)
	server.Exec(t, long, `CREATE TABLE "a table with a name that is longer than its column" AS SELECT 1`)
	server.Exec(t, "postgres", "CREATE ROLE weak LOGIN PASSWORD 'weak'")
	got := dbbackup(t, server.Env(), "probe")
	got.want(t, 0)
	wantNarrow(t, withoutLongWords(got.stdout))
	if !strings.Contains(got.stdout, "long_name_long_name_long_…") {
		t.Errorf("standard output: got\n%s\nwant the name shortened", got.stdout)
	}
	weak := dbbackup(t, append(server.Env(), "PGUSER=weak", "PGPASSWORD=weak"), "probe")
	weak.want(t, 0)
	wantNarrow(t, withoutLongWords(weak.stdout))
	if !strings.Contains(weak.stdout, "FAILS: database "+long+": role weak") && !strings.Contains(strings.Join(strings.Fields(weak.stdout), " "), "role weak may not read") {
		t.Errorf("standard output: got\n%s\nwant what a weak role cannot read", weak.stdout)
	}
}

// TestBashCompletes sources the script in a real bash, which then asks the
// real program.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	server := shared.Cluster(t)
	store := newStore(t)
	dbbackup(t, server.Env(), "backup", "single", "postgres", "--store", store).must(t, 0)
	set := onlySet(t, store)
	const script = `source <(dbbackup completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dbbackup; printf '%s\n' "${COMPREPLY[@]}"`
	for _, tt := range []struct {
		line []string
		want []string
		only bool
	}{
		{[]string{""}, []string{"backup", "restore", "verify", "doctor"}, false},
		{[]string{"ba"}, []string{"backup"}, true},
		{[]string{"backup", ""}, []string{"cluster", "single"}, true},
		{[]string{"backup", "s"}, []string{"single"}, true},
		{[]string{"backup", "cluster", "--exclude"}, []string{"--exclude-db"}, true},
		{[]string{"restore", "single", "app", "--target"}, []string{"--target-db"}, true},
		{[]string{"list", "--mo"}, nil, true},
		{[]string{"backup", "cluster", "--mode", ""}, []string{"auto", "custom", "plain", "directory", "chunked"}, true},
		{[]string{"backup", "cluster", "--mode", "=", "pl"}, []string{"plain"}, true},
		{[]string{"backup", "cluster", "--mode", "="}, []string{"auto", "custom", "plain", "directory", "chunked"}, true},
		{[]string{"backup", "cluster", "--store", "/"}, nil, true},
		{[]string{"show", "--store", store, "post"}, []string{set}, true},
		{[]string{"restore", "single", "x", "--store", store, "--set", "l"}, []string{"latest"}, true},
		{[]string{"completion", ""}, []string{"bash", "zsh"}, true},
	} {
		t.Run(strings.Join(tt.line, " "), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), bash, append([]string{"--norc", "-c", script, "bash", "dbbackup"}, tt.line...)...)
			cmd.Env = hermeticEnv(t)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := strings.Fields(string(out))
			if tt.only && !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for _, want := range tt.want {
				if !slices.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}
		})
	}
}

func TestZshScriptIsValid(t *testing.T) {
	t.Parallel()
	zsh, err := exec.LookPath("zsh")
	if err != nil {
		t.Skip("zsh is not installed")
	}
	cmd := exec.CommandContext(t.Context(), zsh, "-n")
	cmd.Stdin = strings.NewReader(zshCompletion)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
