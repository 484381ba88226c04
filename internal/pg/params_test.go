package pg

import (
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"dbbackup/internal/fault"
)

func TestParseParams(t *testing.T) {
	tests := []struct {
		name, in string
		want     Params
	}{
		{"nothing", "", Params{}},
		{"a name", "app", Params{"dbname": "app"}},
		{"a name that looks like an option", "-Fp", Params{"dbname": "-Fp"}},
		{"a name with spaces and quotes", `it's a "db"`, Params{"dbname": `it's a "db"`}},
		{"all parts", "postgresql://u:p@h:5433/db?sslmode=require",
			Params{"user": "u", "password": "p", "host": "h", "port": "5433", "dbname": "db", "sslmode": "require"}},
		{"short scheme", "postgres://h", Params{"host": "h"}},
		{"nothing but the scheme", "postgresql://", Params{}},
		{"no host", "postgresql:///db", Params{"dbname": "db"}},
		{"user only", "postgresql://u@", Params{"user": "u"}},
		{"empty password", "postgresql://u:@h", Params{"user": "u", "host": "h"}},
		{"percent escapes everywhere", "postgresql://a%40b:p%3A%2F%3F%23%20%5C%27@h%6Fst/d%2Fb?application_name=a%26b%3D",
			Params{"user": "a@b", "password": `p:/?# \'`, "host": "host", "dbname": "d/b", "application_name": "a&b="}},
		{"plus is no space", "postgresql://h/a+b", Params{"host": "h", "dbname": "a+b"}},
		{"password with a question mark", "postgresql://u:a?b=c@h/db", Params{"user": "u", "password": "a?b=c", "host": "h", "dbname": "db"}},
		{"password with a colon", "postgresql://u:a:b@h", Params{"user": "u", "password": "a:b", "host": "h"}},
		{"IPv6", "postgresql://[::1]:5433/db", Params{"host": "::1", "port": "5433", "dbname": "db"}},
		{"IPv6 without port", "postgresql://u@[2001:db8::1]", Params{"user": "u", "host": "2001:db8::1"}},
		{"several hosts", "postgresql://a:1,b:2/db", Params{"host": "a,b", "port": "1,2", "dbname": "db"}},
		{"several hosts, some ports", "postgresql://a,b:2,[::1]", Params{"host": "a,b,::1", "port": ",2,"}},
		{"several hosts, no ports", "postgresql://a,b?target_session_attrs=primary", Params{"host": "a,b", "target_session_attrs": "primary"}},
		{"socket in the authority", "postgresql://%2Frun%2Fpg:5433/db", Params{"host": "/run/pg", "port": "5433", "dbname": "db"}},
		{"socket as a parameter", "postgresql:///db?host=/run/pg&port=5433", Params{"host": "/run/pg", "port": "5433", "dbname": "db"}},
		{"JDBC's ssl", "postgresql://h?ssl=true", Params{"host": "h", "sslmode": "require"}},
		{"dbname as a parameter", "postgresql://h/?dbname=%2F%2Fx", Params{"host": "h", "dbname": "//x"}},
		{"keywords", "host=h port=5433 dbname=db", Params{"host": "h", "port": "5433", "dbname": "db"}},
		{"keywords with spaces", "  host = h\n\tuser\t=\tu  ", Params{"host": "h", "user": "u"}},
		{"quotes", `password='it\'s a \\ b' dbname='x y'`, Params{"password": `it's a \ b`, "dbname": "x y"}},
		{"bare escapes", `password=a\ b\'c\\d`, Params{"password": `a b'c\d`}},
		{"empty value", "password='' user=u", Params{"password": "", "user": "u"}},
		{"equals sign in a value", "options=-cgeqo=off", Params{"options": "-cgeqo=off"}},
		{"the last one counts", "user=a user=b", Params{"user": "b"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseParams(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An error about a connection string must not repeat it: it may hold a
// password (S1).
func TestParseParamsRefuses(t *testing.T) {
	const secret = "canary"
	for name, in := range map[string]string{
		"unknown keyword":            "passwort=" + secret,
		"unknown parameter":          "postgresql://u:" + secret + "@h/db?nonsense=1",
		"open quote":                 "user=u password='" + secret,
		"text without equals":        "user=u " + secret + " password",
		"name with a space":          "user=u my password=" + secret,
		"broken escape":              "postgresql://u:%zz" + secret + "@h",
		"parameter without value":    "postgresql://u@h/db?" + secret,
		"NUL":                        "postgresql://u:" + secret + "%00@h",
		"port that is no number":     "host=h port=" + secret,
		"slash in the password":      "postgresql://u:" + secret + "/x@h/db",
		"at sign in the password":    "postgresql://u:x@" + secret + "@h/db",
		"port beyond the last":       "host=h port=65536",
		"second port is no number":   "postgresql://a:1,b:" + secret + "/db",
		"quote in a keyword's place": "'" + secret + "'=x",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseParams(in)
			wantKind(t, err, fault.Usage)
			if text := err.Error() + strings.Join(fault.Hints(err), ""); strings.Contains(text, secret) {
				t.Errorf("the error repeats a part of the string: %s", text)
			}
		})
	}
}

var hostileNames = []string{
	"-Fp", "a=b", "host=127.0.0.1 dbname=template1", "postgresql://elsewhere/template1", "../../x", "line\nbreak",
	`quote's "and" back\slash`, "$(touch x)", "ends in backslash\\", " spaces ", "名前データベース", "%41", "a,b", "'", `\'`,
}

// The rendered string must mean the same to libpq, to pgx and to ourselves.
func TestConninfoLeadsToTheDatabaseOfThatName(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, paramsOf(c))
	psql := filepath.Join(c.BinDir, "psql")
	for _, name := range hostileNames {
		t.Run(name, func(t *testing.T) {
			c.CreateDatabase(t, name)
			if got := connect(t, e, name).Database(); got != name {
				t.Errorf("pgx reached database %q", got)
			}
			conninfo := e.ChildConninfo(name, "it's \\ me")
			if strings.Contains(conninfo, c.Password) {
				t.Errorf("a child's argument holds the password: %s", conninfo)
			}
			cmd := exec.Command(psql, "-XAtw", "-d", conninfo, "-c", "SELECT current_database() || '|' || current_setting('application_name')")
			cmd.Env = e.ChildEnv()
			out, err := cmd.CombinedOutput()
			if want := name + `|it's \ me` + "\n"; err != nil || string(out) != want {
				t.Errorf("libpq: %v, %q, want %q", err, out, want)
			}
			again, err := ParseParams(conninfo)
			if err != nil || again["dbname"] != name {
				t.Errorf("read back: %v, database %q", err, again["dbname"])
			}
		})
	}
}

func TestWithKeepsWhatIsNotGiven(t *testing.T) {
	base := Params{"host": "a", "user": "u"}
	got := base.With(Params{"host": "b", "user": "", "port": "1"})
	if diff := cmp.Diff(Params{"host": "b", "user": "u", "port": "1"}, got); diff != "" {
		t.Error(diff)
	}
	if base["host"] != "a" {
		t.Error("With changed its receiver")
	}
}

// What ParseParams reads must render to a string that it reads the same again.
func FuzzParseParams(f *testing.F) {
	for _, seed := range []string{
		"app", "postgresql://u:p@[::1]:1,b:2/d%2Fb?sslmode=require", `user='it\'s' password=a\ b`, "a=b=c", "postgres://%", "x='", "port=\\",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseParams(s)
		if err != nil {
			return
		}
		again, err := parseKeywords(p.conninfo(func(string) bool { return true }))
		if err != nil {
			t.Fatalf("%q was read as %v, whose rendering is refused: %v", s, p, err)
		}
		if !maps.Equal(p, again) {
			t.Fatalf("%q was read as %v, and then as %v", s, p, again)
		}
	})
}

// Values are data: whatever they hold, pgx and this package's own reader get
// them back unchanged.
func FuzzConninfoValues(f *testing.F) {
	for _, name := range hostileNames {
		f.Add(name, name, name)
	}
	f.Fuzz(func(t *testing.T, user, password, database string) {
		p := Params{"host": "localhost", "sslmode": "disable"}.With(Params{"user": user, "password": password, "dbname": database})
		if p.check() != nil {
			return
		}
		text := p.conninfo(func(string) bool { return true })
		again, err := parseKeywords(text)
		if err != nil || !maps.Equal(p, again) {
			t.Fatalf("%v became %v: %v", p, again, err)
		}
		cfg, err := pgx.ParseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		for key, got := range map[string]string{"user": cfg.User, "password": cfg.Password, "dbname": cfg.Database} {
			if want, given := p[key]; given && got != want {
				t.Fatalf("pgx reads %s as %q, want %q", key, got, want)
			}
		}
	})
}
