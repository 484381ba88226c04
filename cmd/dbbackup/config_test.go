package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// setting is a key of the config file and the other ways to set it. Values are
// as `dbbackup config` prints them.
type setting struct {
	key      string // dotted
	standard string // the default; "*" depends on the host
	inFile   string // YAML
	file     string
	variable [2]string
	flag     []string
	flagged  string
}

func settingsTable() []setting {
	return []setting{
		{"store", "./backups", "/f", "/f", [2]string{"DBBACKUP_STORE", "/e"}, []string{"--store", "/g"}, "/g"},
		{"store_quorum", "1", "2", "2", [2]string{"DBBACKUP_STORE_QUORUM", "3"}, []string{"--store-quorum", "4"}, "4"},
		{"store_patience", "1m", "2m", "2m", [2]string{"DBBACKUP_STORE_PATIENCE", "3m"}, []string{"--store-patience", "4m"}, "4m"},
		{"keep_last", "0", "2", "2", [2]string{"DBBACKUP_KEEP_LAST", "3"}, []string{"--keep-last", "4"}, "4"},
		{"keep_daily", "0", "2", "2", [2]string{"DBBACKUP_KEEP_DAILY", "3"}, []string{"--keep-daily", "4"}, "4"},
		{"keep_weekly", "0", "2", "2", [2]string{"DBBACKUP_KEEP_WEEKLY", "3"}, []string{"--keep-weekly", "4"}, "4"},
		{"keep_monthly", "0", "2", "2", [2]string{"DBBACKUP_KEEP_MONTHLY", "3"}, []string{"--keep-monthly", "4"}, "4"},
		{"keep_yearly", "0", "2", "2", [2]string{"DBBACKUP_KEEP_YEARLY", "3"}, []string{"--keep-yearly", "4"}, "4"},
		{"keep_within", "", "2h", "2h", [2]string{"DBBACKUP_KEEP_WITHIN", "3h"}, []string{"--keep-within", "4h"}, "4h"},
		{"encrypt", "false", "true", "true", [2]string{"DBBACKUP_ENCRYPT", "false"}, []string{"--encrypt"}, "true"},
		{"recipients", "[]", "[a]", "[a]", [2]string{}, []string{"--recipient", "b"}, "[b]"},
		{"recipients_file", "", "/f", "/f", [2]string{"DBBACKUP_RECIPIENTS_FILE", "/e"}, []string{"--recipients-file", "/g"}, "/g"},
		{"sign_with", "", "/f", "/f", [2]string{"DBBACKUP_SIGN_WITH", "/e"}, []string{"--sign-with", "/g"}, "/g"},
		{"keys", "", "/f", "/f", [2]string{"DBBACKUP_KEYS", "/e"}, []string{"--keys", "/g"}, "/g"},
		{"identities", "[]", "[/f]", "[/f]", [2]string{}, []string{"--identity", "/g"}, "[/g]"},
		{"passphrase_file", "", "/f", "/f", [2]string{"DBBACKUP_PASSPHRASE_FILE", "/e"}, []string{"--passphrase-file", "/g"}, "/g"},
		{"trust", "", "/f", "/f", [2]string{"DBBACKUP_TRUST", "/e"}, []string{"--trust", "/g"}, "/g"},
		{"connection.host", "", "fhost", "fhost", [2]string{}, []string{"-h", "ghost"}, "ghost"},
		{"connection.port", "", "5001", "5001", [2]string{}, []string{"-p", "5002"}, "5002"},
		{"connection.user", "", "fuser", "fuser", [2]string{}, []string{"-U", "guser"}, "guser"},
		{"connection.database", "", "fdb", "fdb", [2]string{}, []string{"-d", "gdb"}, "gdb"},
		{"connection.sslmode", "", "require", "require", [2]string{}, []string{"-d", "sslmode=verify-full"}, "verify-full"},
		{"pg_bin", "", "/f", "/f", [2]string{"DBBACKUP_PG_BIN", "/e"}, []string{"--pg-bin", "/g"}, "/g"},
		{"mode", "auto", "plain", "plain", [2]string{"DBBACKUP_MODE", "custom"}, []string{"--mode", "directory"}, "directory"},
		{"chunked_over", "5GB", "1GB", "1GB", [2]string{"DBBACKUP_CHUNKED_OVER", "2GB"}, []string{"--chunked-over", "3GB"}, "3GB"},
		{"chunk_size", "1GB", "64MB", "64MB", [2]string{"DBBACKUP_CHUNK_SIZE", "32MB"}, []string{"--chunk-size", "8MB"}, "8MB"},
		{"copy_format", "auto", "binary", "binary", [2]string{"DBBACKUP_COPY_FORMAT", "auto"}, []string{"--copy-format", "binary"}, "binary"},
		{"incremental", "false", "true", "true", [2]string{"DBBACKUP_INCREMENTAL", "false"}, []string{"--incremental"}, "true"},
		{"max_rate", "0", "10MB", "10MB", [2]string{"DBBACKUP_MAX_RATE", "20MB"}, []string{"--max-rate", "30MB"}, "30MB"},
		{"max_connections", "0", "10", "10", [2]string{"DBBACKUP_MAX_CONNECTIONS", "11"}, []string{"--max-connections", "12"}, "12"},
		{"max_replication_lag", "0", "1GB", "1GB", [2]string{"DBBACKUP_MAX_REPLICATION_LAG", "2GB"}, []string{"--max-replication-lag", "3GB"}, "3GB"},
		{"max_snapshot_age", "0s", "1h", "1h", [2]string{"DBBACKUP_MAX_SNAPSHOT_AGE", "2h"}, []string{"--max-snapshot-age", "3h"}, "3h"},
		{"yield_to_ddl", "false", "true", "true", [2]string{"DBBACKUP_YIELD_TO_DDL", "false"}, []string{"--yield-to-ddl"}, "true"},
		{"compression", "auto", "1", "1", [2]string{"DBBACKUP_COMPRESSION", "2"}, []string{"-Z", "0"}, "0"},
		{"timeout", "2h", "3h", "3h", [2]string{"DBBACKUP_TIMEOUT", "1h30m"}, []string{"--timeout", "0"}, "0s"},
		{"stall_timeout", "15m", "1m", "1m", [2]string{"DBBACKUP_STALL_TIMEOUT", "2m"}, []string{"--stall-timeout", "3m"}, "3m"},
		{"lock_timeout", "1m", "5s", "5s", [2]string{"DBBACKUP_LOCK_TIMEOUT", "6s"}, []string{"--lock-timeout", "7s"}, "7s"},
		{"skip_large_objects", "false", "true", "true", [2]string{"DBBACKUP_SKIP_LARGE_OBJECTS", "false"}, []string{"--skip-large-objects"}, "true"},
		{"exclude_tables", "[]", "[a, b]", "[a b]", [2]string{}, nil, ""},
		{"parallel_databases", "*", "3", "3", [2]string{"DBBACKUP_PARALLEL_DATABASES", "4"}, []string{"--parallel-databases", "5"}, "5"},
		{"jobs", "*", "3", "3", [2]string{"DBBACKUP_JOBS", "4"}, []string{"-j5"}, "5"},
		{"attempts", "3", "4", "4", [2]string{"DBBACKUP_ATTEMPTS", "5"}, []string{"--attempts", "6"}, "6"},
		{"exclude_databases", "[]", "[x]", "[x]", [2]string{}, []string{"--exclude-db", "y", "--exclude-db", "z"}, "[y z]"},
		{"metrics_file", "", "/f", "/f", [2]string{"DBBACKUP_METRICS_FILE", "/e"}, []string{"--metrics-file", "/g"}, "/g"},
		{"log_format", "text", "json", "json", [2]string{"DBBACKUP_LOG_FORMAT", "text"}, []string{"--log-format", "json"}, "json"},
		{"hooks.before", "[]", "[/f, -x]", "[/f -x]", [2]string{"DBBACKUP_BEFORE_HOOK", "/e"}, []string{"--before-hook", "/g h"}, "[/g h]"},
		{"hooks.after", "[]", "[/f]", "[/f]", [2]string{"DBBACKUP_AFTER_HOOK", "/e"}, []string{"--after-hook", "/g"}, "[/g]"},
		{"hooks.timeout", "10m", "1m", "1m", [2]string{"DBBACKUP_HOOK_TIMEOUT", "2m"}, []string{"--hook-timeout", "3s"}, "3s"},
		{"databases", "map[]", "{app: {mode: plain, timeout: 8h}}", "map[app:map[mode:plain timeout:8h]]", [2]string{}, nil, ""},
	}
}

// TestFlagBeatsEnvironmentBeatsFileBeatsDefault tries every key of the config
// file in every way, one way more at a time.
func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	standard := effective(t, os.DevNull)
	for _, s := range settingsTable() {
		t.Run(s.key, func(t *testing.T) {
			if got := standard(s.key); got != s.standard && s.standard != "*" {
				t.Errorf("default: got %q, want %q", got, s.standard)
			}
			file := configFile(t, nested(s.key, s.inFile))
			if got := effective(t, file)(s.key); got != s.file {
				t.Errorf("from the file: got %q, want %q", got, s.file)
			}
			if name, value := s.variable[0], s.variable[1]; name != "" {
				t.Setenv(name, value)
				if got := strings.Trim(effective(t, file)(s.key), "[]"); got != value {
					t.Errorf("from %s: got %q, want %q", name, got, value)
				}
			}
			if s.flag != nil {
				if got := effective(t, file, s.flag...)(s.key); got != s.flagged {
					t.Errorf("from the flag: got %q, want %q", got, s.flagged)
				}
			}
		})
	}
}

// TestEveryKeyIsInTheTable keeps the table above complete.
func TestEveryKeyIsInTheTable(t *testing.T) {
	var got []string
	for _, s := range settingsTable() {
		got = append(got, s.key)
	}
	want := keysOf(reflect.TypeFor[config](), "")
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-keys of the file +table):\n%s", diff)
	}
}

func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			keys = append(keys, keysOf(f.Type, prefix)...)
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, keysOf(f.Type, prefix+name+".")...)
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

func nested(key, value string) string {
	if outer, inner, ok := strings.Cut(key, "."); ok {
		return fmt.Sprintf("%s: {%s: %s}\n", outer, inner, value)
	}
	return key + ": " + value + "\n"
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// effective runs `dbbackup config` and returns a look-up of what it prints.
func effective(t *testing.T, file string, args ...string) func(key string) string {
	t.Helper()
	got := usedInProcess(append([]string{"config", "--config", file}, args...)...)
	if got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	var all map[string]any
	if err := yaml.Unmarshal([]byte(got.stdout), &all); err != nil {
		t.Fatalf("what config prints: %v\n%s", err, got.stdout)
	}
	return func(key string) string {
		outer, inner, ok := strings.Cut(key, ".")
		value, found := all[outer]
		if section, isMap := value.(map[string]any); ok && isMap {
			value, found = section[inner]
		}
		if !found {
			t.Fatalf("config prints no %s", key)
		}
		return fmt.Sprint(value)
	}
}

func TestPgVariablesBeatTheConfigFile(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	file := configFile(t, "connection: {host: nowhere.invalid, port: 1, user: nobody, sslmode: require}\n")
	env := append(server.Env(), "PGSSLMODE=disable", "DBBACKUP_CONFIG="+file)
	dbbackup(t, env, "probe", "--json").want(t, 0)
}

func TestPrintedConfigReadsBackTheSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text string }{
		{"nothing", ""},
		{"much", `
store: "/srv/my backups"
connection: {host: db1, port: 5433, user: "o'brien", database: "a b", sslmode: require}
chunked_over: 1.5GB
timeout: 1h30m
stall_timeout: 0
exclude_tables: ["audit.*", '"Odd"']
exclude_databases: [test_*]
hooks: {before: [/bin/echo, "a  b", "$(x)"], timeout: 30s}
databases:
  "bigdb: x": {mode: plain, timeout: 8h, compression: 0, chunked_over: 10GB, stall_timeout: 1h, lock_timeout: 5s, skip_large_objects: true, exclude_tables: [a]}
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := usedInProcess("config", "--config", configFile(t, tt.text))
			first.want(t, 0)
			second := usedInProcess("config", "--config", configFile(t, first.stdout))
			second.want(t, 0)
			if diff := cmp.Diff(first.stdout, second.stdout); diff != "" {
				t.Errorf("(-printed +printed after reading that):\n%s", diff)
			}
		})
	}
}

func TestSampleConfigIsRead(t *testing.T) {
	t.Parallel()
	sample, err := os.ReadFile("../../scripts/config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// The commented example of a database counts, too.
	head, example, found := strings.Cut(strings.Replace(string(sample), "databases: {}\n", "", 1), "# databases:\n")
	if !found {
		t.Fatal("the sample has no example of a database")
	}
	value := effective(t, configFile(t, head+"databases:\n"+strings.ReplaceAll(example, "# ", "")))
	for key, want := range map[string]string{
		"store": "/var/backups/dbbackup", "mode": "auto", "compression": "auto", "timeout": "2h",
		"databases": "map[bigdb:map[compression:4 exclude_tables:[audit.*] mode:plain timeout:8h]]",
	} {
		if got := value(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if strings.Contains(strings.ToLower(string(sample)), "password:") {
		t.Error("the sample shows where to write a password")
	}
	for _, key := range keysOf(reflect.TypeFor[config](), "") {
		if _, last, ok := strings.Cut(key, "."); ok {
			key = last
		}
		switch key {
		case "pg_bin", "attempts", "skip_large_objects": // not for beginners
			continue
		}
		if !strings.Contains(string(sample), key+":") {
			t.Errorf("the sample lacks %s", key)
		}
	}
}

func TestBadConfigFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "store: /b\nretenton: 5\n", `line 2: unknown key "retenton"`},
		{"unknown key of a database", "databases:\n  app:\n    mod: plain\n", `line 3: unknown key "mod"`},
		{"unknown key of the hooks", "hooks:\n  befor: [x]\n", `line 2: unknown key "befor"`},
		{"two unknown keys", "a: 1\nb: 2\n", `line 1: unknown key "a"; line 2: unknown key "b"`},
		{"number that is none", "jobs: many\n", "line 1: cannot unmarshal !!str `many` into int"},
		{"the same key twice", "jobs: 1\njobs: 2\n", `mapping key "jobs" already defined at line 1`},
		{"two documents", "jobs: 1\n---\njobs: 2\n", "more than one document"},
		{"no YAML", "store: [\n", "line "},
		{"mode", "databases: {app: {mode: fast}}\n", `database app: unknown mode "fast"`},
		{"time", "databases: {app: {timeout: soon}}\n", `"soon" is not a time`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := usedInProcess("config", "--config", configFile(t, tt.text))
			got.want(t, exitUsage, tt.want)
			if strings.Contains(got.stderr, "main.") {
				t.Errorf("the error names a type of the program: %s", got.stderr)
			}
		})
	}
	usedInProcess("config", "--config", filepath.Join(t.TempDir(), "none")).want(t, exitUsage, "no such file", "--config")
}

func TestConfigFileThatOthersMayWriteIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o666, 0o620, 0o602} {
		file := configFile(t, "")
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		usedInProcess("config", "--config", file).want(t, exitPrecondition, "can be changed by others", "chmod go-w "+file)
	}
	file := configFile(t, "")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	usedInProcess("config", "--config", file).want(t, 0)
}

func TestPrintedConfigHoldsNoPassword(t *testing.T) {
	t.Parallel()
	for _, connection := range []string{
		"postgresql://me:canary@db1/app?sslrootcert=/ca", "host=db1 user=me password=canary dbname=app sslrootcert=/ca",
	} {
		got := usedInProcess("config", "--config", os.DevNull, "-d", connection)
		got.want(t, 0, "not printed", `parameters="password sslrootcert"`)
		if strings.Contains(got.stdout+got.stderr, "canary") {
			t.Errorf("the password is printed:\n%s%s", got.stdout, got.stderr)
		}
		if !strings.Contains(got.stdout, "host: db1") {
			t.Errorf("standard output: got %s, want the host in it", got.stdout)
		}
	}
}

func TestCompressionIsCappedWithOneNotice(t *testing.T) {
	t.Parallel()
	file := configFile(t, "databases: {a: {compression: 9}, b: {compression: 7}}\n")
	for _, tt := range []struct {
		level, want string
		notices     int
	}{{"9", "6", 1}, {"7", "6", 1}, {"6", "6", 0}, {"1", "1", 0}, {"0", "0", 0}} {
		got := usedInProcess("config", "--config", file, "--compression", tt.level)
		got.want(t, 0)
		if n := strings.Count(got.stderr, "compression levels above 6"); n != tt.notices {
			t.Errorf("level %s: got %d notices, want %d:\n%s", tt.level, n, tt.notices, got.stderr)
		}
		if !strings.Contains(got.stdout, "\ncompression: "+tt.want+"\n") {
			t.Errorf("level %s: got\n%s\nwant compression: %s", tt.level, got.stdout, tt.want)
		}
	}
}

func TestSectionsOfTheConfigFile(t *testing.T) {
	t.Parallel()
	server := shared.Start(t)
	plain, custom := server.Database(t), server.Database(t)
	for _, db := range []string{plain, custom} {
		server.Exec(t, db, "CREATE TABLE kept AS SELECT 1 a; CREATE TABLE scratch AS SELECT 2 a")
	}
	file := configFile(t, fmt.Sprintf(`
mode: custom
exclude_databases: [postgres, template1, "nobody*"]
exclude_tables: [nosuch]
databases:
  %s: {mode: plain, compression: 0}
  %s: {exclude_tables: [public.scratch]}
  gone: {mode: plain}
`, plain, custom))
	env := append(server.Env(), "DBBACKUP_CONFIG="+file)
	store := newStore(t)
	got := dbbackup(t, env, "backup", "cluster", "--store", store)
	got.must(t, exitOK).want(t, exitOK, "settings for a database that does not exist", "database=gone")
	if strings.Count(got.stderr, "does not exist") != 1 {
		t.Errorf("standard error: got %s, want one database that does not exist", got.stderr)
	}
	shown := dbbackup(t, nil, "show", "latest", "--json", "--store", store).must(t, 0)
	var set struct {
		Databases []struct {
			Name, Mode, Compression string
			Selection               *struct{ Selected []string }
		}
	}
	shown.decode(t, &set)
	for _, d := range set.Databases {
		switch {
		case d.Name == plain && (d.Mode != "plain" || d.Compression != "none" || d.Selection != nil):
			t.Errorf("got %+v, want all of it, plain, not compressed", d)
		case d.Name == custom && (d.Mode != "custom" || d.Compression != "gzip:6" || d.Selection == nil ||
			!slices.Equal(d.Selection.Selected, []string{`"public"."kept"`})):
			t.Errorf("got %+v, want custom without the table scratch", d)
		}
	}
	if len(set.Databases) != 2 {
		t.Errorf("got %d databases, want 2", len(set.Databases))
	}
}
