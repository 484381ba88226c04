package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/pgtest"
)

// spy makes programs that stand in front of PostgreSQL's own, note their
// arguments and how many they are, and go on. It returns the folder of notes.
func spy(t *testing.T, c *pgtest.Cluster) (env []string, notes string) {
	t.Helper()
	dir, notes := t.TempDir(), t.TempDir()
	for _, tool := range []string{"pg_dump", "pg_dumpall", "pg_restore", "psql"} {
		text := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] || cat /proc/$$/cmdline > %s/%s.$$\nexec %s/%s \"$@\"\n", notes, tool, c.BinDir, tool)
		writeFile(t, filepath.Join(dir, tool), []byte(text), 0o700)
	}
	return []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, notes
}

// watchArguments looks for a text in the arguments of every process of the
// machine until the returned function is called, which returns those found.
func watchArguments(text string) (stop func() []string) {
	done, found := make(chan struct{}), make(chan []string)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var all []string
		for {
			paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range paths {
				if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(text)) {
					all = append(all, strings.ReplaceAll(string(line), "\x00", " "))
				}
			}
			select {
			case <-done:
				found <- all
				return
			case <-tick.C:
			}
		}
	}()
	return func() []string {
		close(done)
		return <-found
	}
}

// wantAbsent checks that no file below a folder holds any of the texts, with
// exceptions for some, and that there are files at all.
func wantAbsent(t *testing.T, folder string, texts []string, except func(name, text string) bool) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		name, _ := filepath.Rel(folder, path)
		content := readFile(t, path)
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) && (except == nil || !except(name, text)) {
				t.Errorf("%s holds %s", name, text)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files in %s: %v", files, folder, err)
	}
}

// T94: a password is nowhere but where it must be, and a secret in a setting
// only in files for the owner.
func TestT94SecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	const password, setting = "CanaryPassword4711", "CanarySetting4712"
	c := shared.Start(t)
	c.CreateDatabase(t, "app")
	c.Exec(t, "app", "CREATE TABLE t AS SELECT generate_series(1, 1000) i")
	env := loginRole(t, c, "keeper", password, "SUPERUSER")
	c.Exec(t, "postgres", "ALTER ROLE keeper SET my.token = '"+setting+"'; ALTER DATABASE app SET my.token = '"+setting+"'; ALTER ROLE keeper IN DATABASE app SET my.other = '"+setting+"'")
	tools, notes := spy(t, c)
	temporary, hooked := t.TempDir(), t.TempDir()
	hook := filepath.Join(t.TempDir(), "hook")
	writeFile(t, hook, fmt.Appendf(nil, "#!/bin/sh\nenv > %[1]s/env.$$\ncat > %[1]s/stdin.$$\n", hooked), 0o700)
	env = append(append(env, tools...), "TMPDIR="+temporary)
	stop := watchArguments(password)

	store, metrics := newStore(t), filepath.Join(t.TempDir(), "metrics")
	var printed strings.Builder
	for _, args := range [][]string{
		{"backup", "cluster", "--mode", "custom", "--compression", "0", "--before-hook", hook, "--after-hook", hook, "--metrics-file", metrics, "--log-format", "json"},
		{"backup", "single", "app", "--mode", "plain", "--compression", "0", "--json"},
		{"backup", "single", "app", "--mode", "directory", "--timeout", "1ms", "--log-format", "json"}, // fails
		{"verify"}, {"list", "--json"}, {"show", "latest", "--json"},
		{"probe", "--json"}, {"doctor"}, {"config"},
		{"restore", "single", "app", "--set", "cluster-", "--target-db", "copied too"},
		{"restore", "single", "app", "--target-db", "copied"},
		{"restore", "single", "app", "--target-db", "copied"}, // fails: it exists
	} {
		got := dbbackup(t, env, append(args, "--store", store)...)
		printed.WriteString(got.stdout + got.stderr)
	}
	if found := stop(); len(found) != 0 {
		t.Errorf("the password was an argument of: %q", found)
	}
	// What the user himself puts into our arguments does not go on to others.
	uri := fmt.Sprintf("postgresql://keeper:%s@%s:%d/postgres", password, c.Host, c.Port)
	dbbackup(t, append(tools, "TMPDIR="+temporary), "backup", "single", "app", "--mode", "plain", "--compression", "0", "-d", uri, "--store", store).must(t, exitOK)
	for _, text := range []string{password, setting} {
		if strings.Contains(printed.String(), text) {
			t.Errorf("%s was printed", text)
		}
	}
	wantAbsent(t, notes, []string{password, setting}, nil)
	wantAbsent(t, hooked, []string{password, setting}, nil)
	wantAbsent(t, filepath.Dir(metrics), []string{password, setting}, nil)
	wantAbsent(t, store, []string{password, setting}, func(name, text string) bool {
		base := filepath.Base(name)
		return text == setting && (base == "globals.sql" || strings.HasSuffix(base, ".properties.json") || strings.HasSuffix(base, ".create.sql") || strings.HasSuffix(base, ".dump"))
	})
	for _, tool := range []string{"pg_dump.*", "pg_dumpall.*", "pg_restore.*", "psql.*"} {
		if seen, _ := filepath.Glob(filepath.Join(notes, tool)); len(seen) == 0 {
			t.Errorf("%s was not run: this test did not see its arguments", tool)
		}
	}
	globals, err := filepath.Glob(filepath.Join(store, "*", "globals.sql"))
	if err != nil || len(globals) != 3 {
		t.Fatalf("globals: %v, %v", globals, err)
	}
	for _, path := range globals {
		if sql := string(readFile(t, path)); !strings.Contains(sql, `"keeper"`) || !strings.Contains(sql, "SCRAM-SHA-256$4096:") || !strings.Contains(sql, setting) {
			t.Errorf("%s does not hold the role's verifier and settings", path)
		}
	}
	wantPrivate(t, store)
	if left, err := os.ReadDir(temporary); err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

// wantPrivate checks that nobody but the owner can read what is in a store.
func wantPrivate(t *testing.T, store string) {
	t.Helper()
	err := filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// T94: an error about a connection does not repeat its password.
func TestT94ErrorsDoNotRepeatPasswords(t *testing.T) {
	t.Parallel()
	const password = "Canary4713"
	c := shared.Cluster(t)
	for name, conninfo := range map[string]string{
		"nobody listens":     "postgresql://u:" + password + "@127.0.0.1:1/db?connect_timeout=1",
		"wrong":              fmt.Sprintf("postgresql://%s:%s@%s:%d/db", c.User, password, c.Host, c.Port),
		"unknown parameter":  "postgresql://u:" + password + "@h/db?nonsense=1",
		"slash inside":       "postgresql://u:" + password + "/x@h/db",
		"at sign inside":     "postgresql://u:x@" + password + "@127.0.0.1:1/db",
		"broken escape":      "postgresql://u:" + password + "%zz@h/db",
		"open quote":         "user=u password='" + password,
		"bad TLS file":       "host=127.0.0.1 port=1 password=" + password + " sslmode=verify-full sslrootcert=/nowhere",
		"bad connect_timeot": "host=127.0.0.1 password=" + password + " connect_timeout=soon",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{{"backup", "single", "x"}, {"config"}} {
				got := dbbackup(t, []string{"PGCONNECT_TIMEOUT=1"}, append(args, "-d", conninfo, "--store", newStore(t))...)
				if strings.Contains(got.stdout+got.stderr, password) {
					t.Errorf("%q printed the password:\n%s%s", args, got.stdout, got.stderr)
				}
				if args[0] == "backup" && (got.code == exitOK || got.stderr == "") {
					t.Errorf("exit code %d, and %q", got.code, got.stderr)
				}
			}
		})
	}
}

// T95: any password works, in any place that takes one, for this process and
// for its children.
func TestT95AnyPasswordWorks(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := smallDatabase(t, c)
	for i, password := range []string{`co:lon ba\ck'quote"`, " spaces around ", "sp ace", "new\nline", "emoji 😀 ü %41+&=?#/@", `\`, `'`} {
		name := "role" + strconv.Itoa(i)
		env := loginRole(t, c, name, password, "SUPERUSER")
		place := env[:3:3] // without PGPASSWORD
		passfile := filepath.Join(t.TempDir(), "passwords")
		writeFile(t, passfile, []byte("# a comment\n*:*:*:nobody:x\n*:*:*:"+name+":"+strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(password)+"\n"), 0o600)
		uri := fmt.Sprintf("postgresql://%s:%s@%s:%d/postgres", name, strings.ReplaceAll(url.QueryEscape(password), "+", "%20"), c.Host, c.Port)
		keywords := fmt.Sprintf("host=%s port=%d user=%s password='%s'", c.Host, c.Port, name, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password))
		for way, test := range map[string]struct{ env, args []string }{
			"PGPASSWORD": {env: env},
			"PGPASSFILE": {env: append(place, "PGPASSFILE="+passfile)},
			"URI":        {args: []string{"-d", uri}},
			"keywords":   {args: []string{"-d", keywords}},
		} {
			if way == "PGPASSFILE" && (strings.Contains(password, "\n") || strings.TrimSpace(password) != password) {
				continue // the file has one line for each, whose ends pgx trims
			}
			t.Run(fmt.Sprintf("%d by %s", i, way), func(t *testing.T) {
				t.Parallel()
				store := newStore(t)
				dbbackup(t, test.env, append(test.args, "backup", "single", db, "--store", store, "--mode", "plain")...).want(t, exitOK)
				if i%2 == 0 { // which connects in the same way, and has other children
					dbbackup(t, test.env, append(test.args, "restore", "single", db, "--store", store, "--target-db", "copied "+t.Name())...).want(t, exitOK)
				}
			})
		}
	}
}

// A wrong password is not tried again.
func TestWrongPasswordIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	got := dbbackup(t, append(c.Env(), "PGPASSWORD=wrong"), "backup", "cluster", "--store", newStore(t))
	got.want(t, exitPrecondition, "password authentication failed", "hint: give the password in ~/.pgpass (mode 0600) or PGPASSWORD")
	if strings.Contains(got.stderr, "trying again") {
		t.Errorf("it was tried again: %s", got.stderr)
	}
	dbbackup(t, append(c.Env(), "PGPASSWORD="), "backup", "cluster", "--store", newStore(t)).want(t, exitPrecondition, "hint: give the password")
}

// T96: a password file or a config file that others can get at is refused.
func TestT96OpenFilesAreRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	file := filepath.Join(t.TempDir(), "passwords")
	writeFile(t, file, []byte("*:*:*:*:"+c.Password+"\n"), 0o600)
	env := append(c.Env()[:3:3], "PGPASSFILE="+file)
	dbbackup(t, env, "probe").want(t, exitOK)
	home := t.TempDir()
	writeFile(t, filepath.Join(home, ".pgpass"), []byte("*:*:*:*:"+c.Password+"\n"), 0o600)
	dbbackup(t, append(c.Env()[:3:3], "HOME="+home), "probe").want(t, exitOK)
	for _, path := range []string{file, filepath.Join(home, ".pgpass")} {
		if err := os.Chmod(path, 0o640); err != nil { //nolint:gosec // that is the fault
			t.Fatal(err)
		}
	}
	store := newStore(t)
	dbbackup(t, env, "backup", "cluster", "--store", store).want(t, exitPrecondition, "password file "+file, "hint: chmod 600 "+file)
	dbbackup(t, append(c.Env()[:3:3], "HOME="+home), "probe").want(t, exitPrecondition, "hint: chmod 600 "+home+"/.pgpass")
	wantEmpty(t, store)

	config := filepath.Join(t.TempDir(), "config.yaml")
	writeFile(t, config, []byte("hooks: {before: [/bin/true]}\n"), 0o600)
	dbbackup(t, c.Env(), "probe", "--config", config).want(t, exitOK)
	if err := os.Chmod(config, 0o660); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	dbbackup(t, c.Env(), "probe", "--config", config).want(t, exitPrecondition, "config file "+config, "hint: chmod go-w "+config)
}

// eavesdropper is a server that refuses TLS and keeps what it is told then.
func eavesdropper(t *testing.T) (port string, heard func() []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan []byte, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 8)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadFull(conn, request); err == nil {
				_, _ = conn.Write([]byte("N"))
				rest, _ := io.ReadAll(conn)
				told <- rest
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() []byte {
		select {
		case text := <-told:
			return text
		case <-time.After(10 * time.Second):
			t.Fatal("nobody asked the server for TLS")
			return nil
		}
	}
}

// T97: what does not speak TLS is not told a word, not even the role's name.
func TestT97ServerWithoutTLSIsToldNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"require", "verify-ca", "verify-full"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			port, heard := eavesdropper(t)
			env := []string{"PGHOST=127.0.0.1", "PGPORT=" + port, "PGUSER=keeper", "PGPASSWORD=Canary", "PGSSLMODE=" + mode, "PGSSLROOTCERT=" + pgtest.StrangerCA(t)}
			got := dbbackup(t, env, "backup", "cluster", "--store", newStore(t))
			got.want(t, exitPrecondition, "TLS", "hint: check sslmode")
			if text := heard(); len(text) != 0 {
				t.Errorf("the server was told %q", text)
			}
			if strings.Contains(got.stderr, "trying again") {
				t.Error("it was tried again")
			}
		})
	}
}

func TestT97CertificateOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	const host = "db.example.test"
	c := shared.Start(t, pgtest.WithTLS(host), pgtest.WithSetting("log_connections", "on"),
		pgtest.WithHBA("hostnossl all keeper all reject", "hostssl all keeper all scram-sha-256"))
	db := smallDatabase(t, c)
	env := loginRole(t, c, "keeper", "Canary", "SUPERUSER")
	for name, test := range map[string]struct{ env []string }{
		"another authority":    {[]string{"PGSSLMODE=verify-ca", "PGSSLROOTCERT=" + pgtest.StrangerCA(t)}},
		"another host":         {[]string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + c.CAFile}},
		"a file that is none":  {[]string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=/dev/null"}},
		"authority not stated": {[]string{"PGSSLMODE=verify-full"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := dbbackup(t, append(env, test.env...), "backup", "single", db, "--store", newStore(t))
			if got.code == exitOK || !strings.Contains(got.stderr, "hint: ") || strings.Contains(got.stderr, "trying again") {
				t.Errorf("exit code %d: %s", got.code, got.stderr)
			}
			if !strings.Contains(got.stderr, "certificate") && !strings.Contains(got.stderr, "x509") && !strings.Contains(got.stderr, "CA") {
				t.Errorf("the text does not say what is wrong: %s", got.stderr)
			}
		})
	}
	if strings.Contains(c.Log(), "user=keeper") {
		t.Errorf("the role came as far as the server:\n%s", c.Log())
	}

	// The name in the certificate, at the address of this machine: the name
	// counts for every process of the run, and so does TLS.
	conninfo := fmt.Sprintf("host=%s hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=%s", host, c.CAFile)
	lock := lockTable(t, c, db, "branches")
	store := newStore(t)
	r := start(t, env, "backup", "single", db, "--store", store, "--mode", "directory", "--jobs", "2", "-d", conninfo)
	eventuallySession(t, c, db, "Lock: ")
	rows := c.Query(t, "postgres", `SELECT ssl, application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'keeper'`)
	for _, row := range rows {
		if row[0] != "t" {
			t.Errorf("%s speaks without TLS", row[1])
		}
	}
	if len(rows) < 3 { // the snapshot's keeper, the watch for locks, pg_dump
		t.Errorf("sessions %v", rows)
	}
	lock()
	r.wait(t).want(t, exitOK)
	wantSound(t, store, 1)
	dbbackup(t, env, "restore", "single", db, "--store", store, "--target-db", "copied", "-d", conninfo).want(t, exitOK)
}
