package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
	"pgregory.net/rapid"
)

func TestReorder(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"flag after a name", "restore single app --dry-run", "restore single --dry-run -- app"},
		{"flag before the command", "--store s backup single app", "backup single --store s -- app"},
		{"between group and command", "backup --store s single app", "backup single --store s -- app"},
		{"value with equals sign", "backup single app --store=s", "backup single --store=s -- app"},
		{"host as libpq has it", "probe -h db1 -U me", "probe -h db1 -U me"},
		{"value that sticks", "backup cluster -j4 -p5433 -hdb1", "backup cluster -j 4 -p 5433 -h db1"},
		{"long name with one hyphen", "probe -port 5433", "probe -port 5433"},
		{"value that looks like a flag", "show x --store --json", "show --store --json -- x"},
		{"two hyphens end the flags", "restore single --clean -- --confirm", "restore single --clean -- --confirm"},
		{"names like commands", "backup single single backup", "backup single -- single backup"},
		{"a hyphen is a name", "show -", "show -- -"},
		{"switch with a value of its own", "verify x --quick=false", "verify --quick=false -- x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := newApplication(process{}).cli
			got := reorder(app, append([]string{"dbbackup"}, strings.Fields(tt.in)...)).args()
			if want := append([]string{"dbbackup"}, strings.Fields(tt.want)...); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// call is a command line that means one thing, however it is spelled.
type call struct {
	flags [][]string
	names []string
}

// TestArgumentsMeanTheSameInAnyOrder parses shuffled spellings of one call of
// `restore single` with the real parser, and compares what arrives.
func TestArgumentsMeanTheSameInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := drawCall(t)
		command := []string{"dbbackup", "restore", "single"}
		want := parsedBy(t, func(*cli.App) []string {
			return slices.Concat(command, slices.Concat(c.flags...), []string{"--"}, c.names)
		})
		got := parsedBy(t, func(app *cli.App) []string { return reorder(app, append(command, shuffled(t, c)...)).args() })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-flags first +shuffled):\n%s", diff)
		}
		if diff := cmp.Diff(append([]string{}, c.names...), got.Names); diff != "" {
			t.Fatalf("names (-want +got):\n%s", diff)
		}
	})
}

func drawCall(t *rapid.T) call {
	value := rapid.SampledFrom([]string{"x", "-x", "--clean", "single", "", "a=b", "ünï", "--"})
	var c call
	for _, flag := range []string{"--set", "--target-db", "-h", "--store"} {
		switch rapid.IntRange(0, 2).Draw(t, flag) {
		case 1:
			c.flags = append(c.flags, []string{flag, value.Draw(t, "value")})
		case 2:
			c.flags = append(c.flags, []string{flag + "=" + value.Draw(t, "value")})
		}
	}
	for _, flag := range []string{"--dry-run", "--clean", "--json"} {
		if rapid.Bool().Draw(t, flag) {
			c.flags = append(c.flags, []string{flag})
		}
	}
	c.names = rapid.SliceOfN(rapid.SampledFrom([]string{"app", "-", "restore", "backup", "a b", "ü"}), 0, 3).Draw(t, "names")
	return c
}

// shuffled puts the names anywhere among the flags, in their own order.
func shuffled(t *rapid.T, c call) []string {
	var args []string
	names := c.names
	for _, flag := range rapid.Permutation(c.flags).Draw(t, "order") {
		for len(names) > 0 && rapid.Bool().Draw(t, "name here") {
			args, names = append(args, names[0]), names[1:]
		}
		args = append(args, flag...)
	}
	return append(args, names...)
}

// parsed is what the action of a command sees.
type parsed struct {
	Names []string
	Flags map[string]string
}

// parsedBy parses a line with the library alone.
func parsedBy(t *rapid.T, line func(*cli.App) []string) parsed {
	app := newApplication(process{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}).cli
	command := commandNamed(commandNamed(app.Commands, "restore").Subcommands, "single")
	p := parsed{Names: []string{}, Flags: map[string]string{}}
	command.Action = func(c *cli.Context) error {
		p.Names = append(p.Names, c.Args().Slice()...)
		for _, f := range command.Flags {
			if name := f.Names()[0]; c.IsSet(name) {
				p.Flags[name] = fmt.Sprint(c.Value(name))
			}
		}
		return nil
	}
	if args := line(app); app.RunContext(context.Background(), args) != nil {
		t.Fatalf("the library does not parse %q", args)
	}
	return p
}

// usedInProcess runs the program in this process, without a server.
func usedInProcess(args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), process{
		args: append([]string{"dbbackup"}, args...), env: []string{"PATH=" + os.Getenv("PATH")},
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
	})
	return result{stdout.String(), stderr.String(), code}
}

func TestUsageErrors(t *testing.T) {
	t.Setenv("DBBACKUP_CONFIG", os.DevNull)
	for _, tt := range []struct {
		name       string
		args       []string
		text, hint string
	}{
		{"unknown command", []string{"bakcup"}, `unknown command "bakcup"`, "dbbackup --help"},
		{"unknown command of a group", []string{"backup", "all"}, `unknown command "backup all"`, "dbbackup backup --help"},
		{"group alone", []string{"restore"}, "restore what? It knows: cluster, single", "dbbackup restore --help"},
		{"unknown flag", []string{"backup", "single", "app", "--bogus"}, "unknown flag --bogus", "dbbackup backup single --help"},
		{"flag of another command", []string{"list", "--mode", "plain"}, "unknown flag --mode", "dbbackup list --help"},
		{"host without a connection", []string{"list", "-h", "db1"}, "unknown flag -h", "dbbackup list --help"},
		{"flag without its value", []string{"list", "--store"}, "flag needs an argument: -store", "dbbackup list --help"},
		{"number that is none", []string{"probe", "--jobs", "many"}, `invalid value "many" for flag -jobs`, "dbbackup probe --help"},
		{"missing name", []string{"backup", "single"}, "a name is missing", "dbbackup backup single --help"},
		{"too many names", []string{"backup", "single", "a", "b"}, `too many names: ["b"]`, "dbbackup backup single --help"},
		{"name for a cluster", []string{"backup", "cluster", "a"}, `too many names: ["a"]`, "dbbackup backup cluster --help"},
		{"empty name", []string{"backup", "single", ""}, "a name is empty", "dbbackup backup single --help"},
		{"empty set's name", []string{"verify", ""}, "a name is empty", "dbbackup verify --help"},
		{"empty set", []string{"restore", "single", "a", "--set="}, "--set is empty", "dbbackup restore single --help"},
		{"empty new name", []string{"restore", "single", "a", "--target-db", ""}, "--target-db is empty", "dbbackup restore single --help"},
		{"empty store", []string{"list", "--store", ""}, "no store named", "--store DIR"},
		{"both about the password", []string{"probe", "-w", "-W"}, "-W asks for a password, -w never does", ""},
		{"shell that is not known", []string{"completion", "fish"}, `no completion for "fish"`, "dbbackup completion bash"},
		{"log format that is not known", []string{"list", "--log-format", "xml"}, `"xml" is neither text nor json`, ""},
		{"time that is none", []string{"config", "--timeout", "90"}, `timeout: "90" is not a time such as 90s`, ""},
		{"size that is none", []string{"config", "--chunked-over", "big"}, `chunked-over: "big" is not an amount of bytes`, ""},
		{"mode that is not known", []string{"config", "--mode", "fast"}, `unknown mode "fast"`, "auto, custom, plain, directory and chunked"},
		{"negative level", []string{"config", "--compression", "-1"}, "compression level -1 is not between 0 and 6", ""},
		{"negative jobs", []string{"config", "--jobs", "-1"}, "begin at 1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := usedInProcess(tt.args...)
			got.want(t, exitUsage, "dbbackup: ", tt.text)
			if tt.hint != "" {
				got.want(t, exitUsage, "hint: ", tt.hint)
			}
			if got.stdout != "" {
				t.Errorf("standard output: got %q, want nothing", got.stdout)
			}
		})
	}
}

// TestNoVariableDecidesAboutACall: a forgotten variable must not confirm that a
// database is replaced, nor turn a dry run into a real one.
func TestNoVariableDecidesAboutACall(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, l := range leaves(commandNamed(newApplication(process{}).cli.Commands, "restore")) {
		for _, f := range l.command.Flags {
			switch f.Names()[0] {
			case "confirm", "clean", "dry-run", "target-db", "data-only", "schema-only":
				seen++
				if doc, ok := f.(cli.DocGenerationFlag); !ok || len(doc.GetEnvVars()) > 0 {
					t.Errorf("--%s can be set in the environment", f.Names()[0])
				}
			}
		}
	}
	if seen < 9 {
		t.Errorf("got %d flags, want those of both restore commands", seen)
	}
}
